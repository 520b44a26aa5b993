package interp

import (
	"math/bits"

	"berth/x86/jit"
)

// hostTSC relates the guest's TSC to the host's, so that translated code reads the one by
// the other: docs/decisions/0020-how-guest-code-is-translated.md.
type hostTSC struct {
	steady      bool   // it may
	host, guest uint64 // what they were at one time; host 0: not known
	rate        uint64 // of the guest's for one of the host's, times 2^32; 0: not known
	least       uint64 // about how much of the host's passes while the guest's is read
}

const (
	// The rate is measured over so much of the host's TSC at least, some milliseconds, and at most about so much.
	minSpan, maxSpan = 1 << 24, 1 << 28
	// usualGap is hostTSC.least at first.
	usualGap = 1 << 9
	// maxAhead is up to how much of the guest's TSC, which is nanoseconds, after it was read
	// translated code goes on by the rate.
	maxAhead = 50_000
)

// readTSC is tsc for RDTSC. It has translated code do it from here on.
func (c *CPU) readTSC() uint64 {
	if !c.sys.hostTSC.steady {
		return c.tsc()
	}
	before := jit.HostTSC()
	t := c.tsc()
	now := jit.HostTSC()
	c.relateTSC(now, t, now-before)
	return t
}

// relateTSC notes that the guest's TSC was t at, or a bit before, now of the host's; to read it took so much of that.
// What translated code makes of it is never more than t was by then, but may be a little
// less: other vCPUs, which could compare, there are none.
func (c *CPU) relateTSC(now, t, took uint64) {
	r, f := &c.sys.hostTSC, &c.Frame
	f.TSCLimit = 0
	if took > r.least+r.least/4 { // the host did something else meanwhile
		r.least += r.least/64 + 1
		return
	}
	r.least = min(r.least, took)
	d := now - r.host
	switch {
	case r.host == 0:
		r.host, r.guest = now, t
	case d >= minSpan:
		hi, lo := bits.Mul64(t-r.guest, 1<<32)
		if r.rate = 0; hi < d {
			r.rate, _ = bits.Div64(hi, lo, d)
		}
		if r.rate < 1<<28 || r.rate > 1<<33 { // 16 GHz and 500 MHz
			r.rate = 0
		}
		if d >= maxSpan {
			r.host, r.guest = now, t
		}
	}
	if r.rate != 0 {
		f.TSCHost, f.TSCBase, f.TSCRate, f.TSCLimit = now, t, r.rate, maxAhead<<32/r.rate
	}
}

// tscMoved has the next RDTSC look at the clock. The rate stays.
func (c *CPU) tscMoved() { c.Frame.TSCLimit, c.sys.hostTSC.host = 0, 0 }
