package irq

import "sync/atomic"

// Lines is how many interrupt lines an I/O APIC has.
const Lines = 24

// Counter counts how often lines rise. The zero value has counted nothing. Safe for
// concurrent use.
type Counter struct {
	levels atomic.Uint32 // as they were set last
	counts [Lines]atomic.Uint64
}

// Set notes that a line has been given a level.
func (c *Counter) Set(line uint32, level bool) {
	if line >= Lines {
		return
	}
	bit := uint32(1) << line
	if !level {
		c.levels.And(^bit)
	} else if c.levels.Or(bit)&bit == 0 {
		c.counts[line].Add(1)
	}
}

// Counts returns how often each line has risen.
func (c *Counter) Counts() (n [Lines]uint64) {
	for i := range n {
		n[i] = c.counts[i].Load()
	}
	return n
}
