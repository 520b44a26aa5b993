package interp

import (
	"math"
	"runtime"
	"time"

	"berth/internal/thread"
)

// turns has a vCPU offer the host's CPU to whoever waits for it, every turn, if the
// machine has as many vCPUs as the host has CPUs or more. Else a thread that an
// interrupt wakes would wait for the scheduler's next tick, which is milliseconds
// away: see docs/decisions/0016-how-a-vcpu-wakes-in-time.md. The turn's end is
// Core.TurnEnd. Only the vCPU's thread uses it.
type turns struct {
	length uint64    // in instructions
	began  time.Time // of the present turn
}

// turnTime is about how long a turn is to be. A yield gives away the rest of the
// slice that thread.Prompt asked for: longer turns make others wait, shorter ones
// lose time to other programs.
const turnTime = 50 * time.Microsecond

// A turn's length in instructions; it starts as the shortest.
const (
	minTurn = 5_000
	maxTurn = 1_000_000
)

// beginTurns prepares the vCPU's thread, which calls it, for Run.
func (c *CPU) beginTurns() {
	if len(c.group.cpus) < runtime.NumCPU() {
		c.TurnEnd = math.MaxUint64
		return
	}
	thread.Prompt()
	c.turns = turns{length: minTurn, began: time.Now()}
	c.TurnEnd = c.Instructions + minTurn
}

// endTurn is called between two blocks when a turn is over.
func (c *CPU) endTurn() {
	c.turns.adjust(time.Since(c.turns.began))
	yield()
	c.turns.began = time.Now()
	c.TurnEnd = c.Instructions + c.turns.length
}

// adjust brings the length nearer to turnTime. It moves by steps: what a turn took
// may include time in which others ran.
func (t *turns) adjust(took time.Duration) {
	switch step := t.length / 4; {
	case took < turnTime*3/4:
		t.length = min(t.length+step, maxTurn)
	case took > turnTime*3/2:
		t.length = max(t.length-step, minTurn)
	}
}
