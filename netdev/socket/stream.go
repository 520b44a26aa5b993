package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/chardev"
	"berth/netdev"
)

// On a stream a frame has its length in front, big-endian, and no header:
//
//	length 4 | frame
const prefixSize = 4

// StreamConfig is what a stream is made from.
type StreamConfig struct {
	Address Address
	// Server makes the socket and has one peer after the other; else the peer is there, or
	// comes again: it is looked for every Reconnect, if that is not 0.
	Server    bool
	Reconnect time.Duration
	Log       *slog.Logger // nil: silent
}

// Stream is a port to a peer behind a stream socket. Without a peer frames are dropped.
type Stream struct {
	c        StreamConfig
	listener net.Listener // nil: no server
	in       []byte       // read, and not yet given: Receive's
	buffer   []byte
	ctx      context.Context // done when the port is closed
	done     context.CancelFunc

	mu     sync.Mutex
	conn   *link // nil: no peer
	closed bool
}

// link is a connection to a peer, and the way out to it.
type link struct {
	net.Conn

	mu     sync.Mutex
	out    sender
	prefix [prefixSize]byte
	pieces [][]byte
	rest   []byte // of a frame that the peer has in part
}

// NewStream makes the port. A peer that must be there and is not is an error.
func NewStream(c StreamConfig) (*Stream, error) {
	s := &Stream{c: c, buffer: make([]byte, 256<<10)}
	s.ctx, s.done = context.WithCancel(context.Background())
	var err error
	switch {
	case c.Address.Network == "fd":
		err = s.inherit()
	case c.Server && c.Address.Network == "unix":
		s.listener, err = chardev.ListenPrivate(c.Address.Path)
	case c.Server:
		s.listener, err = net.Listen("tcp", c.Address.String())
	case c.Reconnect == 0:
		err = s.connect()
	}
	if err != nil {
		s.done()
		return nil, fmt.Errorf("netdev/socket: %s: %w", c.Address, err)
	}
	return s, nil
}

// inherit takes an open descriptor: a connection, or a socket that listens.
func (s *Stream) inherit() error {
	f := file(s.c.Address.FD)
	defer f.Close()
	var err error
	if s.c.Server {
		s.listener, err = net.FileListener(f)
		return err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	return s.take(c)
}

// connect looks for the peer once.
func (s *Stream) connect() error {
	network := "tcp"
	if s.c.Address.Network == "unix" {
		network = "unix"
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.DialContext(s.ctx, network, s.c.Address.String())
	if err != nil {
		return err
	}
	return s.take(c)
}

// take makes c the connection to the peer.
func (s *Stream) take(c net.Conn) error {
	out, err := newSender(c)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(net.ErrClosed, c.Close())
	}
	s.conn, s.in = &link{Conn: c, out: out}, s.buffer[:0]
	if s.c.Log != nil {
		s.c.Log.Debug("a NIC's peer is there", "address", s.c.Address.String())
	}
	return nil
}

// peer returns the connection, which it waits for; io.EOF says that none will come.
func (s *Stream) peer() (*link, error) {
	for {
		s.mu.Lock()
		c, closed := s.conn, s.closed
		s.mu.Unlock()
		switch {
		case closed:
			return nil, io.EOF
		case c != nil:
			return c, nil
		case s.listener != nil:
			n, err := s.listener.Accept()
			switch {
			case err == nil:
				_ = s.take(n)
			case errors.Is(err, net.ErrClosed):
				return nil, io.EOF
			default: // no descriptors left, or the like
				s.pause(100 * time.Millisecond)
			}
		case s.c.Reconnect == 0:
			return nil, io.EOF
		default:
			if s.connect() == nil {
				continue
			}
			s.pause(s.c.Reconnect)
		}
	}
}

// pause waits, but not for longer than the port is open.
func (s *Stream) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}

// lose forgets the connection c.
func (s *Stream) lose(c *link, why error) {
	s.mu.Lock()
	mine := s.conn == c
	if mine {
		s.conn = nil
	}
	closed := s.closed
	s.mu.Unlock()
	_ = c.Close() // it is of no use whatever that says
	if mine && !closed && s.c.Log != nil {
		s.c.Log.Debug("a NIC's peer is gone", "address", s.c.Address.String(), "why", why)
	}
}

// Receive implements netdev.Port. A peer that sends what is no frame is let go.
func (s *Stream) Receive(p []byte) (int, error) {
	for {
		c, err := s.peer()
		if err != nil {
			return 0, err
		}
		if n, ok, bad := s.next(p); bad {
			s.lose(c, errors.New("it sent a frame of a length that there is not"))
			continue
		} else if ok {
			return n, nil
		}
		if err := s.fill(c); err != nil {
			s.lose(c, err)
		}
	}
}

// next takes the next frame that has come whole.
func (s *Stream) next(p []byte) (n int, ok, bad bool) {
	if len(s.in) < prefixSize {
		return 0, false, false
	}
	size := binary.BigEndian.Uint32(s.in)
	if size > netdev.MaxFrame-netdev.HeaderSize || size == 0 {
		return 0, false, true
	}
	if len(s.in) < prefixSize+int(size) {
		return 0, false, false
	}
	clear(p[:netdev.HeaderSize])
	n = netdev.HeaderSize + copy(p[netdev.HeaderSize:], s.in[prefixSize:prefixSize+size])
	s.in = s.in[prefixSize+size:]
	return n, true, false
}

// fill reads more behind what there is, which moves to the buffer's start for that.
func (s *Stream) fill(c *link) error {
	n := copy(s.buffer, s.in)
	k, err := c.Read(s.buffer[n:])
	s.in = s.buffer[:n+k]
	if k > 0 {
		return nil
	}
	return err
}

// Send implements netdev.Port.
func (s *Stream) Send(frame [][]byte) error {
	s.mu.Lock()
	c, closed := s.conn, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return net.ErrClosed
	case c == nil:
		return nil
	}
	if err := c.send(frame); err != nil && !errors.Is(err, unix.EAGAIN) {
		s.lose(c, err)
	}
	return nil
}

// send writes a frame behind what is left of the one before. A frame is written whole or
// not at all: what the peer has of one it gets the rest of.
func (l *link) send(frame [][]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.finish(); err != nil {
		return err
	}
	l.pieces = strip(append(l.pieces[:0], l.prefix[:]), frame)
	size := length(l.pieces) - prefixSize
	if size < minFrame {
		return nil
	}
	binary.BigEndian.PutUint32(l.prefix[:], uint32(size))
	l.pieces = merged(l.pieces)
	n, err := l.out.write(l.pieces)
	if err == nil && n < prefixSize+size {
		for _, b := range l.pieces {
			k := min(n, len(b))
			l.rest, n = append(l.rest, b[k:]...), n-k
		}
		err = l.finish()
	}
	clear(l.pieces)
	return err
}

// finish writes what is left of the frame before.
func (l *link) finish() error {
	for len(l.rest) > 0 {
		n, err := l.out.write([][]byte{l.rest})
		if l.rest = l.rest[n:]; err != nil {
			return err
		}
	}
	l.rest = nil
	return nil
}

// Close implements netdev.Port.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.done()
	var err error
	if s.listener != nil {
		err = s.listener.Close()
	}
	if s.conn != nil {
		err = errors.Join(err, s.conn.Close())
	}
	return err
}
