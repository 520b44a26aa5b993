package blocktest

import (
	"math/rand/v2"

	"berth/block"
)

// Sector is what storage writes whole or not at all, in bytes.
const Sector = 512

// Cut says what becomes of the writes that no flush had covered when the power
// went. Those that a flush covered are on the storage in any case.
type Cut struct {
	At   int     // how many events of the log had been done
	Keep float64 // the chance of each later one to be on the storage, too
	Torn bool    // each sector has its own chance
}

// RandomCut returns a cut of a log of n events. One in four loses nothing: that is
// a process that was killed, on a host that lives.
func RandomCut(r *rand.Rand, n int) Cut {
	c := Cut{At: r.IntN(n + 1), Keep: 1}
	switch r.IntN(4) {
	case 0:
	case 1:
		c.Keep = 0
	default:
		c.Keep, c.Torn = 0.1+0.8*r.Float64(), r.IntN(2) == 0
	}
	return c
}

// Apply does to a copy of before, the named file at the log's beginning, what had
// reached the storage at the cut. Files of one log are cut at one moment, each with what its
// own flushes had covered. The events lost are those that r decides on; those kept stay in
// their order, so that a sector holds what some write of the epoch, or none, had put there.
func (c Cut) Apply(r *rand.Rand, before *MemFile, name string, events []Event) (*MemFile, error) {
	f := before.Clone()
	safe := 0
	for i, e := range events[:c.At] {
		if e.File == name && e.Act == ActFlush {
			safe = i
		}
	}
	for i, e := range events[:c.At] {
		if e.File != name {
			continue
		}
		sure := i < safe || e.FUA || c.Keep == 1
		if c.Torn && !sure && (e.Act == ActWrite || e.Act == ActZero || e.Act == ActDiscard) {
			if err := c.tear(r, f, e); err != nil {
				return nil, err
			}
		} else if sure || r.Float64() < c.Keep {
			if err := e.redo(f); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func (e Event) redo(f block.File) error {
	switch e.Act {
	case ActWrite:
		return f.Writev([][]byte{e.Data}, e.Off, 0)
	case ActZero:
		return f.WriteZeroes(e.Off, e.Len, 0)
	case ActDiscard:
		return f.Discard(e.Off, e.Len)
	case ActTruncate:
		return f.Truncate(e.Off)
	}
	return nil
}

// tear keeps each sector of the event, or each of 256 parts of a large one, by chance.
func (c Cut) tear(r *rand.Rand, f block.File, e Event) error {
	step := max(Sector, e.Len/256/Sector*Sector)
	for off := e.Off; off < e.Off+e.Len; {
		n := min(e.Off+e.Len, (off/step+1)*step) - off
		if r.Float64() < c.Keep {
			part := Event{Act: e.Act, Off: off, Len: n}
			if e.Act == ActWrite {
				part.Data = e.Data[off-e.Off : off-e.Off+n]
			}
			if err := part.redo(f); err != nil {
				return err
			}
		}
		off += n
	}
	return nil
}
