package optab

var sseRows []Row
