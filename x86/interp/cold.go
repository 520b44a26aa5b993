package interp

import (
	"slices"
	"time"
)

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
	if c.tier1 != nil {
		c.dropColdCode(now)
		return
	}
	if bc.held < coldHeld || now.Sub(bc.swept) < coldEvery {
		return
	}
	bc.swept = now
	before := bc.held
	c.sweep()
	if before-bc.held >= coldFreed && c.cfg.Freed != nil {
		c.cfg.Freed()
	}
}

// Of translated code nobody knows what is cold: it goes on by itself from block to
// block. All of it is given up when it is much and the vCPU has next to nothing to do;
// what is warm is soon there again.
const (
	idleFor  = 5 * time.Second
	idleWork = 100_000_000 // instructions in that time
	coldCode = 16 << 20    // bytes that a vCPU may keep
)

func (c *CPU) dropColdCode(now time.Time) {
	if c.tier1.cache.Used() < coldCode || !c.blocks.idle(now, c.Instructions) {
		return
	}
	c.forgetBlocks()
	c.tier1.release()
	if c.cfg.Freed != nil {
		c.cfg.Freed()
	}
}

// idle reports that little was run since the last look, which was not just now, and
// that the vCPU slept meanwhile: on a busy host one that has much to do runs little too.
func (bc *blockCache) idle(now time.Time, instructions uint64) bool {
	first := bc.swept.IsZero()
	if !first && now.Sub(bc.swept) < idleFor {
		return false
	}
	done, slept, all := instructions-bc.seen, bc.slept, now.Sub(bc.swept)
	bc.swept, bc.seen, bc.slept = now, instructions, 0
	return !first && done < idleWork && slept > all*3/4
}

// sweep drops the blocks that find has not returned since the last sweep. It cuts
// all ways to the others that go past find, so that the next sweep can tell. No
// block runs. An interrupt that comes meanwhile waits: some 5 ms after a boot of Linux.
func (c *CPU) sweep() {
	bc := &c.blocks
	kept := 0
	for _, b := range bc.byKey {
		if !b.found {
			continue
		}
		kept += b.weight()
		b.taken, b.fall = nil, nil
		for i := range b.exits {
			b.exits[i].to = nil
		}
	}
	if kept < bc.held/4 {
		// What is still wanted is soon decoded again, and would keep whole pages of the heap.
		c.forgetBlocks()
		return
	}
	if kept < bc.held {
		c.removeCold()
	}
	for _, b := range bc.byKey {
		b.found = false
	}
	bc.jumps = [jumpEntries]jump{}
}

// removeCold is removeBlock for all blocks that were not found, to which no links lead.
func (c *CPU) removeCold() {
	bc := &c.blocks
	cold := func(b *block) bool { return !b.found }
	for _, p := range bc.pages {
		p.blocks = slices.DeleteFunc(p.blocks, cold)
		c.releaseEmpty(p)
	}
	for key, b := range bc.byKey {
		if cold(b) {
			delete(bc.byKey, key)
			bc.held -= b.weight()
		}
	}
}
