// Package netdevtest is the suite that every netdev.Port passes, and a port for the tests of what stands above.
package netdevtest

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"berth/netdev"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// Pipe is a port whose other end is the test's. Frames have their headers.
type Pipe struct {
	ToGuest   chan []byte // the test's frames, which Receive gives
	FromGuest chan []byte // those that were sent
	can       netdev.Offloads

	mu   sync.Mutex
	gets netdev.Offloads
	once sync.Once
	done chan struct{}
}

// NewPipe returns a port that can do offloads.
func NewPipe(can netdev.Offloads) *Pipe {
	return &Pipe{ToGuest: make(chan []byte, 1024), FromGuest: make(chan []byte, 1024), can: can, done: make(chan struct{})}
}

// Send implements netdev.Port.
func (p *Pipe) Send(frame [][]byte) error {
	var f []byte
	for _, b := range frame {
		f = append(f, b...)
	}
	select {
	case <-p.done:
		return net.ErrClosed
	default:
	}
	select {
	case p.FromGuest <- f:
	default: // nobody looks
	}
	return nil
}

// Receive implements netdev.Port.
func (p *Pipe) Receive(b []byte) (int, error) {
	select {
	case <-p.done:
		return 0, io.EOF
	default:
	}
	select {
	case <-p.done:
		return 0, io.EOF
	case f := <-p.ToGuest:
		return copy(b, f), nil
	}
}

// Close implements netdev.Port.
func (p *Pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// Offloads implements netdev.Offloader.
func (p *Pipe) Offloads() netdev.Offloads { return p.can }

// SetOffloads implements netdev.Offloader.
func (p *Pipe) SetOffloads(o netdev.Offloads) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gets = o
	return nil
}

// Gets is what SetOffloads was last told.
func (p *Pipe) Gets() netdev.Offloads {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gets
}

// Take returns the next frame from the guest.
func (p *Pipe) Take(t testing.TB) []byte {
	t.Helper()
	select {
	case f := <-p.FromGuest:
		return f
	case <-time.After(patience):
		t.Fatal("no frame came from the guest")
		return nil
	}
}

// Frame returns an Ethernet frame of n bytes, without a header, whose type means nothing.
func Frame(to, from [6]byte, n int) []byte {
	f := append(append(to[:], from[:]...), 0x88, 0xb5)
	for len(f) < n {
		f = append(f, byte(len(f)*7))
	}
	return f
}

// WithHeader puts a header in front of a frame.
func WithHeader(frame []byte, header ...byte) []byte {
	h := make([]byte, netdev.HeaderSize, netdev.HeaderSize+len(frame))
	copy(h, header)
	return append(h, frame...)
}

// Far is the pipe's other end for Conformance.
func (p *Pipe) Far() Far { return far{p} }

type far struct{ p *Pipe }

func (f far) Send(frame []byte) error {
	f.p.ToGuest <- WithHeader(frame)
	return nil
}

func (f far) Receive(b []byte) (int, error) {
	for {
		select {
		case g := <-f.p.FromGuest:
			if len(g) > netdev.HeaderSize {
				return copy(b, g[netdev.HeaderSize:]), nil
			}
		case <-time.After(patience):
			return 0, os.ErrDeadlineExceeded
		}
	}
}
