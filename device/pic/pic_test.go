package pic

import (
	"bytes"
	"testing"

	"berth/irq"
)

type rig struct {
	*PIC
	t    *testing.T
	intr bool
}

// newRig is a pair initialised as PCs do: vectors 0x20 and 0x28, nothing masked.
func newRig(t *testing.T) *rig {
	r := bare(t)
	for i, base := range []byte{0x20, 0x28} {
		h := r.handler(i)
		h.Write(0, []byte{0x11})
		h.Write(1, []byte{base})
		h.Write(1, []byte{[]byte{1 << 2, 2}[i]})
		h.Write(1, []byte{0x01})
		h.Write(1, []byte{0})
	}
	return r
}

func bare(t *testing.T) *rig {
	r := &rig{t: t}
	r.PIC = New(irq.LineFunc(func(l bool) { r.intr = l }))
	return r
}

func (r *rig) handler(i int) interface {
	Read(uint64, []byte)
	Write(uint64, []byte)
} {
	if i == 0 {
		return r.Master()
	}
	return r.Slave()
}

func (r *rig) cmd(i int, v byte)  { r.handler(i).Write(0, []byte{v}) }
func (r *rig) mask(i int, v byte) { r.handler(i).Write(1, []byte{v}) }
func (r *rig) read(i int, off uint64) byte {
	var p [1]byte
	r.handler(i).Read(off, p[:])
	return p[0]
}
func (r *rig) isr(i int) byte { r.cmd(i, 0x0b); return r.read(i, 0) }
func (r *rig) irr(i int) byte { r.cmd(i, 0x0a); return r.read(i, 0) }

func (r *rig) pulse(n uint32) { r.Set(n, true); r.Set(n, false) }

func (r *rig) ack(want uint8) {
	r.t.Helper()
	if !r.intr {
		r.t.Errorf("INTR low, want vector %#x", want)
	}
	if got := r.Acknowledge(); got != want {
		r.t.Errorf("vector %#x, want %#x", got, want)
	}
}

func (r *rig) idle() {
	r.t.Helper()
	if r.intr {
		r.t.Error("INTR high")
	}
}

// 8259A datasheet, interrupt sequence and fully nested mode.
func TestFullyNestedMode(t *testing.T) {
	r := newRig(t)
	r.pulse(4)
	r.pulse(1)
	r.ack(0x21)
	r.idle() // 4 waits below 1
	r.pulse(0)
	r.ack(0x20)
	if r.isr(0) != 3 {
		t.Errorf("ISR %#x", r.isr(0))
	}
	r.cmd(0, 0x20)
	r.idle()
	r.cmd(0, 0x20)
	r.ack(0x24)
	r.cmd(0, 0x64) // specific EOI 4
	r.idle()
	if r.isr(0) != 0 || r.irr(0) != 0 {
		t.Error("not empty at the end")
	}
}

func TestCascade(t *testing.T) {
	r := newRig(t)
	r.pulse(12)
	r.pulse(8)
	r.ack(0x28)
	if r.isr(0) != 4 || r.isr(1) != 1 {
		t.Errorf("ISR %#x %#x", r.isr(0), r.isr(1))
	}
	r.cmd(1, 0x20)
	r.idle() // the master still serves input 2
	r.cmd(0, 0x20)
	r.ack(0x2c)
}

func TestCascadeWithAutoEOILosesNoRequest(t *testing.T) {
	r := newRig(t)
	for i, base := range []byte{0x20, 0x28} {
		r.cmd(i, 0x11)
		for _, v := range []byte{base, []byte{4, 2}[i], 0x03, 0} {
			r.mask(i, v)
		}
	}
	r.pulse(9)
	r.pulse(14)
	r.ack(0x29)
	r.ack(0x2e)
	r.idle()
}

func TestMaskHoldsRequest(t *testing.T) {
	r := newRig(t)
	r.mask(0, 0xff)
	r.pulse(3)
	r.idle()
	if r.read(0, 1) != 0xff || r.irr(0) != 8 {
		t.Error("mask or request register")
	}
	r.mask(0, 0)
	r.ack(0x23)
}

func TestEdgeNeedsAFallBetween(t *testing.T) {
	r := newRig(t)
	r.Set(5, true)
	r.ack(0x25)
	r.cmd(0, 0x20)
	r.Set(5, true)
	r.idle()
	r.Set(5, false)
	r.Set(5, true)
	r.ack(0x25)
}

func TestELCRLevelTriggered(t *testing.T) {
	r := newRig(t)
	r.ELCR().Write(0, []byte{0xff, 0xff})
	var p [2]byte
	r.ELCR().Read(0, p[:])
	if p != [2]byte{masterELCR, slaveELCR} {
		t.Errorf("ELCR %x", p)
	}
	r.Set(5, true)
	r.ack(0x25)
	r.cmd(0, 0x20)
	r.ack(0x25) // still high
	r.Set(5, false)
	r.cmd(0, 0x20)
	r.idle()
	r.Set(10, true) // a level that goes away unserved leaves no request
	r.Set(10, false)
	r.idle()
}

func TestSpuriousInterrupts(t *testing.T) {
	r := newRig(t)
	if v := r.Acknowledge(); v != 0x27 {
		t.Errorf("vector %#x, want 0x27", v)
	}
	if r.isr(0) != 0 {
		t.Error("a spurious interrupt is in service")
	}
}

func TestRotation(t *testing.T) {
	r := newRig(t)
	r.pulse(2 + 1)
	r.ack(0x23)
	r.cmd(0, 0xa0) // rotate on non-specific EOI: 3 is lowest now
	r.pulse(3)
	r.pulse(4)
	r.ack(0x24)
	r.cmd(0, 0x20)
	r.ack(0x23)
	r.cmd(0, 0x20)
	r.cmd(0, 0xc7) // set priority: 7 lowest, 0 highest
	r.pulse(4)
	r.pulse(0)
	r.ack(0x20)
	r.cmd(0, 0xe0) // rotate on specific EOI
	r.ack(0x24)
}

func TestSpecialMaskMode(t *testing.T) {
	r := newRig(t)
	r.pulse(1)
	r.ack(0x21)
	r.pulse(6)
	r.idle()
	r.cmd(0, 0x68)
	r.mask(0, 1<<1)
	r.ack(0x26)
	r.cmd(0, 0x48)
}

func TestSpecialFullyNestedMode(t *testing.T) {
	r := newRig(t)
	r.cmd(0, 0x11)
	for _, v := range []byte{0x20, 4, 0x11, 0} {
		r.mask(0, v)
	}
	r.pulse(12)
	r.ack(0x2c)
	r.pulse(9)
	r.ack(0x29)
}

func TestPollCommand(t *testing.T) {
	r := newRig(t)
	r.cmd(0, 0x0c)
	if v := r.read(0, 0); v != 0 {
		t.Errorf("poll of nothing: %#x", v)
	}
	r.pulse(6)
	r.cmd(0, 0x0c)
	if v := r.read(0, 0); v != 0x86 {
		t.Errorf("poll: %#x", v)
	}
	if r.isr(0) != 1<<6 {
		t.Error("not in service after poll")
	}
	r.idle()
}

func TestICW1WithoutICW4AndSingle(t *testing.T) {
	r := bare(t)
	r.cmd(0, 0x12) // single, no ICW4
	r.mask(0, 0x47)
	r.mask(0, 0xfe) // OCW1 already
	r.pulse(0)
	r.ack(0x40)
	r.cmd(1, 0x10) // cascaded, no ICW4
	r.mask(1, 0x50)
	r.mask(1, 2)
	r.mask(1, 0xaa)
	if r.read(1, 1) != 0xaa {
		t.Error("OCW1 not reached")
	}
}

func TestStateRoundTripInMidOperation(t *testing.T) {
	r := newRig(t)
	r.pulse(3)
	r.ack(0x23)
	r.pulse(1)
	r.pulse(12)
	s := r.Save()
	n := bare(t)
	if err := n.Load(s); err != nil {
		t.Fatal(err)
	}
	if n.Save() != s {
		t.Errorf("got %+v, want %+v", n.Save(), s)
	}
	n.ack(0x21)
	n.cmd(0, 0x20)
	n.ack(0x2c)
	s[0].InitState = 4
	if n.Load(s) == nil {
		t.Error("impossible state accepted")
	}
}

func TestResetMasksNothingButForgets(t *testing.T) {
	r := newRig(t)
	r.Set(9, true)
	r.Reset()
	r.idle()
	if s := r.Save(); s[1].VectorBase != 0 || s[1].LastIRR != 2 {
		t.Errorf("after reset %+v", s[1])
	}
}

func TestHostileAccessEveryOffsetWidthAndInput(t *testing.T) {
	r := bare(t)
	for _, h := range []interface {
		Read(uint64, []byte)
		Write(uint64, []byte)
	}{r.Master(), r.Slave(), r.ELCR()} {
		for _, width := range []int{1, 2, 4, 8} {
			for off := range uint64(4) {
				for v := range 256 {
					p := bytes.Repeat([]byte{byte(v)}, width)
					h.Write(off, p)
					h.Read(off, p)
					r.Set(uint32(v), v&1 == 0)
					r.Acknowledge()
				}
			}
		}
	}
}
