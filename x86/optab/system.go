package optab

var systemRows []Row
