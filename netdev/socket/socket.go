// Package socket is the ports whose other end is a peer behind a socket, as QEMU's netdevs stream and dgram have it.
package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

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

// minFrame is the least that has addresses and a type; less is not passed on.
const minFrame = 14

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

// sender is the way out of a socket. One goroutine uses it at a time.
type sender struct {
	raw      syscall.RawConn
	deadline func(time.Time) error
	peer     unix.Sockaddr // nil: the socket is connected
	stuck    bool          // the peer has taken nothing for patience
}

func newSender(c interface{ SetWriteDeadline(time.Time) error }) (sender, error) {
	r, ok := c.(syscall.Conn)
	if !ok {
		return sender{}, fmt.Errorf("%T is no socket of the host", c)
	}
	raw, err := r.SyscallConn()
	return sender{raw: raw, deadline: c.SetWriteDeadline}, err
}

// write writes what the peer takes, for which it waits if need be, but not for long:
// EAGAIN says that this was in vain.
func (s *sender) write(pieces [][]byte) (n int, err error) {
	n, err = s.attempt(pieces, false)
	if errors.Is(err, unix.EAGAIN) && !s.stuck {
		if err := s.deadline(time.Now().Add(patience)); err != nil {
			return 0, err
		}
		n, err = s.attempt(pieces, true)
		_ = s.deadline(time.Time{}) // closed meanwhile, at worst
		if s.stuck = errors.Is(err, os.ErrDeadlineExceeded); s.stuck {
			err = unix.EAGAIN
		}
	}
	if n > 0 {
		s.stuck = false
	}
	return n, err
}

func (s *sender) attempt(pieces [][]byte, wait bool) (n int, err error) {
	cerr := s.raw.Write(func(fd uintptr) bool {
		for {
			n, err = unix.SendmsgBuffers(int(fd), pieces, nil, s.peer, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if !errors.Is(err, unix.EINTR) {
				return !wait || !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if cerr != nil {
		err = cerr
	}
	return max(n, 0), err
}
