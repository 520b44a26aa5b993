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
	if now < c.LoadTime {
		return 0
	}
	return clock.Ticks(now-c.LoadTime, Hz)
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
	switch c.Mode {
	case 0, 1, 4, 5:
		n = (n + m - d%m) % m
	case 3: // counts by twos, twice a period
		n -= 2 * d % n
	default:
		n -= d % n
	}
	if c.BCD {
		return toBCD(n % 10000)
	}
	return uint16(n)
}

// out returns the output's level (8254 datasheet, mode definitions).
func (c *channel) out(now uint64) bool {
	d, n := c.ticks(now), uint64(c.Count)
	switch c.Mode {
	case 0, 1:
		return d >= n
	case 2:
		return !c.Gate || d%n != n-1
	case 3:
		return !c.Gate || d%n < (n+1)/2
	default:
		return d != n
	}
}

// nextRise returns the guest time of the first rising output after now, or 0 for none.
func (c *channel) nextRise(now uint64) uint64 {
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
	return c.LoadTime + ns
}

// gate drives the gate input: a rising one restarts the counting modes that
// heed it. That a low one holds modes 0 and 4 is left out, as in other machines.
func (c *channel) gate(level bool, now uint64) {
	if level && !c.Gate && c.Mode != 0 && c.Mode != 4 {
		c.LoadTime = now
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

// write takes one byte of a count and reports whether the count is complete and loaded.
func (c *channel) write(v byte, now uint64) bool {
	switch c.WriteState {
	case lowByte:
		c.load(uint16(v), now)
	case highByte:
		c.load(uint16(v)<<8, now)
	case lowOfTwo:
		c.WriteLatch = v
		c.WriteState = highLeft
		return false
	case highLeft:
		c.load(uint16(v)<<8|uint16(c.WriteLatch), now)
		c.WriteState = lowOfTwo
	default:
		return false // no control word yet
	}
	return true
}

func (c *channel) load(v uint16, now uint64) {
	n := uint32(v)
	if c.BCD {
		n = fromBCD(v)
	}
	if n == 0 {
		n = uint32(c.modulus())
	}
	c.Count, c.LoadTime = n, now
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
	if c.BCD {
		c.Count = min(c.Count, 10000)
	}
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
