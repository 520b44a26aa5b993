package boot

import (
	"fmt"

	"berth/guestmem"
)

// Layout keeps what has been put where in guest memory, so that nothing overlaps.
type Layout struct {
	mem    *guestmem.Memory
	Placed []Placement
}

// NewLayout returns an empty layout of mem.
func NewLayout(mem *guestmem.Memory) *Layout { return &Layout{mem: mem} }

// Memory returns the guest memory that is laid out.
func (l *Layout) Memory() *guestmem.Memory { return l.mem }

// Reserve takes [addr, addr+size) for what; it must be RAM and free.
func (l *Layout) Reserve(what string, addr, size uint64) error {
	r := Range{addr, size}
	if addr+size < addr || l.ramAt(addr, size) == nil {
		return fmt.Errorf("%s needs 0x%x-0x%x, but %s", what, addr, addr+size, l.memory())
	}
	for _, p := range l.Placed {
		if p.overlaps(r) {
			return fmt.Errorf("%s at 0x%x-0x%x overlaps %s", what, addr, addr+size, p)
		}
	}
	if addr < HighBase && r.overlaps(Range{lowEnd, HighBase - lowEnd}) {
		return fmt.Errorf("%s at 0x%x-0x%x overlaps the firmware area", what, addr, addr+size)
	}
	l.Placed = append(l.Placed, Placement{what, r})
	return nil
}

// Place takes size bytes for what at the highest free multiple of align whose
// last byte is at or below last, and never below HighBase.
func (l *Layout) Place(what string, size, align, last uint64) (Range, error) {
	regions := l.mem.Regions()
	for i := len(regions) - 1; i >= 0; i-- {
		r := regions[i]
		if r.ReadOnly || r.GPA > last {
			continue
		}
		end := r.End()
		if last < end {
			end = last + 1
		}
		if addr, ok := l.highest(max(r.GPA, HighBase), end, size, align); ok {
			l.Placed = append(l.Placed, Placement{what, Range{addr, size}})
			return Range{addr, size}, nil
		}
	}
	return Range{}, fmt.Errorf("%s of %s does not fit beside the kernel: %s", what, mib(size), l.memory())
}

// PlaceAbove takes size bytes for what at the lowest free multiple of align
// from first on, below 4 GiB.
func (l *Layout) PlaceAbove(what string, size, align, first uint64) (Range, error) {
	for _, r := range l.mem.Regions() {
		if r.ReadOnly || r.End() > below4G {
			continue
		}
		if addr, ok := l.lowest(max(r.GPA, HighBase, first), r.End(), size, align); ok {
			l.Placed = append(l.Placed, Placement{what, Range{addr, size}})
			return Range{addr, size}, nil
		}
	}
	return Range{}, fmt.Errorf("%s of %s does not fit behind the kernel: %s", what, mib(size), l.memory())
}

const below4G = 4 << 30

// lowest finds the lowest free place for size bytes in [lo, hi).
func (l *Layout) lowest(lo, hi, size, align uint64) (uint64, bool) {
	for {
		addr := (lo + align - 1) &^ (align - 1)
		if addr < lo || addr > hi || hi-addr < size {
			return 0, false
		}
		hit := false
		for _, p := range l.Placed {
			if p.overlaps(Range{addr, size}) {
				lo, hit = max(p.End(), addr+1), true
				break
			}
		}
		if !hit {
			return addr, true
		}
	}
}

// highest finds the highest free place for size bytes in [lo, hi).
func (l *Layout) highest(lo, hi, size, align uint64) (uint64, bool) {
	for hi >= lo && hi-lo >= size {
		addr := (hi - size) &^ (align - 1)
		if addr < lo {
			return 0, false
		}
		hit := false
		for _, p := range l.Placed {
			if p.overlaps(Range{addr, size}) {
				hi, hit = p.Addr, true
				break
			}
		}
		if !hit {
			return addr, true
		}
	}
	return 0, false
}

func (l *Layout) ramAt(addr, size uint64) *guestmem.Region {
	r := l.mem.Find(addr)
	if r == nil || r.ReadOnly || size > r.End()-addr {
		return nil
	}
	return r
}

// memory describes the guest's RAM for an error.
func (l *Layout) memory() string {
	return fmt.Sprintf("the guest has %s of memory", mib(l.RAM()))
}

// RAM returns how many bytes of RAM the guest has.
func (l *Layout) RAM() uint64 {
	var sum uint64
	for _, r := range l.mem.Regions() {
		if !r.ReadOnly {
			sum += uint64(len(r.Host))
		}
	}
	return sum
}

func mib(n uint64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
}
