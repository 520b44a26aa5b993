package pic

import (
	"math/bits"

	"berth/irq"
)

// set drives the input whose bit is mask. An edge stays requested when its input falls.
func (c *chip) set(mask uint8, level bool) {
	switch {
	case !level:
		c.LastIRR &^= mask
		c.IRR &^= mask & c.LevelTriggered
	case c.LevelTriggered&mask != 0 || c.LastIRR&mask == 0:
		c.IRR |= mask
		c.LastIRR |= mask
	}
}

// highest returns the place in the order of priority, 0 first, of mask's highest
// input, or none.
func (c *chip) highest(mask uint8) uint8 {
	return uint8(bits.TrailingZeros8(bits.RotateLeft8(mask, -int(c.PriorityAdd))))
}

// request returns the input to serve next, or none while a service of the same
// or a higher priority lasts.
func (c *chip) request() uint8 {
	place := c.highest(c.IRR &^ c.IMR)
	serving := c.ISR
	if c.SpecialMask {
		serving &^= c.IMR
	}
	if c.SpecialFullyNested && c.master {
		serving &^= 1 << cascade
	}
	if place >= c.highest(serving) {
		return none
	}
	return (place + c.PriorityAdd) & 7
}

// take moves input n from request to service.
func (c *chip) take(n uint8) {
	if !c.AutoEOI {
		c.ISR |= 1 << n
	} else if c.RotateOnAutoEOI {
		c.PriorityAdd = (n + 1) & 7
	}
	if c.LevelTriggered&(1<<n) == 0 {
		c.IRR &^= 1 << n
	}
}

func (c *chip) read(port uint64) byte {
	switch {
	case c.Poll:
		c.Poll = false
		n := c.request()
		if n == none {
			return 0
		}
		c.take(n)
		return 0x80 | n
	case port == 1:
		return c.IMR
	case c.ReadISR:
		return c.ISR
	}
	return c.IRR
}

// command takes ICW1, OCW2 and OCW3 (8259A datasheet, figures 7 and 8).
func (c *chip) command(v byte) {
	switch {
	case v&0x10 != 0:
		c.initialise(v)
	case v&0x08 != 0:
		if v&0x04 != 0 {
			c.Poll = true
		}
		if v&0x02 != 0 {
			c.ReadISR = v&1 != 0
		}
		if v&0x40 != 0 {
			c.SpecialMask = v&0x20 != 0
		}
	default:
		c.endOfInterrupt(v>>5, v&7)
	}
}

// initialise is ICW1. Edges must come anew; level inputs still ask.
func (c *chip) initialise(v byte) {
	c.PICState = irq.PICState{
		LastIRR:                 c.LastIRR,
		IRR:                     c.LastIRR & c.LevelTriggered,
		LevelTriggered:          c.LevelTriggered,
		LevelTriggeredPermitted: c.LevelTriggeredPermitted,
		InitState:               1,
		Init4:                   v&1 != 0,
		Single:                  v&2 != 0,
	}
}

// endOfInterrupt is OCW2: bits of op are rotate, specific, EOI.
func (c *chip) endOfInterrupt(op, n byte) {
	switch op {
	case 0, 4:
		c.RotateOnAutoEOI = op == 4
	case 1, 5:
		place := c.highest(c.ISR)
		if place == none {
			return
		}
		n = (place + c.PriorityAdd) & 7
		c.ISR &^= 1 << n
	case 3, 7:
		c.ISR &^= 1 << n
	}
	if op >= 5 {
		c.PriorityAdd = (n + 1) & 7
	}
}

// data takes OCW1 and ICW2 to ICW4.
func (c *chip) data(v byte) {
	switch c.InitState {
	case 0:
		c.IMR = v
		return
	case 1:
		c.VectorBase = v & 0xf8
		if c.InitState = 2; !c.Single {
			return
		}
	case 3:
		c.SpecialFullyNested = v&0x10 != 0
		c.AutoEOI = v&0x02 != 0
		c.InitState = 0
		return
	}
	// ICW3 says only how the chips are wired, which is known.
	if c.InitState = 0; c.Init4 {
		c.InitState = 3
	}
}
