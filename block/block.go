// Package block is a disk as the machine sees it: asynchronous scatter-gather requests with completion.
package block

import (
	"errors"
	"io"
	"time"
)

// Op is what a request does.
type Op uint8

// The operations of a Disk. A disk that does not know one completes it with
// ErrUnsupported. OpDiscard is advice: what its range reads as afterwards is
// not defined. OpWriteZeroes is not: every byte of its range, and no other,
// reads as zero.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
	OpDiscard
	OpWriteZeroes
)

// String names the operation, for people.
func (o Op) String() string {
	names := [...]string{"read", "write", "flush", "discard", "write zeroes"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

// Flags change how an operation is done.
type Flags uint8

const (
	FlagFUA   Flags = 1 << 0 // OpWrite, OpWriteZeroes: on stable storage before it completes
	FlagUnmap Flags = 1 << 1 // OpWriteZeroes: the range's storage may be given back
	// FlagNoFallback is for OpWriteZeroes: ErrUnsupported rather than writing zeros.
	FlagNoFallback Flags = 1 << 2
)

// Errors that callers branch on.
var (
	ErrUnsupported = errors.New("operation not supported by this disk")
	ErrReadOnly    = errors.New("disk is read-only")
	ErrRange       = errors.New("beyond the end of the disk")
	ErrClosed      = errors.New("disk is closed")
	ErrInUse       = errors.New("in use by another process")
)

// Request is one operation. The disk owns it, and the memory of IOV, from
// Submit until it calls Done, which it does exactly once, on any goroutine,
// possibly before Submit returns.
type Request struct {
	Op    Op
	Flags Flags
	Off   int64    // bytes
	Len   int64    // bytes; equals the sum of IOV for reads and writes
	IOV   [][]byte // reads fill it, writes take from it
	Done  func(error)
	// Patience is how long whoever submits it does not mind being kept in Submit: a
	// disk that takes less than that at present may do it there. 0: not at all.
	Patience time.Duration
}

// Disk accepts requests. Submit never blocks on the storage, unless the request
// has patience. Requests in
// flight together have no order among themselves; a flush covers the writes
// completed before it was submitted. Close completes what is in flight first.
type Disk interface {
	Submit(*Request)
	Size() int64
	Close() error
}

// Resizable is a disk whose length can change, while no request is under way.
// What is added reads as zeros.
type Resizable interface{ Resize(size int64) error }

// Topology is how a disk's storage is divided, in bytes. It is advice: any
// request is served, one that fits is served faster.
type Topology struct {
	Logical  int // the least that the storage can be asked for
	Physical int // the least that it stores at once; a power of two times Logical
	MinIO    int // the least that is worth asking for
	OptIO    int // what is best asked for, or 0
}

// Shaped is a disk that knows its storage's topology.
type Shaped interface{ Topology() Topology }

// TopologyOf returns the topology of d, a disk or an image; of one that knows
// none, that of sectors of 512 bytes.
func TopologyOf(d any) Topology {
	if s, ok := d.(Shaped); ok {
		return s.Topology()
	}
	return Topology{Logical: 512, Physical: 512, MinIO: 512}
}

// ReadAt reads p synchronously; a short read at the end of the disk returns io.EOF.
func ReadAt(d Disk, p []byte, off int64) (int, error) {
	n := len(p)
	if off >= d.Size() {
		return 0, io.EOF
	}
	if int64(n) > d.Size()-off {
		n = int(d.Size() - off)
	}
	err := wait(d, &Request{Op: OpRead, Off: off, Len: int64(n), IOV: [][]byte{p[:n]}})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt writes p synchronously.
func WriteAt(d Disk, p []byte, off int64) (int, error) {
	if err := wait(d, &Request{Op: OpWrite, Off: off, Len: int64(len(p)), IOV: [][]byte{p}}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush makes completed writes durable.
func Flush(d Disk) error { return wait(d, &Request{Op: OpFlush}) }

func wait(d Disk, r *Request) error {
	c := make(chan error, 1)
	r.Done = func(err error) { c <- err }
	d.Submit(r)
	return <-c
}
