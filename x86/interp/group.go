package interp

import (
	"sync"
	"sync/atomic"
	"syscall"
)

// Group is what the vCPUs of one machine have in common: how one of them has
// all others give up their direct stores to a page, and how one has the
// machine for itself. The protocol is
// docs/decisions/0015-how-vcpus-share-memory.md. A vCPU that waits
// here for others holds no lock that they could want, and does meanwhile what
// others wait for it to do. All vCPUs are made before the first runs.
type Group struct {
	cpus []*CPU
	only sync.Mutex // held by the vCPU that has the machine for itself
}

// endDirect returns when no vCPU but c, whose thread calls it between two blocks,
// can store to a page without a look at the page's flags.
func (g *Group) endDirect(c *CPU, page uint64) {
	c.tickets = c.tickets[:0]
	for _, o := range g.cpus {
		var ticket uint64
		if o != c {
			var away bool
			if ticket, away = o.codeHeld(page); away {
				ticket = 0
			}
		}
		c.tickets = append(c.tickets, ticket)
	}
	for i, o := range g.cpus {
		for tries := 0; !o.gaveUp(c.tickets[i]); tries++ {
			c.oblige()
			yieldAfter(tries)
		}
	}
}

// oblige does what other vCPUs may be waiting for this one to do, as far as that
// can be done while a block is being decoded.
func (c *CPU) oblige() {
	p := atomic.LoadUint32(&c.Pending)
	if p&pendCode != 0 { // which stays: blocks are dropped later
		c.giveUp()
	}
	if p&pendPark != 0 {
		c.group.park(c)
	}
}

// alone runs f while no other vCPU executes anything, for accesses that must be
// atomic and that the host cannot make so. f translates its addresses anew and
// looks at the page flags of what it stores to: c counts as away meanwhile.
func (g *Group) alone(c *CPU, f func() bool) bool {
	if len(g.cpus) == 1 {
		return f()
	}
	c.depart()
	g.only.Lock()
	for _, o := range g.cpus {
		if o != c {
			o.postQuietly(pendPark)
		}
	}
	for _, o := range g.cpus {
		for tries := 0; o != c && !o.away(); tries++ {
			yieldAfter(tries)
		}
	}
	c.giveUp() // what was asked of c while it counted as away
	ok := f()
	g.only.Unlock()
	c.arrive()
	return ok
}

// park returns when no other vCPU has the machine for itself.
func (g *Group) park(c *CPU) {
	c.depart()
	c.take(pendPark)
	g.only.Lock()
	g.only.Unlock() //nolint:staticcheck // waiting is the point
	c.arrive()
}

// yieldAfter lets other threads of the host have the CPU once a few tries of a wait were in vain.
func yieldAfter(tries int) {
	if tries > 20 {
		yield()
	}
}

// yield goes through Syscall, so that a collection of garbage does not wait for
// the thread to be scheduled again.
func yield() { _, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

// pausesPerYield is how many PAUSEs a vCPU executes before it gives the host's CPU
// away: what it spins for may be held by a vCPU that waits for one.
const pausesPerYield = 16

// pause is PAUSE.
func (c *CPU) pause() {
	if c.Frame.Pauses > 0 {
		c.Frame.Pauses--
		return
	}
	c.Frame.Pauses = pausesPerYield - 1
	if len(c.group.cpus) > 1 {
		yield()
	}
}

// fence makes all earlier stores visible before any later load, as MFENCE and
// serialising instructions do: a locked instruction of the host.
func (c *CPU) fence() { atomic.OrUint32(&c.Pending, 0) }
