// Package raw is a disk whose bytes are those of a file or block device.
package raw

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"berth/block"
)

const (
	sectorSize     = 512
	defaultWorkers = 8
)

// Options says how an image is opened.
type Options struct {
	ReadOnly bool
	Discard  bool // discards give storage back; else they succeed and do nothing
	Workers  int  // requests on the storage at once; 0: 8
}

// Disk is an open raw image. Safe for concurrent use. Requests wait in a queue
// for one of a bounded number of workers, each blocking in one system call at a
// time; Submit only queues.
type Disk struct {
	file     *os.File
	fd       int
	size     int64 // as the guest sees it: whole sectors
	device   bool  // a block device, not a file
	topology block.Topology
	readOnly bool
	unmap    bool        // see Options.Discard
	gone     atomic.Bool // see Abandon

	mu      sync.Mutex
	work    sync.Cond // queue is not empty, or closing
	queue   ring
	idle    int
	workers int
	limit   int
	closing bool
	running sync.WaitGroup
}

var _ block.Disk = (*Disk)(nil)

// Open opens path and locks it the way QEMU does: of writers there is one, and
// then no readers; readers share. A size that is not whole sectors is rounded
// up, as QEMU does: the tail reads as zeros and writing it lengthens the file.
// The error is block.ErrInUse if another process holds a conflicting lock.
func Open(path string, o Options) (*Disk, error) {
	d, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", path, err)
	}
	return d, nil
}

func open(path string, o Options) (*Disk, error) {
	info, err := os.Stat(path) // first: opening a FIFO would wait for its other end
	if err != nil {
		return nil, reason(err)
	}
	device := info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	if !info.Mode().IsRegular() && !device {
		return nil, errors.New("is neither a file nor a block device")
	}
	flag := os.O_RDWR
	if o.ReadOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, reason(err)
	}
	d := &Disk{file: f, fd: int(f.Fd()), device: device, readOnly: o.ReadOnly, unmap: o.Discard, limit: o.Workers}
	if err := lock(d.fd, o.ReadOnly); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	end, err := f.Seek(0, 2) // the size of a block device too
	if err != nil {
		return nil, errors.Join(reason(err), f.Close())
	}
	d.size = (end + sectorSize - 1) &^ (sectorSize - 1)
	if d.topology, err = d.probe(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if d.limit <= 0 {
		d.limit = defaultWorkers
	}
	d.work.L = &d.mu
	return d, nil
}

// reason drops the operation and path that package os puts in front.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Size returns the disk's length in bytes, a multiple of 512.
func (d *Disk) Size() int64 { return d.size }

// Submit queues r; see block.Disk.
func (d *Disk) Submit(r *block.Request) {
	if err := d.check(r); err != nil {
		r.Done(err)
		return
	}
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		r.Done(block.ErrClosed)
		return
	}
	d.queue.push(r)
	if d.queue.n > d.idle && d.workers < d.limit {
		d.workers++
		d.running.Add(1)
		go d.serve()
	}
	d.work.Signal()
	d.mu.Unlock()
}

// check bounds a request before it is queued.
func (d *Disk) check(r *block.Request) error {
	if r.Op == block.OpFlush {
		return nil
	}
	if r.Off < 0 || r.Len < 0 || r.Off > d.size || r.Len > d.size-r.Off {
		return block.ErrRange
	}
	if r.Op != block.OpRead && d.readOnly {
		return block.ErrReadOnly
	}
	if r.Op == block.OpRead || r.Op == block.OpWrite {
		var n int64
		for _, b := range r.IOV {
			n += int64(len(b))
		}
		if n != r.Len {
			return fmt.Errorf("raw: request of %d bytes with buffers of %d", r.Len, n)
		}
	}
	return nil
}

// serve is one worker.
func (d *Disk) serve() {
	defer d.running.Done()
	var v vector
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for d.queue.n == 0 {
			if d.closing {
				return
			}
			d.idle++
			d.work.Wait()
			d.idle--
		}
		r := d.queue.pop()
		d.mu.Unlock()
		r.Done(d.do(r, &v))
		d.mu.Lock()
	}
}

// Close completes what is queued, then releases the file and its locks.
func (d *Disk) Close() error {
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return block.ErrClosed
	}
	d.closing = true
	d.work.Broadcast()
	d.mu.Unlock()
	d.running.Wait()
	return d.file.Close()
}

// Abandon fails what is queued and what will be, and cuts short what is under
// way, so that Close need not wait for it. What the last flush covered is safe.
func (d *Disk) Abandon() { d.gone.Store(true) }

func (d *Disk) do(r *block.Request, v *vector) error {
	if d.gone.Load() {
		return block.ErrClosed
	}
	switch r.Op {
	case block.OpRead:
		return d.read(r, v)
	case block.OpWrite:
		return d.write(r, v)
	case block.OpFlush:
		return retry(func() error { return unix.Fdatasync(d.fd) })
	case block.OpDiscard:
		return d.discard(r)
	case block.OpWriteZeroes:
		return d.writeZeroes(r, v)
	}
	return block.ErrUnsupported
}

// read fills the buffers; what lies past the end of the file is zeros.
func (d *Disk) read(r *block.Request, v *vector) error {
	off, left := r.Off, r.Len
	v.start(r.IOV)
	for left > 0 {
		n, err := v.preadv(d.fd, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("raw: reading at %d: %w", off, err)
		}
		if n == 0 {
			v.zero()
			return nil
		}
		v.advance(n)
		off, left = off+n, left-n
		if left > 0 && d.gone.Load() {
			return block.ErrClosed
		}
	}
	return nil
}

func (d *Disk) write(r *block.Request, v *vector) error {
	fua := r.Flags&block.FlagFUA != 0
	off, left := r.Off, r.Len
	v.start(r.IOV)
	for left > 0 {
		n, err := v.pwritev(d.fd, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			return fmt.Errorf("raw: writing at %d: %w", off, err)
		}
		v.advance(n)
		off, left = off+n, left-n
		if left > 0 && d.gone.Load() {
			return block.ErrClosed
		}
	}
	if fua {
		return retry(func() error { return unix.Fdatasync(d.fd) })
	}
	return nil
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// ring is a queue of requests that grows to the most that ever waited.
type ring struct {
	buf     []*block.Request
	head, n int
}

func (q *ring) push(r *block.Request) {
	if q.n == len(q.buf) {
		next := make([]*block.Request, max(16, 2*q.n))
		for i := range q.n {
			next[i] = q.buf[(q.head+i)%len(q.buf)]
		}
		q.buf, q.head = next, 0
	}
	q.buf[(q.head+q.n)%len(q.buf)] = r
	q.n++
}

func (q *ring) pop() *block.Request {
	r := q.buf[q.head]
	q.buf[q.head] = nil
	q.head = (q.head + 1) % len(q.buf)
	q.n--
	return r
}
