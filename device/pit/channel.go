package pit

import (
	"math"

	"berth/clock"
)

// Which byte of a count comes next; the first three are also the access modes
// of a control word (8254 datasheet, figure 7).
const (
	lowByte  = 1
	highByte = 2
	lowOfTwo = 3
	highLeft = 4
)

// ticks returns how many input clocks have passed since the count was loaded.
func (c *channel) ticks(now uint64) uint64 {
	switch {
	case c.Idle || now < c.LoadTime:
		return 0
	case c.stops():
		return clock.Ticks(c.Stopped, Hz)
	}
	return clock.Ticks(now-c.LoadTime, Hz)
}

// stops reports that the gate holds the count; modes 1 and 5 go on without it.
func (c *channel) stops() bool { return !c.Gate && c.Mode != 1 && c.Mode != 5 }

// settle takes up the count that waits for the end of a period of mode 2, or a
// half one of mode 3, if that is over.
func (c *channel) settle(now uint64) {
	if c.Next == 0 || c.NextTime == 0 || now < c.NextTime {
		return
	}
	passed := uint64(0)                                          // of the new period
	if c.Mode == 3 && c.ticks(c.NextTime)%uint64(c.Count) != 0 { // its low half is next
		passed = (uint64(c.Next) + 1) / 2
	}
	c.LoadTime = c.NextTime - min(c.NextTime, clock.Nanos(passed, Hz))
	c.Count, c.Next, c.NextTime = c.Next, 0, 0
}

// periodEnd returns when a new count is taken up in mode 2 or 3.
func (c *channel) periodEnd(now uint64) uint64 {
	n := uint64(c.Count)
	d := c.ticks(now)
	end := d - d%n + n
	if half := (n + 1) / 2; c.Mode == 3 && d%n < half {
		end = d - d%n + half
	}
	return c.LoadTime + clock.Nanos(end, Hz)
}

// modulus is what a running count wraps at.
func (c *channel) modulus() uint64 {
	if c.BCD {
		return 10000
	}
	return 0x10000
}

// value returns the count as the guest reads it.
func (c *channel) value(now uint64) uint16 {
	d, n, m := c.ticks(now), uint64(c.Count), c.modulus()
	switch {
	case c.Idle && c.Next != 0:
		n = uint64(c.Next)
	case c.Idle:
	case c.Mode == 2:
		n -= d % n
	case c.Mode == 3: // counts by twos, twice a period
		n -= 2 * d % n
	default:
		n = (n + m - d%m) % m
	}
	if c.BCD {
		return toBCD(n % 10000)
	}
	return uint16(n)
}

// out returns the output's level (8254 datasheet, mode definitions).
func (c *channel) out(now uint64) bool {
	d, n := c.ticks(now), uint64(c.Count)
	switch {
	case c.Idle:
		return c.Mode != 0
	case c.Mode <= 1:
		return d >= n
	case c.Mode == 2:
		return !c.Gate || d%n != n-1
	case c.Mode == 3:
		return !c.Gate || d%n < (n+1)/2
	default:
		return d != n
	}
}

// nextRise returns the guest time of the first rising output after now, or 0 for none.
func (c *channel) nextRise(now uint64) uint64 {
	if c.Idle || c.stops() {
		return 0
	}
	d, n := c.ticks(now), uint64(c.Count)
	var at uint64
	switch c.Mode {
	case 0, 1:
		at = n
	case 2, 3:
		at = (d/n + 1) * n
	default:
		at = n + 1
	}
	if at <= d {
		return 0
	}
	ns := clock.Nanos(at, Hz)
	if ns > math.MaxUint64-c.LoadTime {
		return 0
	}
	if rise := c.LoadTime + ns; c.Next == 0 || c.NextTime == 0 || rise <= c.NextTime {
		return rise
	}
	later := *c
	later.settle(c.NextTime)
	return later.nextRise(c.NextTime)
}

// gate drives the gate input: a rising one triggers modes 1 and 5 and begins
// periods of 2 and 3 anew; a low one stops the others.
func (c *channel) gate(level bool, now uint64) {
	switch {
	case level == c.Gate:
		return
	case c.Idle && (c.Next == 0 || !level): // nothing to start or stop
	case c.Mode == 0 || c.Mode == 4:
		if level {
			c.LoadTime = now - c.Stopped
		} else {
			c.Stopped = now - c.LoadTime
		}
	case level:
		if c.Next != 0 {
			c.Count, c.Next, c.NextTime = c.Next, 0, 0
		}
		c.LoadTime, c.Idle = now, false
	case c.Mode == 2 || c.Mode == 3:
		c.Stopped, c.NextTime = now-c.LoadTime, 0
	}
	c.Gate = level
}

func (c *channel) read(now uint64) byte {
	if c.StatusLatched {
		c.StatusLatched = false
		return c.Status
	}
	if c.CountLatched != 0 {
		return nextByte(&c.CountLatched, c.LatchedCount, 0)
	}
	return nextByte(&c.ReadState, c.value(now), lowOfTwo)
}

// nextByte returns the byte of v that *state names and moves *state on; after
// the last byte of a latched count (again == 0) the latch is free.
func nextByte(state *uint8, v uint16, again uint8) byte {
	switch *state {
	case highByte:
		*state = min(again, highByte)
	case lowOfTwo:
		*state = highLeft
		return byte(v)
	case highLeft:
		*state = again
	default:
		*state = min(again, lowByte)
		return byte(v)
	}
	return byte(v >> 8)
}

// write takes one byte of a count. In mode 0 the first of two stops the count.
func (c *channel) write(v byte, now uint64) {
	switch c.WriteState {
	case lowByte:
		c.load(uint16(v), now)
	case highByte:
		c.load(uint16(v)<<8, now)
	case lowOfTwo:
		c.WriteLatch = v
		c.WriteState = highLeft
		c.Idle = c.Idle || c.Mode == 0
	case highLeft:
		c.load(uint16(v)<<8|uint16(c.WriteLatch), now)
		c.WriteState = lowOfTwo
	}
}

// load takes a whole count (8254 datasheet, "mode definitions"): modes 0 and 4
// start over, the periodic ones go on to the end of a period, and those that the
// gate triggers wait for it.
func (c *channel) load(v uint16, now uint64) {
	n := uint32(v)
	if c.BCD {
		n = fromBCD(v)
	}
	if n == 0 {
		n = uint32(c.modulus())
	}
	switch {
	case c.Mode == 1 || c.Mode == 5:
		c.Next, c.NextTime = n, 0
	case (c.Mode == 2 || c.Mode == 3) && !c.Idle:
		if c.Next, c.NextTime = n, 0; c.Gate {
			c.NextTime = c.periodEnd(now)
		}
	default:
		c.Count, c.LoadTime, c.Idle, c.Stopped = n, now, false, 0
	}
}

// control takes a control word and reports whether it was more than a latch command.
func (c *channel) control(v byte, now uint64) bool {
	access := v >> 4 & 3
	if access == 0 {
		c.latch(now)
		return false
	}
	c.RWMode, c.ReadState, c.WriteState = access, access, access
	c.CountLatched, c.StatusLatched = 0, false
	c.Mode = v >> 1 & 7
	if c.Mode > 5 {
		c.Mode -= 4 // bit 2 does not matter for modes 2 and 3
	}
	c.BCD = v&1 != 0
	if c.Next != 0 {
		c.Count = c.Next
	}
	if c.BCD {
		c.Count = min(c.Count, 10000)
	}
	c.Idle, c.Next, c.NextTime, c.Stopped = true, 0, 0, 0
	return true
}

// latch holds the count until it is read; a second latch before that is ignored.
func (c *channel) latch(now uint64) {
	if c.CountLatched == 0 {
		c.LatchedCount, c.CountLatched = c.value(now), max(c.RWMode, lowByte)
	}
}

// readBack is the read-back command (8254 datasheet, figures 11 and 12).
func (c *channel) readBack(v byte, now uint64) {
	if v&0x20 == 0 {
		c.latch(now)
	}
	if v&0x10 == 0 && !c.StatusLatched {
		c.Status = c.RWMode<<4 | c.Mode<<1
		if c.out(now) {
			c.Status |= 1 << 7
		}
		if c.Idle || c.Next != 0 { // null count
			c.Status |= 1 << 6
		}
		if c.BCD {
			c.Status |= 1
		}
		c.StatusLatched = true
	}
}

func fromBCD(v uint16) uint32 {
	var n uint32
	for shift := 12; shift >= 0; shift -= 4 {
		n = n*10 + uint32(v>>shift&15)
	}
	return min(n, 10000) // digits above 9 are the guest's own fault
}

func toBCD(n uint64) uint16 {
	return uint16(n/1000%10<<12 | n/100%10<<8 | n/10%10<<4 | n%10)
}
