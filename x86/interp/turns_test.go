package interp

import (
	"math"
	"runtime"
	"testing"
	"time"
)

// TestTurnsBecomeAsLongAsTheyShould: whatever the speed, in instructions each
// microsecond, the length settles where a turn takes about turnTime, within its bounds.
func TestTurnsBecomeAsLongAsTheyShould(t *testing.T) {
	for _, speed := range []uint64{1, 50, 150, 500, 2000, 1_000_000} {
		turn := turns{length: minTurn}
		for range 200 {
			turn.adjust(time.Duration(turn.length * 1000 / speed))
		}
		took := time.Duration(turn.length * 1000 / speed)
		switch {
		case turn.length < minTurn || turn.length > maxTurn:
			t.Errorf("speed %d: %d instructions", speed, turn.length)
		case took > turnTime*3/2 && turn.length-turn.length/4 > minTurn:
			t.Errorf("speed %d: a turn of %v", speed, took)
		case took < turnTime*3/4 && turn.length < maxTurn:
			t.Errorf("speed %d: a turn of %v", speed, took)
		}
	}
	turn := turns{length: minTurn}
	turn.adjust(time.Hour) // descheduled
	if turn.length != minTurn {
		t.Errorf("%d instructions after an hour", turn.length)
	}
}

// TestOnlyCrowdedMachinesTakeTurns: with a host CPU to spare nobody yields; else a
// vCPU that never leaves its blocks does, again and again, and is still kicked.
func TestOnlyCrowdedMachinesTakeTurns(t *testing.T) {
	for _, cpus := range []int{1, runtime.NumCPU()} {
		c := newTestCPU(t, []byte{0xeb, 0xfe}) // jmp self
		for range cpus - 1 {
			c.group.cpus = append(c.group.cpus, c) // only their number counts
		}
		crowded := cpus >= runtime.NumCPU()
		done := make(chan Exit)
		go func() {
			runtime.LockOSThread() // the thread ends with the goroutine
			done <- c.Run()
		}()
		time.Sleep(20 * time.Millisecond) // some turns
		c.Kick()
		if e := <-done; e.Reason != Kicked {
			t.Errorf("%d vCPUs: %+v", cpus, e)
		}
		if took := c.TurnEnd != math.MaxUint64; took != crowded {
			t.Errorf("%d vCPUs: turns %v", cpus, took)
		}
	}
}
