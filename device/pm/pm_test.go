package pm

import (
	"bytes"
	"encoding/binary"
	"testing"

	"berth/clock"
	"berth/irq"
)

type rig struct {
	*PM
	t           *testing.T
	clock       *clock.Manual
	sci         bool
	offs, reset int
}

func newRig(t *testing.T, cfg Config) *rig {
	r := &rig{t: t, clock: clock.NewManual()}
	cfg.SCI = irq.LineFunc(func(l bool) { r.sci = l })
	cfg.Clock = r.clock
	cfg.PowerOff = func() { r.offs++ }
	cfg.Reset = func() { r.reset++ }
	r.PM = New(cfg)
	return r
}

func (r *rig) get(off uint64, width int) uint64 {
	var p [8]byte
	r.Read(off, p[:width])
	return binary.LittleEndian.Uint64(p[:])
}

func (r *rig) put(off uint64, width int, v uint64) {
	r.Write(off, binary.LittleEndian.AppendUint64(nil, v)[:width])
}

// ACPI 6.5 §4.8.3.3.
func TestTimerCountsAt3579545Hz(t *testing.T) {
	r := newRig(t, Config{})
	r.clock.Advance(1e9)
	if v := r.get(Timer, 4); v != Hz {
		t.Errorf("%d after a second", v)
	}
	r.clock.Advance(1999e9)
	if v := r.get(Timer, 4); v != 2000*Hz&0xffffffff {
		t.Errorf("%d after 2000 seconds", v)
	}
	if v := r.get(Timer+1, 2); v != 2000*Hz>>8&0xffff {
		t.Errorf("middle bytes %#x", v)
	}
	n := newRig(t, Config{Timer24: true})
	n.clock.Advance(2000e9)
	if v := n.get(Timer, 4); v != 2000*Hz&0xffffff {
		t.Errorf("24 bits: %d", v)
	}
}

func TestTimerOverflowEvent(t *testing.T) {
	r := newRig(t, Config{Timer24: true, ACPIOnly: true})
	half := clock.Nanos(1<<23, Hz)
	r.clock.Advance(half - 1)
	if r.get(Event, 2) != 0 {
		t.Error("TMR_STS early")
	}
	r.clock.Advance(1)
	if r.get(Event, 2) != eventTimer || r.sci {
		t.Errorf("status %#x, SCI %v", r.get(Event, 2), r.sci)
	}
	r.put(Event, 2, eventTimer)
	if r.get(Event, 2) != 0 {
		t.Error("status not cleared")
	}
	r.put(Event+2, 2, eventTimer)
	r.clock.Advance(half + 1)
	if !r.sci {
		t.Error("no SCI")
	}
	r.put(Event, 2, eventTimer)
	if r.sci {
		t.Error("SCI stays")
	}
}

// ACPI 6.5 §4.8.3.1.1, fixed power button.
func TestPowerButton(t *testing.T) {
	r := newRig(t, Config{})
	r.put(Event+2, 2, 0xffff)
	if v := r.get(Event+2, 2); v != eventsAll {
		t.Errorf("enable %#x", v)
	}
	r.PowerButton()
	if r.sci {
		t.Error("SCI in legacy mode")
	}
	r.APM().Write(0, []byte{ACPIEnable})
	if !r.sci || r.get(Control, 2) != controlSCI {
		t.Error("no SCI once ACPI is on")
	}
	r.put(Event+1, 1, eventPower>>8)
	if r.sci {
		t.Error("SCI stays")
	}
	r.APM().Write(0, []byte{ACPIDisable, 0x77})
	var p [2]byte
	r.APM().Read(0, p[:])
	if r.get(Control, 2) != 0 || p != [2]byte{ACPIDisable, 0x77} {
		t.Errorf("control %#x, APM % x", r.get(Control, 2), p)
	}
}

func TestACPIOnlyKeepsSCIEnabled(t *testing.T) {
	r := newRig(t, Config{ACPIOnly: true})
	r.put(Control, 2, 0)
	r.APM().Write(0, []byte{ACPIDisable})
	if r.get(Control, 2) != controlSCI {
		t.Errorf("control %#x", r.get(Control, 2))
	}
}

// ACPI 6.5 §4.8.3.2.1, §16.1.
func TestSoftOff(t *testing.T) {
	r := newRig(t, Config{ACPIOnly: true})
	r.put(Control, 2, SleepS5<<10)
	r.put(Control, 2, 1<<10|controlSleep) // S1 is not offered
	if r.offs != 0 {
		t.Error("off without sleep enable or for another type")
	}
	r.put(Control, 2, SleepS5<<10|controlSleep)
	if r.offs != 1 || r.get(Control, 2)&controlSleep != 0 {
		t.Errorf("%d times off, control %#x", r.offs, r.get(Control, 2))
	}
	r.put(Control+1, 1, controlSleep>>8)
	r.put(Control, 4, controlSleep)
	if r.offs != 3 {
		t.Errorf("%d times off", r.offs)
	}
}

// ICH9 datasheet §13.7.5.
func TestResetControlRegister(t *testing.T) {
	r := newRig(t, Config{})
	h := r.ResetControl()
	h.Write(0, []byte{0x02})
	if r.reset != 0 {
		t.Error("reset without bit 2")
	}
	h.Write(0, []byte{ResetValue})
	h.Write(0, []byte{0x0f})
	var p [1]byte
	h.Read(0, p[:])
	if r.reset != 2 || p[0] != 0x0a {
		t.Errorf("%d resets, register %#x", r.reset, p[0])
	}
}

// ACPI 6.5 §4.8.4.3.
func TestGeneralPurposeEvents(t *testing.T) {
	r := newRig(t, Config{ACPIOnly: true})
	r.RaiseGPE(9)
	if r.sci || r.get(GPE0, 8) != 1<<9 {
		t.Errorf("status %#x", r.get(GPE0, 8))
	}
	r.put(GPE0+9, 1, 2)
	if !r.sci {
		t.Error("no SCI")
	}
	r.put(GPE0+1, 1, 2)
	if r.sci || r.get(GPE0, 8) != 0 || r.get(GPE0+8, 8) != 1<<9 {
		t.Error("status not cleared")
	}
}

func TestStateRoundTripInMidOperation(t *testing.T) {
	r := newRig(t, Config{Timer24: true})
	r.clock.Advance(1e9)
	r.APM().Write(0, []byte{ACPIEnable, 5})
	r.put(Event+2, 2, eventPower|eventTimer)
	r.put(smiEn, 4, 0x12345678)
	r.PowerButton()
	r.RaiseGPE(63)
	s := r.Save()
	n := newRig(t, Config{Timer24: true})
	n.clock.Advance(1e9)
	if err := n.Load(s); err != nil {
		t.Fatal(err)
	}
	if n.Save() != s || !n.sci || n.get(smiEn, 4) != 0x12345678 {
		t.Errorf("got %+v, want %+v", n.Save(), s)
	}
	n.put(Event, 2, eventPower)
	n.clock.Advance(2e9)
	if !n.sci {
		t.Error("the timer's event is lost")
	}
	n.Reset()
	if n.sci || n.Save().Enable != 0 {
		t.Error("reset")
	}
	s.Version = 7
	if n.Load(s) == nil {
		t.Error("unknown version accepted")
	}
}

func TestHostileAccessEveryOffsetAndWidth(t *testing.T) {
	r := newRig(t, Config{})
	for _, width := range []int{1, 2, 4, 8} {
		for off := uint64(0); off+uint64(width) <= Size; off++ {
			for _, v := range []byte{0, 0xff} {
				p := bytes.Repeat([]byte{v}, width)
				r.Write(off, p)
				r.Read(off, p)
			}
			r.clock.Advance(1e12)
		}
		r.APM().Write(0, make([]byte, width))
		r.ResetControl().Read(0, make([]byte, width))
	}
}
