package interp

import (
	"sync/atomic"
	"time"

	"berth/x86"
)

// Bits of Core.Pending.
const (
	pendKick     = 1 << iota // Run was asked to return
	pendIntr                 // an interrupt may have become deliverable
	pendNMI                  // an NMI waits
	pendInit                 // INIT
	pendSIPI                 // start-up IPI
	pendHalt                 // the vCPU executed HLT or waits for INIT or SIPI
	pendFlush                // someone else changed page flags: forget write permissions
	pendCode                 // host-side writes into pages with decoded code
	pendDebug                // single step or breakpoints: see needStep; or a debugger's stop
	pendPark                 // another vCPU wants the machine for itself: see Group
	pendHeld                 // held waits to be delivered
	pendMC                   // a machine check
	pendShutdown             // a machine check that cannot be taken
	pendAway     = 1 << 30   // the vCPU looks at the other bits before it executes anything
	pendSleep    = 1 << 31   // likewise, and it sleeps on the word: wake it
)

// post sets bits of Pending and wakes the vCPU if it sleeps. Any thread.
func (c *CPU) post(bits uint32) {
	if atomic.OrUint32(&c.Pending, bits)&pendSleep != 0 {
		futexWake(&c.Pending)
	}
}

// postQuietly sets bits that a vCPU which executes nothing need not be woken for;
// away: it is such a one.
func (c *CPU) postQuietly(bits uint32) (away bool) {
	return atomic.OrUint32(&c.Pending, bits)&(pendAway|pendSleep) != 0
}

// away reports that the vCPU executes nothing before it has looked at Pending. Any thread.
func (c *CPU) away() bool { return atomic.LoadUint32(&c.Pending)&(pendAway|pendSleep) != 0 }

// depart and arrive bracket what a vCPU does outside guest code. What was asked for
// in between is seen by arrive, or whoever asks sees that the vCPU is back.
func (c *CPU) depart() { atomic.OrUint32(&c.Pending, pendAway) }

func (c *CPU) arrive() {
	if atomic.AndUint32(&c.Pending, ^uint32(pendAway))&pendCode != 0 {
		c.giveUp()
	}
}

// Kick makes Run return soon: the Run in progress, or else the next. Any thread.
func (c *CPU) Kick() { c.post(pendKick) }

// Interrupt says that the APIC may have something deliverable. Any thread.
func (c *CPU) Interrupt() { c.post(pendIntr) }

// NMI sends a non-maskable interrupt. Any thread.
func (c *CPU) NMI() { c.post(pendNMI) }

// INIT resets the vCPU as that message does; a SIPI that came before it is
// forgotten, one that comes after it is taken after it. Any thread.
func (c *CPU) INIT() {
	atomic.AndUint32(&c.Pending, ^uint32(pendSIPI))
	c.post(pendInit)
}

// SIPI starts a vCPU that waits for it, at vector<<12. Any thread.
func (c *CPU) SIPI(vector uint8) {
	c.sys.sipi.Store(uint32(vector))
	c.post(pendSIPI)
}

// RevokeWrites makes the vCPU ask again before it next stores to any page: dirty
// flags were cleared. Any thread; RevokePending tells when it is done.
func (c *CPU) RevokeWrites() { c.postQuietly(pendFlush) }

// RevokePending reports that the vCPU may still store as before a RevokeWrites.
func (c *CPU) RevokePending() bool {
	return atomic.LoadUint32(&c.Pending)&(pendFlush|pendAway|pendSleep) == pendFlush
}

// take clears bits of Pending and reports whether any was set.
func (c *CPU) take(bits uint32) bool { return atomic.AndUint32(&c.Pending, ^bits)&bits != 0 }

// interrupts serves what Pending says; the run loop calls it at an instruction
// boundary when Pending is not 0. It sleeps here while the CPU is halted. With
// leave, Run returns with c.exit.
func (c *CPU) interrupts() (leave bool) {
	for {
		p := atomic.LoadUint32(&c.Pending)
		if p&pendFlush != 0 {
			c.revokeWrites(func(uint64) bool { return true })
			c.take(pendFlush)
		}
		if p&pendCode != 0 {
			c.dropWritten()
		}
		if p&pendPark != 0 {
			c.group.park(c)
		}
		if p&pendKick != 0 && c.take(pendKick) {
			c.exit = Exit{Reason: Kicked}
			return true
		}
		if p&pendInit != 0 && c.take(pendInit) {
			c.initReset()
		}
		if p&pendSIPI != 0 && c.take(pendSIPI) && c.sys.mp == x86.MPWaitSIPI {
			c.startUp(uint8(c.sys.sipi.Load()))
		}
		delivered, stop := c.deliverPending(p)
		if stop {
			return true
		}
		switch {
		case c.sys.mp != x86.MPRunnable:
			c.sleep()
			continue
		case c.trapped():
			return false
		case !delivered:
			if delivered, stop = c.codeBreaks(); stop || !delivered {
				c.take(pendHalt)
				return stop
			}
		}
		// At the first instruction of a handler, which may have a breakpoint too.
	}
}

// codeBreaks delivers an instruction breakpoint at RIP, if there is one, and drops
// pendDebug if nothing steps any more; stop: Run must return.
func (c *CPU) codeBreaks() (delivered, stop bool) {
	if !c.sys.stepping {
		c.take(pendDebug)
		return false, false
	}
	if c.inShadow() == shadowMovSS || !c.codeBreak() {
		return false, false
	}
	return true, c.deliver() == stopped
}

// awake reports whether events other than INIT and start-up IPIs reach the vCPU.
func (c *CPU) awake() bool { return c.sys.mp == x86.MPRunnable || c.sys.mp == x86.MPHalted }

// deliverPending delivers what a state left half delivered, a machine check, an
// NMI or else an interrupt if there is one and it may be (Intel SDM vol. 3A table
// 6-2); stop: Run must return.
func (c *CPU) deliverPending(p uint32) (delivered, stop bool) {
	switch {
	case !c.awake():
		return false, false
	case p&pendShutdown != 0 && c.take(pendShutdown):
		c.exit = Exit{Reason: Shutdown}
		return false, true
	case p&pendHeld != 0 && c.take(pendHeld):
		e := c.sys.held
		if e.rip, e.flags = c.RIP, c.rflags(); e.source == fromException {
			e.resumeFlag()
			if e.vector == x86.DB {
				c.commitDR6(0)
			}
		}
		c.sys.mp = x86.MPRunnable
		return true, c.deliverEvent(e) == stopped
	case p&pendMC != 0 && c.take(pendMC):
		c.sys.mp = x86.MPRunnable
		return true, c.deliverEvent(event{vector: x86.MC, rip: c.RIP, flags: c.rflags()}) == stopped
	}
	if c.holds() {
		c.wakeHeld(p)
		return false, false
	}
	if c.sys.mp == x86.MPRunnable && c.inShadow() != shadowNone {
		return false, false // Pending stays: asked again after the next instruction
	}
	if p&pendNMI != 0 && c.take(pendNMI) {
		if !c.sys.nmiMasked {
			c.sys.nmiMasked = true
			return true, c.deliverExternal(x86.NMI)
		}
		c.sys.nmi = true
	}
	if p&pendIntr == 0 {
		return false, false
	}
	c.take(pendIntr)
	if c.Flags&x86.FlagIF == 0 {
		c.Frame.Blocked = true
		return false, false
	}
	v, ok := c.cfg.APIC.Acknowledge()
	c.Frame.Blocked = ok // another may be waiting behind it
	if !ok {
		return false, false
	}
	return true, c.deliverExternal(v)
}

// deliverExternal wakes the CPU and delivers an interrupt or NMI; true: a shutdown.
func (c *CPU) deliverExternal(vector uint8) (stop bool) {
	c.sys.mp = x86.MPRunnable
	e := event{vector: vector, source: fromExternal, rip: c.RIP, flags: c.rflags()}
	return c.deliverEvent(e) == stopped
}

// sleep waits until Pending has a bit that may end the halt.
func (c *CPU) sleep() {
	quiet := uint32(pendHalt | pendDebug)
	if !c.awake() {
		quiet |= pendIntr | pendNMI | pendHeld | pendMC | pendShutdown // wait for the start-up IPI too
	}
	p := atomic.LoadUint32(&c.Pending)
	if p&^quiet != 0 {
		return
	}
	now := time.Now()
	c.dropCold(now)
	if !atomic.CompareAndSwapUint32(&c.Pending, p, p|pendSleep) {
		return
	}
	futexWait(&c.Pending, p|pendSleep)
	c.blocks.slept += time.Since(now)
	atomic.AndUint32(&c.Pending, ^uint32(pendSleep))
}
