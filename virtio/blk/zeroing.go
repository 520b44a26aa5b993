package blk

import (
	"encoding/binary"

	"berth/block"
)

const (
	segmentSize     = 16
	maxZeroSegments = 32        // of one request
	maxZeroSectors  = 1<<22 - 1 // of one segment: all but a sector of 2 GiB
	flagUnmap       = 1
)

// zeroing is what a discard or write-zeroes request still has to do.
type zeroing struct {
	op          block.Op
	flags       block.Flags
	next, count int
	segments    [maxZeroSegments]segment
}

// segment is one range as the driver wrote it (virtio 1.2 §5.2.6):
//
//	sector 8 | num_sectors 4 | flags 4 (bit 0 unmap)
type segment struct {
	sector uint64
	count  uint32
	flags  uint32
}

// beginZeroing reads all segments, holds each against §5.2.6.2, and only then
// begins with the first.
func (r *request) beginZeroing(op block.Op) {
	if status := r.readSegments(op); status != statusOK {
		r.d.invalid(op)
		r.finish(status, 0)
		return
	}
	z := &r.zero
	z.op, z.flags, z.next = op, 0, 0
	if op == block.OpWriteZeroes {
		z.flags = r.d.durable()
	}
	r.nextSegment()
}

// readSegments copies the segments out of the guest's memory, where they may
// change while they are looked at.
func (r *request) readSegments(op block.Op) (status byte) {
	var raw [maxZeroSegments * segmentSize]byte
	n := r.chain.ReadLen - headerSize
	if n == 0 || n%segmentSize != 0 || n > int64(len(raw)) {
		return statusIOErr
	}
	at := 0
	for _, b := range r.iov {
		at += copy(raw[at:], b)
	}
	for i := range at / segmentSize {
		b := raw[i*segmentSize:]
		s := segment{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
		switch {
		case s.flags&^flagUnmap != 0, op == block.OpDiscard && s.flags != 0:
			return statusUnsupported
		case s.count > maxZeroSectors || !r.d.holds(s.sector, uint64(s.count)):
			return statusIOErr
		}
		r.zero.segments[i] = s
	}
	r.zero.count = at / segmentSize
	return statusOK
}

// nextSegment hands the next segment to the disk and reports whether there was
// one; requests of other kinds have none.
func (r *request) nextSegment() bool {
	z := &r.zero
	if z.next >= z.count {
		return false
	}
	s := z.segments[z.next]
	z.next++
	flags := z.flags
	if s.flags&flagUnmap != 0 {
		flags |= block.FlagUnmap
	}
	r.submit(z.op, flags, int64(s.sector)*sectorSize, int64(s.count)*sectorSize)
	return true
}
