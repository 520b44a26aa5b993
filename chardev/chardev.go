// Package chardev is the host's end of byte devices: serial ports, debug consoles.
package chardev

import "io"

// Port is a stream of bytes to and from the host. Read blocks until it has at
// least one byte, and returns io.EOF when there will be none; Write takes all of
// p or fails. One reader and one writer may use a Port at the same time. Close
// ends a blocked Read or Write, and may be called from anywhere.
type Port interface {
	io.ReadWriteCloser
}
