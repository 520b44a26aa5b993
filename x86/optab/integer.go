package optab

var integerRows []Row
