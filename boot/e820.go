package boot

import (
	"slices"

	"berth/guestmem"
)

// E820Type is a kind of memory, as BIOS call E820 numbers them (ACPI §15.1).
type E820Type uint32

// Kinds of memory.
const (
	E820RAM      E820Type = 1
	E820Reserved E820Type = 2
	E820ACPI     E820Type = 3
	E820NVS      E820Type = 4
)

// E820Entry is one line of the memory map.
type E820Entry struct {
	Range
	Type E820Type
}

// E820 returns the guest's memory map in address order: all RAM usable save
// the last KiB below 640 KiB (where an EBDA lies on a PC) and everything from
// there to 1 MiB, then the ranges of reserved. From ACPIBase to ACPIEnd it says
// reserved, because the ACPI tables lie there.
func E820(mem *guestmem.Memory, reserved []Range) []E820Entry {
	m := []E820Entry{
		{Range{lowEnd, 0xa0000 - lowEnd}, E820Reserved},
		{Range{ACPIBase, ACPIEnd - ACPIBase}, E820Reserved},
	}
	for _, r := range mem.Regions() {
		lo, hi := r.GPA, r.End()
		if r.ReadOnly {
			m = append(m, E820Entry{Range{lo, hi - lo}, E820Reserved})
			continue
		}
		if lo < lowEnd {
			m = append(m, E820Entry{Range{lo, min(hi, lowEnd) - lo}, E820RAM})
			lo = HighBase
		}
		if lo = max(lo, HighBase); lo < hi {
			m = append(m, E820Entry{Range{lo, hi - lo}, E820RAM})
		}
	}
	for _, r := range reserved {
		m = append(m, E820Entry{r, E820Reserved})
	}
	slices.SortFunc(m, func(a, b E820Entry) int {
		if a.Addr < b.Addr {
			return -1
		}
		return 1
	})
	return m
}
