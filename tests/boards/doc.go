// Package boards boots Debian's kernel on each board and asks the guest what the machine is.
package boards
