package interp

import "time"

// A guest that has booted holds blocks of code that it will not run again. So a
// vCPU that halts looks, but not often, which blocks were reached since it last
// looked, and gives the others up.
const (
	coldEvery = 10 * time.Second
	coldHeld  = 128 << 10 // weight of blocks, some 3 MiB, that a vCPU may keep cold
	coldFreed = 64 << 10  // weight whose memory is worth a word to Config.Freed
)

// dropCold drops cold blocks if it is time to. The vCPU is about to sleep.
func (c *CPU) dropCold(now time.Time) {
	bc := &c.blocks
	if bc.held < coldHeld || now.Sub(bc.swept) < coldEvery {
		return
	}
	bc.swept = now
	before := bc.held
	c.sweep()
	if bc.held < before/4 {
		// Soon decoded again, and it would keep whole pages of the heap.
		c.clearBlocks()
	}
	if before-bc.held >= coldFreed && c.cfg.Freed != nil {
		c.cfg.Freed()
	}
}

// sweep removes the blocks that find has not returned since the last sweep. It
// cuts all ways to the others that go past find, so that the next sweep can tell.
func (c *CPU) sweep() {
	bc := &c.blocks
	var cold []*block
	for _, b := range bc.byKey {
		if !b.found {
			cold = append(cold, b)
		}
		b.found = false
		b.taken, b.fall = nil, nil
		for i := range b.exits {
			b.exits[i].to = nil
		}
	}
	for _, b := range cold {
		c.removeBlock(b)
	}
	bc.jumps = [jumpEntries]jump{}
}
