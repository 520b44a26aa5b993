package optab

var x87Rows []Row
