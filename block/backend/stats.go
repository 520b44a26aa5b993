package backend

import (
	"time"

	"berth/block"
)

// Stats is what a device's disk has done, as QEMU's query-blockstats tells it.
type Stats struct {
	Read, Write, Flush, Unmap Kind
	HighestWrite              int64         // bytes: the end of the furthest write
	Idle                      time.Duration // since something was asked for; negative: nothing ever was
}

// Kind is what one kind of request has done. Write zeroes are writes; a discard
// is an unmap.
type Kind struct {
	Operations, Bytes int64         // that succeeded
	Failed            int64         // operations
	Invalid           int64         // operations that were refused before they reached the disk
	Time              time.Duration // from Submit to completion, of all of them together; failed ones too
}

// counts is what Stats is made from.
type counts struct {
	Stats
	last time.Time
}

func (c *counts) of(o block.Op) *Kind {
	switch o {
	case block.OpRead:
		return &c.Read
	case block.OpFlush:
		return &c.Flush
	case block.OpDiscard:
		return &c.Unmap
	}
	return &c.Write
}

// add notes the end of r.
func (c *counts) add(r *block.Request, now, start time.Time, err error) {
	k := c.of(r.Op)
	k.Time += now.Sub(start)
	c.last = now
	if err != nil {
		k.Failed++
		return
	}
	k.Operations++
	k.Bytes += r.Len
	if r.Op == block.OpWrite || r.Op == block.OpWriteZeroes {
		c.HighestWrite = max(c.HighestWrite, r.Off+r.Len)
	}
}

// Invalid notes a request that the device refused, and so never submitted.
func (b *Backend) Invalid(o block.Op) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.of(o).Invalid++
	b.counts.last = time.Now()
}

// Stats returns what has been counted so far.
func (b *Backend) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.counts.Stats
	s.Idle = -1
	if !b.counts.last.IsZero() {
		s.Idle = time.Since(b.counts.last)
	}
	return s
}
