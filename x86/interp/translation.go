package interp

import (
	"time"

	"golang.org/x/sys/unix"

	"berth/x86/jit"
)

// Translation counts what was translated, how often it was looked for and how
// translated code was left. What runs without leaving translated code is not counted:
// jumps that the table of jumps answers and accesses that the TLB grants.
type Translation struct {
	Blocks, Instructions uint64            // translated, again after a Clear
	Crossing             uint64            // of Blocks, those of one instruction in two pages
	Time                 time.Duration     // that it took: measured of some, see sampled
	Lookups, Recent      uint64            // of a block by its address; of these, found in the small table
	Removed              uint64            // blocks whose code was written, or whose second page moved
	Clears               uint64            // how often everything was forgotten
	Held, Bytes          int               // blocks and bytes of code held now
	Exits                [jit.Kinds]uint64 // by jit.Kind
	Ran                  uint64            // instructions run as translated code
	Stepped              uint64            // instructions run by their definition where translated code was left for that
}

const (
	sampled = 16 // of so many blocks one is timed
	// interrupted: no block takes so long, so the host ran something else meanwhile.
	// The clock that leaves that out takes a system call, and two of them as long as
	// many a block.
	interrupted = time.Millisecond
)

// timed times what it returns from to the call of stop, for one block of sampled.
func (t *Translation) timed() (stop func()) {
	if t.Blocks%sampled != 0 {
		return func() {}
	}
	began := time.Now()
	return func() {
		if d := time.Since(began); d < interrupted {
			t.Time += sampled * d
		}
	}
}

// ThreadTime is the CPU time that the calling thread has used.
func ThreadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0 // a clock that every Linux has
	}
	return time.Duration(ts.Nano())
}

// Translation returns the vCPU's counters, for which it must not be running; not ok:
// it translates nothing.
func (c *CPU) Translation() (t Translation, ok bool) {
	if c.tier1 == nil {
		return t, false
	}
	t = c.tier1.stats
	t.Held, t.Bytes = len(c.blocks.byKey), c.tier1.cache.Used()
	return t, true
}
