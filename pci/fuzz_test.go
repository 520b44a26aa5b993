package pci

import (
	"encoding/binary"
	"testing"
)

// FuzzConfigSpace plays a history of configuration, BAR and interrupt accesses.
// Eight bytes make a step: what, width, offset 2, value 4. Nothing may panic;
// RAM, ECAM and the chipset's addresses stay out of reach of BARs; the state
// can be saved and loaded at the end.
func FuzzConfigSpace(f *testing.F) {
	step := func(what, width byte, off uint16, v uint32) []byte {
		b := binary.LittleEndian.AppendUint16([]byte{what, width}, off)
		return binary.LittleEndian.AppendUint32(b, v)
	}
	var seed []byte
	for _, s := range [][]byte{
		step(0, 2, 0x10, 0xffffffff), step(0, 2, 0x18, 0xc0001000), step(0, 2, 0x14, 0xc0002000), step(0, 1, 4, 7),
		step(4, 2, 0x0c, 0), step(0, 1, 0x42, 0x8000), step(5, 0, 1, 1), step(4, 3, 0, 0xfee00000),
		step(0, 2, 0x20, 0xfffffff0), step(0, 2, 0x24, 0xffffffff), step(2, 2, 0, 0x80001810), step(3, 2, 0, 0xb0000000),
		step(1, 2, 0x60, 0x0a0b0c0d), step(6, 0, 0, 1), step(7, 0, 0, 0),
		step(7, 0, 0, 1), step(8, 1, 0xe004, 6), step(8, 1, 0x0004, 6), step(7, 0, 0, 2), step(7, 0, 0, 3),
	} {
		seed = append(seed, s...)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, history []byte) {
		if len(history) > 4096 {
			return
		}
		r, ports := portRig(t)
		fn, _ := r.add(3)
		r.add(4)
		for ; len(history) >= 8; history = history[8:] {
			r.fuzzStep(fn, ports[0], history[0], history[1]&3, binary.LittleEndian.Uint16(history[2:]), binary.LittleEndian.Uint32(history[4:]))
		}
		r.checkWindows()
		s := r.Save()
		q, theirs := portRig(t)
		q.add(3)
		q.add(4)
		if ports[0].Device() != nil {
			g, _ := endpoint(t)
			if err := theirs[0].Plug(g); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Load(s); err != nil {
			t.Fatal(err)
		}
		if !equal(s, q.Save()) {
			t.Fatal("state does not survive")
		}
	})
}

func (r *rig) fuzzStep(fn *Function, port *Port, what, width byte, off uint16, v uint32) {
	n := 1 << width
	switch what % 9 {
	case 0:
		r.write(3<<3|uint8(off>>15)<<3, int(off&0xfff), n, uint64(v)<<32|uint64(v))
	case 1:
		r.write(0xf8, int(off&0x1ff), n, uint64(v))
	case 2:
		poke(r.ports, 0xcf8+uint64(off&7), n, uint64(v))
		peek(r.ports, 0xcfc+uint64(off&3), n)
	case 3:
		poke(r.mmio, uint64(v), n, uint64(off))
		peek(r.mmio, uint64(v), n)
	case 4:
		poke(r.mmio, fn.base(1)+uint64(off&0xfff), n, uint64(v))
		peek(r.mmio, fn.base(1)+uint64(off&0xfff), n)
	case 5:
		fn.msix.Trigger(int(off))
	case 6:
		fn.SetINTx(v&1 != 0)
	case 7:
		switch v % 16 {
		case 0:
			r.Reset()
		case 1:
			_ = r.AssignResources()
		case 2:
			f, _ := endpoint(r.t)
			_ = port.Plug(f)
		case 3:
			if f := port.Unplug(); f != nil {
				_ = f.Close()
			}
		}
	case 8: // the port or, with the highest bits clear, what is behind it
		if off>>12 != 0 {
			r.write(Devfn(0x1c, 0), int(off&0xff), n, uint64(v)<<32|uint64(v))
		} else {
			r.writeBus(port.Bus(), int(off&0xfff), n, uint64(v)<<32|uint64(v))
		}
	}
}

// checkWindows fails if a BAR decodes where none may.
func (r *rig) checkWindows() {
	for _, w := range r.mmio.Windows() {
		last := w.Base + w.Size - 1
		if w.Name == "pci ecam" {
			continue
		}
		if w.Base < ramSize || (w.Base < chipsetEnd && last >= chipsetBase) || (w.Base < ECAMBase+ECAMSize && last >= ECAMBase) {
			r.t.Fatalf("%s decodes at 0x%x+0x%x", w.Name, w.Base, w.Size)
		}
	}
}
