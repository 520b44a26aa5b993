// Package raw is a disk image whose bytes are those of a file or block device.
package raw

import (
	"fmt"
	"math"

	"berth/block"
	"berth/block/pool"
)

const sectorSize = 512

// Options says how a disk is opened.
type Options struct {
	ReadOnly bool
	Discard  bool // discards give storage back; else they succeed and do nothing
	Workers  int  // requests on the storage at once; 0: pool.DefaultWorkers
}

// Disk is an open raw disk: a pool of workers over a File.
type Disk struct{ *pool.Disk }

var _ block.Disk = (*Disk)(nil)

// Open opens path and locks it the way QEMU does for a guest's disk: of writers
// there is one, and then no readers; readers share. A size that is not whole
// sectors is rounded up, as QEMU does: the tail reads as zeros and writing it
// lengthens the file. The error is block.ErrInUse if another process holds a
// conflicting lock.
func Open(path string, o Options) (*Disk, error) {
	f, err := OpenFile(path, FileOptions{ReadOnly: o.ReadOnly, Lock: guestLock(o.ReadOnly)})
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", path, err)
	}
	return &Disk{pool.New(sectors{f}, pool.Options{ReadOnly: o.ReadOnly, Workers: o.Workers, Discard: o.Discard})}, nil
}

// guestLock is that of a guest's disk: a reader bears no writer, a writer
// neither another writer nor one who changes the size.
func guestLock(readOnly bool) Lock {
	if readOnly {
		return Lock{Uses: PermRead, Denies: PermWrite}
	}
	return Lock{Uses: PermRead | PermWrite, Denies: PermWrite | PermResize}
}

// sectors is a file in whole sectors.
type sectors struct{ *File }

// Size returns the disk's length in bytes, a multiple of 512.
func (s sectors) Size() int64 {
	return (min(s.File.Size(), math.MaxInt64-sectorSize+1) + sectorSize - 1) &^ (sectorSize - 1)
}
