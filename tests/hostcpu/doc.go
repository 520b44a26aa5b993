// Package hostcpu compares the interpreter with the processor it runs on: the same random instructions, the same state, everything compared.
package hostcpu
