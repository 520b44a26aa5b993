package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/block"
)

// From Linux's include/uapi/linux/io_uring.h.
const (
	opReadv, opWritev = 1, 2
	opNop             = 0

	featureSingleMmap = 1 << 0
	enterGetEvents    = 1 << 0
	offsetSQEs        = 0x10000000

	sqeSize, cqeSize = 64, 16
)

// params is struct io_uring_params; the offsets are of a ring's parts in the
// memory that is shared with the kernel.
type params struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct{ head, tail, mask, entries, flags, dropped, array, _, _, _ uint32 }
	cq                                                   struct{ head, tail, mask, entries, overflow, cqes, flags, _, _, _ uint32 }
}

// sqe is struct io_uring_sqe, what is asked for:
//
//	0 opcode 1 | 1 flags 1 | 2 ioprio 2 | 4 fd 4 | 8 off 8 | 16 addr 8 | 24 len 4 | 28 rw_flags 4 | 32 user_data 8 | 40 unused here 24
type sqe struct {
	op, flags uint8
	priority  uint16
	fd        int32
	off       uint64
	addr      uint64
	n, rw     uint32
	user      uint64
	_         [3]uint64
}

// cqe is struct io_uring_cqe: user_data 8 | result 4 | flags 4.
type cqe struct {
	user  uint64
	res   int32
	flags uint32
}

// ring is an io_uring whose submission queue has one filler at a time and whose
// completion queue has one reader.
type ring struct {
	fd             int
	shared, asked  []byte // mapped
	sqTail         *uint32
	cqHead, cqTail *uint32
	sqMask, cqMask uint32
	sqes           []sqe
	cqes           []cqe
	iovs           [][]unix.Iovec // of each request under way, by user_data
}

func newRing(entries uint32) (*ring, error) {
	var p params
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring: %w", errno)
	}
	r := &ring{fd: int(fd), iovs: make([][]unix.Iovec, p.sqEntries)}
	if p.features&featureSingleMmap == 0 {
		return nil, errors.Join(errors.New("io_uring: this kernel's is too old"), r.close())
	}
	var err error
	size := max(int(p.sq.array+4*p.sqEntries), int(p.cq.cqes+cqeSize*p.cqEntries))
	if r.shared, err = unix.Mmap(r.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err == nil {
		r.asked, err = unix.Mmap(r.fd, offsetSQEs, int(p.sqEntries)*sqeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("io_uring: %w", err), r.close())
	}
	r.sqTail, r.cqHead, r.cqTail = r.word(p.sq.tail), r.word(p.cq.head), r.word(p.cq.tail)
	r.sqMask, r.cqMask = *r.word(p.sq.mask), *r.word(p.cq.mask)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.asked[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.shared[p.cq.cqes])), p.cqEntries)
	for i := range p.sqEntries {
		*r.word(p.sq.array + 4*i) = i
	}
	return r, nil
}

func (r *ring) word(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.shared[off])) }

func (r *ring) close() error {
	var errs []error
	for _, m := range [][]byte{r.shared, r.asked} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(append(errs, unix.Close(r.fd))...)
}

// put adds a read or write to the submission queue, which has room for it as no
// two requests under way have the same id. unsafe: the kernel takes vector and
// buffers by address, and keeps to them until take returns id; iovs holds both.
func (r *ring) put(id int, fd int, q *block.Request) {
	v := r.iovs[id][:0]
	for _, b := range q.IOV {
		v = append(v, unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))})
	}
	r.iovs[id] = v
	op := uint8(opReadv)
	if q.Op == block.OpWrite {
		op = opWritev
	}
	r.add(sqe{op: op, fd: int32(fd), off: uint64(q.Off), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(v)))), n: uint32(len(v)), user: uint64(id)})
}

// unput takes back the last n entries, none of which the kernel has been asked to take.
func (r *ring) unput(n int) { atomic.StoreUint32(r.sqTail, *r.sqTail-uint32(n)) }

// wake has take return noRequest. The submission queue is empty.
func (r *ring) wake() error {
	r.add(sqe{op: opNop, user: noRequest})
	for {
		n, err := r.enter(1)
		if n == 1 {
			return nil
		}
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) {
			return err
		}
		_, _ = unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 1000})
	}
}

func (r *ring) add(s sqe) {
	tail := *r.sqTail
	r.sqes[tail&r.sqMask] = s
	atomic.StoreUint32(r.sqTail, tail+1)
}

// enter has the kernel take n entries, and returns how many it took.
func (r *ring) enter(n int) (int, error) {
	k, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(k), nil
}

// wait returns when the completion queue may hold something; with an error, when
// it never will.
func (r *ring) wait() error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 1, enterGetEvents, 0, 0)
	if errno == 0 || errno == unix.EINTR || errno == unix.EAGAIN || errno == unix.EBUSY {
		return nil
	}
	return errno
}

// take returns the next completion, if there is one.
func (r *ring) take() (user uint64, res int32, ok bool) {
	head := *r.cqHead
	if head == atomic.LoadUint32(r.cqTail) {
		return 0, 0, false
	}
	c := r.cqes[head&r.cqMask]
	atomic.StoreUint32(r.cqHead, head+1)
	return c.user, c.res, true
}

// aligned reports whether all buffers begin and end at multiples of unit.
func aligned(iov [][]byte, unit uintptr) bool {
	for _, b := range iov {
		if uintptr(unsafe.Pointer(unsafe.SliceData(b)))%unit != 0 || uintptr(len(b))%unit != 0 {
			return false
		}
	}
	return true
}
