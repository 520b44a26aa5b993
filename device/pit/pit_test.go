package pit

import (
	"bytes"
	"testing"

	"berth/clock"
	"berth/irq"
)

type rig struct {
	*PIT
	t     *testing.T
	clock *clock.Manual
	line  bool
	rises int
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, clock: clock.NewManual()}
	r.PIT = New(irq.LineFunc(func(l bool) {
		if l && !r.line {
			r.rises++
		}
		r.line = l
	}), r.clock)
	return r
}

func (r *rig) put(off uint64, vs ...byte) {
	for _, v := range vs {
		r.Counters().Write(off, []byte{v})
	}
}

func (r *rig) get(off uint64) byte {
	var p [1]byte
	r.Counters().Read(off, p[:])
	return p[0]
}

func (r *rig) get16(off uint64) uint16 {
	lo := r.get(off)
	return uint16(r.get(off))<<8 | uint16(lo)
}

func (r *rig) port61() byte {
	var p [1]byte
	r.Speaker().Read(0, p[:])
	return p[0]
}

// ticks moves time on by n input clocks.
func (r *rig) to(n uint64) {
	r.clock.Advance(clock.Nanos(n, Hz) - r.clock.Now())
}

func (r *rig) wantRises(n int) {
	r.t.Helper()
	if r.rises != n {
		r.t.Errorf("%d interrupts, want %d", r.rises, n)
	}
	r.rises = 0
}

// 8254 datasheet, mode 0: interrupt on terminal count.
func TestMode0InterruptOnTerminalCount(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x30)
	r.put(0, 0xe8, 0x03) // 1000
	r.to(999)
	r.wantRises(0)
	if v := r.get16(0); v != 1 {
		t.Errorf("count %d, want 1", v)
	}
	r.to(1000)
	r.wantRises(1)
	r.to(200000)
	r.wantRises(0)
}

// 8254 datasheet, mode 2: rate generator.
func TestMode2RateGenerator(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x34)
	r.put(0, 0x9c, 0x2e) // 11932: 100 Hz
	r.to(11932 * 10)
	r.wantRises(10)
	r.to(11932*10 + 32)
	if v := r.get16(0); v != 11900 {
		t.Errorf("count %d, want 11900", v)
	}
}

func TestMode3SquareWave(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x36)
	r.put(0, 0, 0) // 65536
	r.to(65536 * 3)
	r.wantRises(3)
	r.to(65536*3 + 100)
	if v := r.get16(0); v != 65536-200 {
		t.Errorf("count %d, want %d", v, 65536-200)
	}
}

func TestMode4SoftwareTriggeredStrobe(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x38)
	r.put(0, 0x10, 0)
	r.to(0x10)
	r.wantRises(0)
	r.to(0x11)
	r.wantRises(1)
	r.to(0x20000)
	r.wantRises(0)
}

func TestReprogrammingCancelsTheEdge(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x34)
	r.put(0, 0, 0x10)
	r.put(3, 0x30)
	r.clock.Advance(1e9)
	r.wantRises(0)
}

func TestHostileRateIsBounded(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x14)
	r.put(0, 1)
	r.clock.Advance(1e9)
	if r.rises == 0 || r.rises > 1e9/minPeriod+1 {
		t.Errorf("%d interrupts a second", r.rises)
	}
}

// 8254 datasheet, counter latch command and read-back command.
func TestLatchAndReadBack(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x34)
	r.put(0, 0x00, 0x80)
	r.to(0x100)
	r.put(3, 0x00)
	r.to(0x200)
	r.put(3, 0x00) // ignored
	if v := r.get16(0); v != 0x7f00 {
		t.Errorf("latched %#x, want 0x7f00", v)
	}
	if v := r.get16(0); v != 0x7e00 {
		t.Errorf("live %#x, want 0x7e00", v)
	}
	r.put(3, 0xc2) // read-back: count and status of channel 0
	r.to(0x300)
	if s := r.get(0); s != 0xb4 {
		t.Errorf("status %#x, want 0xb4", s)
	}
	if v := r.get16(0); v != 0x7e00 {
		t.Errorf("latched %#x, want 0x7e00", v)
	}
	r.put(3, 0xec) // status only, channels 1 and 2
	if s := r.get(1); s&0x3f != 0x06 {
		t.Errorf("status of channel 1 %#x", s)
	}
	if r.get(3) != 0 {
		t.Error("the control word reads")
	}
}

func TestSingleByteAccess(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x54) // channel 1, low byte, mode 2
	r.put(1, 18)
	if v := r.get(1); v != 18 {
		t.Errorf("low byte %d", v)
	}
	r.put(3, 0x64) // high byte
	r.put(1, 0x12)
	if v, w := r.get(1), r.get(1); v != 0x12 || w != 0x12 {
		t.Errorf("high byte %#x %#x", v, w)
	}
	r.put(3, 0x40)
	if v := r.get(1); v != 0x12 {
		t.Errorf("latched high byte %#x", v)
	}
}

func TestBCD(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x35)
	r.put(0, 0x00, 0x10) // 1000
	r.to(1)
	if v := r.get16(0); v != 0x0999 {
		t.Errorf("count %#x, want 0x0999", v)
	}
	r.put(3, 0x35)
	r.put(0, 0, 0) // 10000
	if v := r.get16(0); v != 0 {
		t.Errorf("count %#x, want 0 for 10000", v)
	}
	r.put(3, 0x31)
	r.put(0, 0x02, 0x00)
	r.clock.Advance(clock.Nanos(3, Hz))
	if v := r.get16(0); v != 0x9999 {
		t.Errorf("count after terminal %#x, want 0x9999", v)
	}
	r.put(0, 0xff, 0xff)
	r.get16(0)
}

// ICH9 datasheet §13.7.1; Linux calibrates the TSC so.
func TestChannel2GateAndOutputInPort61(t *testing.T) {
	r := newRig(t)
	r.Speaker().Write(0, []byte{0x01})
	r.put(3, 0xb0)
	start := r.clock.Now()
	r.put(2, 0x9b, 0x2e) // 11931: 10 ms
	if r.port61()&0x21 != 0x01 {
		t.Errorf("port 0x61 %#x at start", r.port61())
	}
	r.clock.Advance(start + 10_000_000)
	if r.port61()&0x21 != 0x21 {
		t.Errorf("port 0x61 %#x after 10 ms", r.port61())
	}
	before := r.port61() & 0x10
	r.clock.Advance(refreshHalf)
	if r.port61()&0x10 == before {
		t.Error("the refresh bit stands still")
	}
	r.Speaker().Write(0, []byte{0x02})
	if r.port61()&3 != 2 {
		t.Error("speaker or gate bit")
	}
}

func TestGateRestartsMode3(t *testing.T) {
	r := newRig(t)
	r.put(3, 0xb6)
	r.put(2, 0, 0x10)
	r.to(0x123)
	if r.port61()&0x20 == 0 {
		t.Error("output low with the gate low")
	}
	r.Speaker().Write(0, []byte{1})
	if v := r.get16(2); v != 0x1000 {
		t.Errorf("count %#x after the gate rose", v)
	}
}

// 8254 datasheet, "writing a new count while counting": the period at hand is
// finished in mode 2, the half period in mode 3.
func TestNewCountWaitsForThePeriod(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x34)
	r.put(0, 0xe8, 0x03) // 1000
	r.to(1500)
	r.wantRises(1)
	r.put(0, 0x64, 0x00) // 100
	r.put(3, 0xc2)
	if s, v := r.get(0), r.get16(0); s != 0xf4 || v != 500 {
		t.Errorf("status %#x, count %d while the new count waits", s, v)
	}
	r.to(1999)
	r.wantRises(0)
	r.to(2000)
	r.wantRises(1)
	r.put(3, 0xe2)
	if s := r.get(0); s != 0xb4 {
		t.Errorf("status %#x once it is taken up", s)
	}
	r.to(2300)
	r.wantRises(1) // more are lost: see minPeriod

	r = newRig(t)
	r.Speaker().Write(0, []byte{1})
	r.put(3, 0xb6) // channel 2, mode 3
	r.put(2, 0xe8, 0x03)
	r.to(100)
	r.put(2, 0x64, 0x00)
	for _, s := range []struct {
		at   uint64
		high bool
	}{{499, true}, {500, false}, {549, false}, {550, true}, {599, true}, {600, false}} {
		if r.to(s.at); r.port61()&0x20 != 0 != s.high {
			t.Errorf("output high: %t at %d", !s.high, s.at)
		}
	}
}

// 8254 datasheet: the first of two bytes stops mode 0, whose output is low from
// the control word on.
func TestMode0StopsBetweenTwoBytes(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x30)
	r.put(3, 0xe2)
	if s := r.get(0); s != 0x70 {
		t.Errorf("status %#x after the control word, want null count and a low output", s)
	}
	r.put(0, 0x10, 0)
	r.to(0x10)
	r.wantRises(1)
	r.put(0, 0x20)
	r.put(3, 0xe2)
	if s := r.get(0); s != 0x70 {
		t.Errorf("status %#x after half a count", s)
	}
	r.to(0x1000)
	r.wantRises(0)
	r.put(0, 0)
	r.to(0x1021)
	r.wantRises(1)
}

// 8254 datasheet, "gate": it holds modes 0 and 4.
func TestGateStopsModes0And4(t *testing.T) {
	for _, mode := range []byte{0, 4} {
		r := newRig(t)
		r.put(3, 0xb0|mode<<1)
		r.put(2, 0xe8, 0x03) // 1000, the gate low
		r.to(500)
		if v := r.get16(2); v != 1000 {
			t.Errorf("mode %d: count %d with the gate low", mode, v)
		}
		r.Speaker().Write(0, []byte{1})
		r.to(800)
		r.Speaker().Write(0, []byte{0})
		r.to(5000)
		if v := r.get16(2); v != 700 {
			t.Errorf("mode %d: count %d, want 700", mode, v)
		}
		s := r.Save()
		r = newRig(t)
		r.to(5000)
		if err := r.Load(s); err != nil {
			t.Fatal(err)
		}
		r.Speaker().Write(0, []byte{1})
		r.to(5100)
		if v := r.get16(2); v != 600 {
			t.Errorf("mode %d: count %d, want 600", mode, v)
		}
		if r.to(5700); mode == 0 && r.port61()&0x20 == 0 || mode == 4 && r.port61()&0x20 != 0 {
			t.Errorf("mode %d: port 0x61 %#x at the end", mode, r.port61())
		}
	}
}

// 8254 datasheet, modes 1 and 5: nothing counts before the gate rises, a rising
// gate begins anew, and takes up a new count.
func TestGateTriggersModes1And5(t *testing.T) {
	for _, mode := range []byte{1, 5} {
		r := newRig(t)
		low := func(at uint64) {
			t.Helper()
			// Mode 1 is low while it counts, mode 5 for one clock at its end.
			if r.to(at); r.port61()&0x20 != 0 {
				t.Errorf("mode %d: output high at %d", mode, at)
			}
		}
		high := func(at uint64) {
			t.Helper()
			if r.to(at); r.port61()&0x20 == 0 {
				t.Errorf("mode %d: output low at %d", mode, at)
			}
		}
		r.put(3, 0xb0|mode<<1)
		r.put(2, 100, 0)
		high(5000)
		r.Speaker().Write(0, []byte{1})
		if mode == 1 {
			low(5001)
			low(5099)
			high(5100)
		} else {
			high(5099)
			low(5100)
			high(5101)
		}
		r.put(2, 10, 0) // for the next trigger
		r.Speaker().Write(0, []byte{0})
		high(6000)
		r.Speaker().Write(0, []byte{1})
		if mode == 1 {
			low(6009)
			high(6011)
		} else {
			high(6009)
			low(6011)
			high(6012)
		}
	}
}

func TestStateRoundTripInMidOperation(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x34)
	r.put(0, 0x9c, 0x2e)
	r.put(3, 0xb6)
	r.put(2, 0x12) // half a count
	r.put(3, 0x00)
	r.get(0) // half a latched count
	r.to(5000)
	s := r.Save()
	n := newRig(t)
	n.to(5000)
	if err := n.Load(s); err != nil {
		t.Fatal(err)
	}
	if n.Save() != s {
		t.Errorf("got %+v, want %+v", n.Save(), s)
	}
	n.to(11931)
	n.wantRises(0)
	n.to(11932)
	n.wantRises(1)
	s.Channel[1].Count = 0
	if n.Load(s) == nil {
		t.Error("a count of 0 accepted")
	}
}

func TestResetIsQuiet(t *testing.T) {
	r := newRig(t)
	r.put(3, 0x34)
	r.put(0, 0, 0x10)
	r.Reset()
	r.clock.Advance(1e9)
	r.wantRises(0)
	n := newRig(t)
	if err := n.Load(r.Save()); err != nil {
		t.Fatal(err)
	}
	n.clock.Advance(1e9)
	n.wantRises(0)
}

func TestHostileAccessEveryOffsetAndWidth(t *testing.T) {
	r := newRig(t)
	for v := range 256 {
		for _, width := range []int{1, 2, 4, 8} {
			for off := range uint64(4) {
				p := bytes.Repeat([]byte{byte(v)}, width)
				r.Counters().Write(off, p)
				r.Counters().Read(off, p)
				r.Speaker().Write(0, p)
				r.Speaker().Read(0, p)
			}
		}
		r.clock.Advance(uint64(v) * 12345)
	}
}

// A guest that is held up gets its ticks one after the other, none lost and none twice.
func TestTicksWaitForTheInterruptBefore(t *testing.T) {
	r := newRig(t)
	r.HearEnds()
	r.put(3, 0x34)
	r.put(0, 0x9c, 0x2e) // 11932 clocks: 10 ms
	r.to(5*11932 + 100)
	r.wantRises(1)
	for range 4 {
		r.Ended()
		r.wantRises(1)
	}
	r.Ended()
	r.wantRises(0)
	r.to(6*11932 + 100)
	r.wantRises(1)
}

// Ticks for a guest that takes none do not pile up, nor are later ones lost.
func TestTicksDoNotWaitForADeafGuest(t *testing.T) {
	r := newRig(t)
	r.HearEnds()
	r.put(3, 0x34)
	r.put(0, 0x9c, 0x2e)
	r.to(100*11932 + 100)
	r.wantRises(100 - maxOwed)
	r.Ended()
	r.wantRises(0)
	r.to(101*11932 + 100)
	r.wantRises(1)
}
