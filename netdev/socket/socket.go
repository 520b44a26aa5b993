// Package socket is the ports whose other end is a peer behind a socket, as QEMU's netdevs stream and dgram have it.
package socket

import (
	"fmt"
	"net"
	"os"
	"time"

	"berth/netdev"
)

// Address is where a socket is.
type Address struct {
	Network string // "unix", "inet" or "fd"
	Path    string // of unix
	Host    string // of inet; "" is any, or this host
	Port    string
	FD      int // an open descriptor, which is the port's from now on
}

func (a Address) String() string {
	switch a.Network {
	case "unix":
		return a.Path
	case "fd":
		return fmt.Sprintf("descriptor %d", a.FD)
	}
	return net.JoinHostPort(a.Host, a.Port)
}

// patience is how long a frame waits for a peer that takes nothing. When that was in
// vain, further frames do not wait until the peer has taken something.
const patience = 50 * time.Millisecond

// maxPieces is how many pieces one system call takes (UIO_MAXIOV).
const maxPieces = 1024

// file is the net package's copy of descriptor fd, which is closed.
func file(fd int) *os.File { return os.NewFile(uintptr(fd), fmt.Sprintf("descriptor %d", fd)) }

// strip returns a frame without its header, which says nothing here.
func strip(to, frame [][]byte) [][]byte {
	skip := netdev.HeaderSize
	for _, b := range frame {
		if k := min(skip, len(b)); k > 0 {
			b, skip = b[k:], skip-k
		}
		if len(b) > 0 {
			to = append(to, b)
		}
	}
	return to
}

// merged returns pieces as few enough for one system call.
func merged(pieces [][]byte) [][]byte {
	if len(pieces) <= maxPieces {
		return pieces
	}
	var rest []byte
	for _, b := range pieces[maxPieces-1:] {
		rest = append(rest, b...)
	}
	return append(pieces[:maxPieces-1:maxPieces-1], rest)
}

// length is how many bytes pieces have.
func length(pieces [][]byte) (n int) {
	for _, b := range pieces {
		n += len(b)
	}
	return n
}
