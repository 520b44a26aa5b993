package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"berth/netdev"
)

// maxPieces is how many pieces one writev takes (UIO_MAXIOV).
const maxPieces = 1024

// queue is one descriptor of an interface.
type queue struct {
	fd       int
	ends     int  // an eventfd that ends Receive
	headers  bool // frames have headers
	offloads netdev.Offloads

	mu       sync.RWMutex // held for reading while fd is written, for it must not be closed then
	closed   bool
	inactive bool // the host has been told not to use it
	changed  sync.Cond
	receives sync.WaitGroup
}

// newQueue takes fd, which it closes after an error too.
func newQueue(fd int) (*queue, error) {
	ends, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	q := &queue{fd: fd, ends: ends}
	q.changed.L = &q.mu
	return q, nil
}

// prepare finds out what the host can do, and begins with none of it.
func (q *queue) prepare(headers bool) error {
	if q.headers = headers; !headers {
		return nil
	}
	if err := unix.IoctlSetPointerInt(q.fd, unix.TUNSETVNETHDRSZ, netdev.HeaderSize); err != nil {
		return fmt.Errorf("a header of %d bytes: %w", netdev.HeaderSize, err)
	}
	for _, o := range []netdev.Offloads{
		{Checksum: true},
		{Checksum: true, TSO4: true, TSO6: true, TSOECN: true},
		{Checksum: true, TSO4: true, TSO6: true, TSOECN: true, UFO: true},
		{Checksum: true, TSO4: true, TSO6: true, TSOECN: true, UFO: true, USO4: true, USO6: true},
	} {
		if q.SetOffloads(o) != nil {
			break
		}
		q.offloads = o
	}
	return q.SetOffloads(netdev.Offloads{})
}

// Offloads implements netdev.Offloader.
func (q *queue) Offloads() netdev.Offloads { return q.offloads }

// Offloads as TUNSETOFFLOAD has them (linux/if_tun.h).
const (
	offloadChecksum = 1
	offloadTSO4     = 2
	offloadTSO6     = 4
	offloadTSOECN   = 8
	offloadUFO      = 16
	offloadUSO4     = 32
	offloadUSO6     = 64
)

// SetOffloads implements netdev.Offloader. It is the whole interface's.
func (q *queue) SetOffloads(o netdev.Offloads) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	switch {
	case q.closed:
		return net.ErrClosed
	case !q.headers:
		return nil
	case q.inactive: // its interface has been told by others
		return nil
	}
	bits := 0
	for _, f := range []struct {
		on  bool
		bit int
	}{
		{o.Checksum, offloadChecksum}, {o.TSO4, offloadTSO4}, {o.TSO6, offloadTSO6}, {o.TSOECN, offloadTSOECN},
		{o.UFO, offloadUFO}, {o.USO4, offloadUSO4}, {o.USO6, offloadUSO6},
	} {
		if f.on {
			bits |= f.bit
		}
	}
	return unix.IoctlSetInt(q.fd, unix.TUNSETOFFLOAD, bits)
}

// use has the host use the queue, or not.
func (q *queue) use(on bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.inactive == !on {
		return nil
	}
	r, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_DETACH_QUEUE)
	if on {
		flags = unix.IFF_ATTACH_QUEUE
	}
	r.SetUint16(flags)
	if err := unix.IoctlIfreq(q.fd, unix.TUNSETQUEUE, r); err != nil {
		return err
	}
	q.inactive = !on
	q.changed.Broadcast()
	return nil
}

// Send implements netdev.Port.
func (q *queue) Send(frame [][]byte) error {
	var array [16][]byte
	if !q.headers {
		frame = strip(array[:0], frame)
	}
	if len(frame) > maxPieces {
		var rest []byte
		for _, b := range frame[maxPieces-1:] {
			rest = append(rest, b...)
		}
		frame = append(frame[:maxPieces-1:maxPieces-1], rest)
	}
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.closed {
		return net.ErrClosed
	}
	for {
		switch _, err := unix.Writev(q.fd, frame); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EBADFD) && !q.inactive:
			return fmt.Errorf("tap: the interface is gone: %w", err)
		default:
			return nil // sent, or not taken: a header that makes no sense, an interface that is down
		}
	}
}

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

// Receive implements netdev.Port.
func (q *queue) Receive(p []byte) (int, error) {
	if !q.begin() {
		return 0, io.EOF
	}
	defer q.receives.Done()
	into := p[:netdev.MaxFrame]
	if !q.headers {
		clear(p[:netdev.HeaderSize])
		into = p[netdev.HeaderSize:netdev.MaxFrame]
	}
	for {
		n, err := unix.Read(q.fd, into)
		switch {
		case err == nil:
			return len(p[:netdev.MaxFrame]) - len(into) + n, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBADFD) && q.resting():
			if !q.await() {
				return 0, io.EOF
			}
		default:
			return 0, fmt.Errorf("tap: %w", err)
		}
	}
}

// begin notes that the descriptors are used, unless they are closed.
func (q *queue) begin() bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if !q.closed {
		q.receives.Add(1)
	}
	return !q.closed
}

// resting waits while the host does not use the queue, and reports whether the interface is
// still there. The host may use the queue again since it said that it does not.
func (q *queue) resting() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.inactive && !q.closed {
		q.changed.Wait()
	}
	r, err := unix.NewIfreq("")
	return q.closed || err == nil && unix.IoctlIfreq(q.fd, unix.TUNGETIFF, r) == nil
}

// await waits for a frame; false means that the port is closed.
func (q *queue) await() bool {
	fds := []unix.PollFd{{Fd: int32(q.fd), Events: unix.POLLIN}, {Fd: int32(q.ends), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == nil {
			return fds[1].Revents == 0
		}
		if !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// Close implements netdev.Port.
func (q *queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.changed.Broadcast()
	q.mu.Unlock()
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, err := unix.Write(q.ends, one[:])
	q.receives.Wait()
	return errors.Join(err, unix.Close(q.fd), unix.Close(q.ends))
}
