package vsock

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"

	"berth/virtio/virtiotest"
)

// sink is a host's end that takes everything and says a little.
type sink struct {
	once   sync.Once
	closed chan struct{}
	said   bool
}

func (s *sink) Read(p []byte) (int, error) {
	if !s.said {
		s.said = true
		return copy(p, "hello, guest"), nil
	}
	<-s.closed
	return 0, io.EOF
}
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) CloseWrite() error           { return nil }
func (s *sink) Close() error                { s.once.Do(func() { close(s.closed) }); return nil }

// sinks are on the even ports.
type sinks struct{}

func (sinks) Dial(port uint32) (Conn, error) {
	if port%2 != 0 {
		return nil, errors.New("nobody")
	}
	return &sink{closed: make(chan struct{})}, nil
}

// FuzzQueues plays a history of packets and buffers on all queues. Eight bytes make a
// step: what, port, operation, flags, length 2, credit 2. Connections stay bounded, the
// device goes on, and a reset ends everything.
func FuzzQueues(f *testing.F) {
	f.Add([]byte{0, 2, 1, 0, 0, 0, 0xff, 0, 0, 2, 5, 0, 9, 0, 0xff, 0, 2, 0, 0, 0, 100, 0, 0, 0, 0, 2, 4, 3, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 0, 0}, []byte("data"))
	f.Add([]byte{4, 9, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 200, 0, 0, 0, 1, 9, 2, 0, 0, 0, 9, 9, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0}, []byte{})
	f.Fuzz(func(t *testing.T, history, data []byte) {
		r := &rig{}
		r.open(t, sinks{})
		r.Put(sendAt+headerSize, data[:min(len(data), 4096)])
		for history = history[:min(len(history), 8*64)]; len(history) >= 8; history = history[8:] {
			s, n := history, uint32(binary.LittleEndian.Uint16(history[4:]))
			h := header{
				srcCID: cid, dstCID: HostCID, srcPort: uint32(s[1]), dstPort: uint32(s[1]), kind: typeStream, op: uint16(s[2]), flags: uint32(s[3]),
				len: n, bufAlloc: uint32(binary.LittleEndian.Uint16(s[6:])) << 8, forwarded: uint32(s[6]),
			}
			switch s[0] % 8 {
			case 1: // the host's connections
				h.dstPort = firstPort + uint32(s[1]&3)
			case 2:
				r.rx.Send(virtiotest.In(receiveAt+uint64(s[1])<<8, n))
				continue
			case 3:
				r.ev.Send(virtiotest.In(receiveAt, n))
				continue
			case 4:
				_ = r.dev.Connect(uint32(s[1]), &sink{closed: make(chan struct{})}, func(uint32) error { return nil })
				continue
			case 5:
				r.Dev.Pause()
				_ = r.dev.Load(r.dev.Save())
				r.Dev.Resume()
				continue
			case 6:
				h.kind, h.srcCID = uint16(s[3]), uint64(s[6])
			case 7:
				r.tx.Send(virtiotest.Out(sendAt, n%100), virtiotest.Out(sendAt, uint32(s[3])))
				continue
			}
			r.Put(sendAt, h.append(nil))
			r.tx.Send(virtiotest.Out(sendAt, headerSize+n%4096))
		}
		if n := r.dev.Connections(); n > maxConnections {
			t.Errorf("%d connections", n)
		}
		r.SetStatus(0)
		if n := r.dev.Connections(); n != 0 {
			t.Errorf("%d connections after a reset", n)
		}
	})
}

// FuzzGreeting reads what a program of the host says first.
func FuzzGreeting(f *testing.F) {
	f.Add([]byte("CONNECT 1234\nrest"))
	f.Add([]byte("CONNECT \r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &counted{b: b}
		_, err := readGreeting(r)
		if r.n > maxGreeting {
			t.Errorf("%d bytes were read", r.n)
		}
		if err == nil && b[r.n-1] != '\n' {
			t.Errorf("more was read than the greeting")
		}
	})
}

type counted struct {
	b []byte
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	if c.n == len(c.b) {
		return 0, io.EOF
	}
	n := copy(p, c.b[c.n:])
	c.n += n
	return n, nil
}
