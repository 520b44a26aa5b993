package lapic

import (
	"testing"

	"berth/x86"
)

func TestTimerOneShot(t *testing.T) {
	r := newRig(t, 1)
	r.enable(false)
	r.put(0, regLVTTimer, 0x41)
	r.put(0, regDivide, 0x3) // by 16
	r.put(0, regInitial, 1000)
	r.clock.Advance(15999)
	r.ack(0, -1)
	if v := r.get(0, regCurrent); v != 1 {
		t.Errorf("count %d before the end", v)
	}
	r.clock.Advance(1)
	if v := r.get(0, regCurrent); v != 0 {
		t.Errorf("count %d at the end", v)
	}
	r.ack(0, 0x41)
	r.put(0, regEOI, 0)
	r.clock.Advance(1e9)
	r.ack(0, -1)
	r.put(0, regInitial, 1000)
	r.clock.Advance(4000)
	if v := r.get(0, regCurrent); v != 750 {
		t.Errorf("count %d, want 750", v)
	}
	r.put(0, regDivide, 0xb) // by 1: the count goes on faster
	r.clock.Advance(749)
	if v := r.get(0, regCurrent); v != 1 {
		t.Errorf("count %d, want 1", v)
	}
	r.clock.Advance(1)
	r.ack(0, 0x41)
	r.put(0, regEOI, 0)
	r.put(0, regInitial, 5)
	r.put(0, regInitial, 0) // stops
	r.clock.Advance(1e6)
	r.ack(0, -1)
}

func TestTimerDivideValues(t *testing.T) {
	r := newRig(t, 1)
	for v, want := range map[uint32]uint64{0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1} {
		r.put(0, regDivide, v)
		if got := r.APIC(0).divisor(); got != want {
			t.Errorf("divide %#x: %d, want %d", v, got, want)
		}
	}
}

func TestTimerPeriodic(t *testing.T) {
	r := newRig(t, 1)
	r.enable(false)
	r.put(0, regLVTTimer, timerPeriodic<<17|0x41)
	r.put(0, regDivide, 0xb)
	r.put(0, regInitial, 1_000_000)
	for range 5 {
		r.clock.Advance(1_000_000)
		r.ack(0, 0x41)
		r.put(0, regEOI, 0)
	}
	r.clock.Advance(300_000)
	if v := r.get(0, regCurrent); v != 700_000 {
		t.Errorf("count %d", v)
	}
	r.put(0, regLVTTimer, lvtMasked|timerPeriodic<<17|0x41)
	r.clock.Advance(1_000_000)
	r.ack(0, -1)
}

func TestHostilePeriodIsBounded(t *testing.T) {
	r := newRig(t, 1)
	r.enable(false)
	r.put(0, regLVTTimer, timerPeriodic<<17|0x41)
	r.put(0, regDivide, 0xb)
	r.put(0, regInitial, 1)
	fired := 0
	for range 1000 {
		r.clock.Advance(1_000_000)
		if r.APIC(0).Deliverable() {
			fired++
			r.APIC(0).Acknowledge()
			r.put(0, regEOI, 0)
		}
	}
	if fired != 1000 {
		t.Errorf("%d milliseconds with a tick, want all 1000", fired)
	}
}

// SDM §11.5.4.1.
func TestTimerTSCDeadline(t *testing.T) {
	r := newRig(t, 1)
	r.enable(false)
	a := r.APIC(0)
	a.WriteMSR(x86.MSRTSCDeadline, 5000) // not in its mode: ignored
	if v, ok := a.ReadMSR(x86.MSRTSCDeadline); !ok || v != 0 {
		t.Errorf("deadline %d outside its mode", v)
	}
	r.put(0, regLVTTimer, timerDeadline<<17|0x41)
	r.put(0, regInitial, 100) // ignored
	a.WriteMSR(x86.MSRTSCDeadline, 5000)
	if v, _ := a.ReadMSR(x86.MSRTSCDeadline); v != 5000 {
		t.Errorf("deadline reads %d", v)
	}
	r.clock.Advance(3999)
	r.ack(0, -1)
	r.clock.Advance(1)
	r.ack(0, 0x41)
	r.put(0, regEOI, 0)
	if v, _ := a.ReadMSR(x86.MSRTSCDeadline); v != 0 {
		t.Errorf("deadline reads %d after it", v)
	}
	a.WriteMSR(x86.MSRTSCDeadline, 4999) // past: at once
	r.ack(0, 0x41)
	r.put(0, regEOI, 0)
	a.WriteMSR(x86.MSRTSCDeadline, 100000)
	a.TSCChanged()
	a.WriteMSR(x86.MSRTSCDeadline, 0)
	r.clock.Advance(1e6)
	r.ack(0, -1)
	a.WriteMSR(x86.MSRTSCDeadline, 1<<40)
	r.put(0, regLVTTimer, 0x41) // leaving the mode disarms
	if v, _ := a.ReadMSR(x86.MSRTSCDeadline); v != 0 {
		t.Errorf("deadline reads %d after leaving the mode", v)
	}
}
