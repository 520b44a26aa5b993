package ioapic

import (
	"bytes"
	"encoding/binary"
	"testing"

	"berth/irq"
)

type rig struct {
	*IOAPIC
	t    *testing.T
	sent []irq.MSI
}

func newRig(t *testing.T, version uint8) *rig {
	r := &rig{t: t}
	r.IOAPIC = New(version, func(m irq.MSI) { r.sent = append(r.sent, m) })
	return r
}

func (r *rig) reg(n uint32) uint32 {
	r.Write(regSelect, []byte{byte(n), 0, 0, 0})
	var p [4]byte
	r.Read(regWindow, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

func (r *rig) setReg(n, v uint32) {
	r.Write(regSelect, []byte{byte(n), 0, 0, 0})
	r.Write(regWindow, binary.LittleEndian.AppendUint32(nil, v))
}

func (r *rig) entry(pin uint32, v uint64) {
	r.setReg(0x11+2*pin, uint32(v>>32))
	r.setReg(0x10+2*pin, uint32(v))
}

func (r *rig) wantSent(n int) {
	r.t.Helper()
	if len(r.sent) != n {
		r.t.Errorf("%d messages, want %d", len(r.sent), n)
	}
	r.sent = nil
}

// 82093AA §3.2.1, §3.2.2.
func TestIDAndVersionRegisters(t *testing.T) {
	r := newRig(t, Version20)
	r.setReg(0, 0xffffffff)
	if v := r.reg(0); v != 0x0f000000 {
		t.Errorf("ID %#x", v)
	}
	r.setReg(1, 0)
	if v := r.reg(1); v != 0x00170020 {
		t.Errorf("version %#x", v)
	}
	if v := newRig(t, Version11).reg(1); v != 0x00170011 {
		t.Errorf("version %#x", v)
	}
	if v := r.reg(0x10); v != entryMasked {
		t.Errorf("entry 0 %#x at reset", v)
	}
}

func TestEdgeMessage(t *testing.T) {
	r := newRig(t, Version20)
	r.entry(4, 0x03<<56|1<<11|1<<8|0x41) // lowest priority, logical
	r.Set(4, true)
	r.Set(4, true)
	if len(r.sent) != 1 {
		t.Fatalf("%d messages", len(r.sent))
	}
	m := r.sent[0]
	if m.Dest() != 3 || !m.Logical() || m.Vector() != 0x41 || m.DeliveryMode() != 1 || m.LevelTriggered() {
		t.Errorf("message %+v", m)
	}
	r.Set(4, false)
	r.Set(4, true)
	r.wantSent(2)
	if r.reg(0x18)&entryRemoteIRR != 0 {
		t.Error("remote IRR on an edge")
	}
}

func TestMaskedEdgeIsLost(t *testing.T) {
	r := newRig(t, Version20)
	r.entry(4, entryMasked|0x41)
	r.Set(4, true)
	r.entry(4, 0x41)
	r.wantSent(0)
}

// 82093AA §3.2.4, remote IRR.
func TestLevelWaitsForEOI(t *testing.T) {
	r := newRig(t, Version20)
	r.entry(17, entryLevel|0x51)
	r.Set(17, true)
	if len(r.sent) != 1 || !r.sent[0].LevelTriggered() {
		t.Fatalf("sent %+v", r.sent)
	}
	if r.reg(0x10+34)&entryRemoteIRR == 0 {
		t.Error("remote IRR not set")
	}
	r.Set(17, false)
	r.Set(17, true)
	r.wantSent(1) // still in service
	r.EOI(0x50)
	r.wantSent(0)
	r.EOI(0x51)
	r.wantSent(1) // still high: again
	r.Set(17, false)
	r.EOI(0x51)
	r.wantSent(0)
	if r.reg(0x10+34)&entryRemoteIRR != 0 {
		t.Error("remote IRR still set")
	}
}

func TestUnmaskingAHighLevelSends(t *testing.T) {
	r := newRig(t, Version20)
	r.entry(17, entryLevel|entryMasked|0x51)
	r.Set(17, true)
	r.wantSent(0)
	r.entry(17, entryLevel|0x51)
	r.wantSent(1)
	r.entry(17, entryLevel|entryMasked|0x51)
	r.EOI(0x51)
	r.wantSent(0) // masked by then
	r.entry(17, entryLevel|0x51)
	r.wantSent(1)
}

func TestReadOnlyBitsAndReservedBits(t *testing.T) {
	r := newRig(t, Version20)
	r.entry(3, ^uint64(0))
	if lo, hi := r.reg(0x16), r.reg(0x17); lo != 0x1ffff&^entryReadOnly || hi != 0xff000000 {
		t.Errorf("entry %#x %#x", hi, lo)
	}
}

// Linux ends level interrupts on version 0x11 by masking with edge and back.
func TestEdgeAndBackClearsRemoteIRR(t *testing.T) {
	r := newRig(t, Version11)
	r.entry(9, entryLevel|0x51)
	r.Set(9, true)
	r.wantSent(1)
	r.setReg(0x10+18, entryMasked|0x51)
	r.setReg(0x10+18, entryLevel|0x51)
	r.wantSent(1)
}

func TestEOIRegisterOnlyInVersion20(t *testing.T) {
	for _, version := range []uint8{Version11, Version20} {
		r := newRig(t, version)
		r.entry(9, entryLevel|0x51)
		r.Set(9, true)
		r.Write(regEOI, []byte{0x51, 0, 0, 0})
		want := 1
		if version == Version20 {
			want = 2
		}
		r.wantSent(want)
	}
}

func TestStateRoundTripInMidOperation(t *testing.T) {
	r := newRig(t, Version20)
	r.entry(9, entryLevel|0x51)
	r.entry(4, 0x41)
	r.Set(9, true)
	r.Set(4, true)
	s := r.Save()
	n := newRig(t, Version20)
	if err := n.Load(s); err != nil {
		t.Fatal(err)
	}
	if n.Save() != s {
		t.Errorf("got %+v, want %+v", n.Save(), s)
	}
	n.wantSent(0)
	n.Set(4, true) // was high
	n.wantSent(0)
	n.EOI(0x51)
	n.wantSent(1)
	for _, bad := range []irq.IOAPICState{{Select: 0x100}, {ID: 16}, {IRR: 1 << 24}} {
		if n.Load(bad) == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

func TestResetMasks(t *testing.T) {
	r := newRig(t, Version20)
	r.entry(9, entryLevel|0x51)
	r.Reset()
	r.Set(9, true)
	r.Set(99, true)
	r.wantSent(0)
}

func TestHostileAccessEveryOffsetAndWidth(t *testing.T) {
	r := newRig(t, Version20)
	for sel := range 256 {
		for _, width := range []int{1, 2, 4, 8} {
			for _, off := range []uint64{0, 1, 4, 8, 0x10, 0x11, 0x13, 0x20, 0x40, 0x41, 0x44, 0x100, Size - 8} {
				r.Write(regSelect, []byte{byte(sel)})
				p := bytes.Repeat([]byte{0xff}, width)
				r.Write(off, p)
				r.Read(off, p)
			}
		}
	}
	if v := r.reg(0xff); v != 0 {
		t.Errorf("register 0xff reads %#x", v)
	}
}
