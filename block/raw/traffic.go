package raw

import "sync/atomic"

// Traffic is what has passed a file, as QEMU's query-blockstats tells it of a node.
type Traffic struct {
	HighestWrite             int64 // bytes: the end of the furthest write
	Discards, DiscardsFailed int64
	DiscardedBytes           int64
}

// traffic is what Traffic is made from.
type traffic struct{ highest, discards, failed, bytes atomic.Int64 }

// wrote notes a write that ends at end. Most end before the furthest.
func (t *traffic) wrote(end int64) {
	for {
		high := t.highest.Load()
		if high >= end || t.highest.CompareAndSwap(high, end) {
			return
		}
	}
}

func (t *traffic) discarded(n int64, err error) {
	if err != nil {
		t.failed.Add(1)
		return
	}
	t.discards.Add(1)
	t.bytes.Add(max(n, 0))
}

// Traffic returns what has been counted so far.
func (f *File) Traffic() Traffic {
	t := &f.traffic
	return Traffic{t.highest.Load(), t.discards.Load(), t.failed.Load(), t.bytes.Load()}
}
