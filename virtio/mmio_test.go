package virtio_test

import (
	"encoding/binary"
	"testing"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

func TestPCIConformance(t *testing.T)  { virtiotest.Conformance(t, virtiotest.New) }
func TestMMIOConformance(t *testing.T) { virtiotest.Conformance(t, virtiotest.NewMMIO) }

func Test_4_2_2_Identity(t *testing.T) {
	d := virtiotest.NewMMIO(t, virtiotest.NewEcho(), nil)
	for off, want := range map[int]uint64{0: 0x74726976, 4: 2, 8: 63, 12: 0x48545242} {
		if v := d.ReadWindow(off, 4); v != want {
			t.Errorf("register 0x%x reads 0x%x, want 0x%x", off, v, want)
		}
	}
}

func Test_4_2_2_2_ControlRegistersAreWords(t *testing.T) {
	d := virtiotest.NewMMIO(t, virtiotest.NewEcho(), nil)
	d.SetStatus(3)
	for _, n := range []int{1, 2, 8} {
		if v := d.ReadWindow(0x70, n); v != 0 {
			t.Errorf("status reads 0x%x with %d bytes", v, n)
		}
		if d.WriteWindow(0x70, n, 0); d.Status() != 3 {
			t.Errorf("a write of %d bytes reset the device", n)
		}
	}
	if v := d.ReadWindow(0x71, 4); v != 0 {
		t.Errorf("status reads 0x%x one byte on", v)
	}
	for off := 0; off < 0x100; off += 4 { // write-only registers, and what is none
		switch off {
		case 0, 4, 8, 0xc, 0x10, 0x34, 0x70:
		case 0xb0, 0xb4, 0xb8, 0xbc:
			if v := d.ReadWindow(off, 4); v != 0xffffffff {
				t.Errorf("shared memory that is not there: register 0x%x reads 0x%x", off, v)
			}
		default:
			if v := d.ReadWindow(off, 4); v != 0 {
				t.Errorf("register 0x%x reads 0x%x", off, v)
			}
		}
	}
	if v := d.ReadWindow(0x34, 4); v != 256 {
		t.Errorf("QueueNumMax %d", v)
	}
}

func Test_4_2_2_2_QueueReadyZeroStopsAQueue(t *testing.T) {
	e := virtiotest.NewEcho()
	e.Queues = []uint16{8, 8}
	d := virtiotest.NewMMIO(t, e, nil)
	d.Negotiate(virtio.FeatureVersion1)
	a, b := d.AddQueue(0, 8), d.AddQueue(1, 8)
	d.SetStatus(15)
	d.Healthy(a)
	d.WriteWindow(0x30, 4, 0)
	d.WriteWindow(0x44, 4, 0)
	if v := d.ReadWindow(0x44, 4); v != 0 {
		t.Errorf("QueueReady reads %d", v)
	}
	used := a.UsedIdx()
	a.Send(virtiotest.Out(0x1000, 1))
	d.Healthy(b)
	if a.UsedIdx() != used {
		t.Error("a queue that is not ready is served")
	}
	d.WriteWindow(0x44, 4, 1)
	if v := d.ReadWindow(0x44, 4); v != 0 {
		t.Error("a queue came back without a reset of the device")
	}
	d.Healthy(d.Begin(0, 8))
}

func Test_4_2_2_InterruptsAreAcknowledgedOneByOne(t *testing.T) {
	d := virtiotest.NewMMIO(t, virtiotest.NewEcho(), nil)
	r := d.Begin(0, 8)
	r.Send(virtiotest.Out(0x1000, 1))
	r.Wait()
	d.Wait("an interrupt", d.Interrupted)
	d.Dev.ConfigChanged()
	if v := d.ReadWindow(0x60, 4); v != 3 {
		t.Errorf("InterruptStatus %d", v)
	}
	d.WriteWindow(0x64, 4, 1)
	if v := d.ReadWindow(0x60, 4); v != 2 || !d.Interrupted() {
		t.Errorf("InterruptStatus %d, line %v after one acknowledgement", v, d.Interrupted())
	}
	d.WriteWindow(0x64, 4, 0xfffffffc)
	if v := d.ReadWindow(0x60, 4); v != 2 {
		t.Errorf("InterruptStatus %d after acknowledging what was not asked", v)
	}
	if d.WriteWindow(0x64, 4, 2); d.Interrupted() {
		t.Error("the line is high with nothing pending")
	}
}

func TestNotifyOfNoQueue(t *testing.T) {
	d := virtiotest.NewMMIO(t, virtiotest.NewEcho(), nil)
	r := d.Begin(0, 8)
	for _, v := range []uint64{1, 256, 0x80000000, 0xffffffff} {
		d.WriteWindow(0x50, 4, v)
	}
	d.Healthy(r)
}

func TestMMIODoorbellsRefused(t *testing.T) {
	d := virtiotest.NewMMIO(t, virtiotest.NewEcho(), &virtiotest.Bells{})
	d.Healthy(d.Begin(0, 8)) // by register writes
}

// FuzzMMIORegisters plays a history of register accesses with rings at work.
// Seven bytes make a step: kind and width, offset 2, value 4. Nothing may panic
// or hang, the state can be saved and loaded, and a reset mends everything.
func FuzzMMIORegisters(f *testing.F) {
	step := func(kind, width byte, off uint16, v uint32) []byte {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16([]byte{kind | width<<4}, off), v)
	}
	var seed []byte
	for _, s := range [][]byte{
		step(1, 2, 0x70, 0), step(1, 2, 0x70, 3), step(1, 2, 0x24, 1), step(1, 2, 0x20, 1), step(1, 2, 0x70, 11),
		step(1, 2, 0x38, 8), step(1, 2, 0x80, 0x1000), step(1, 2, 0x90, 0x2000), step(1, 2, 0xa0, 0x3000),
		step(1, 2, 0x44, 1), step(1, 2, 0x70, 15), step(2, 0, 0, 0x00010000), step(1, 2, 0x50, 0), step(0, 2, 0x60, 0),
		step(1, 2, 0x64, 1), step(3, 0, 0, 1), step(0, 2, 0xfc, 0), step(1, 3, 0x100, 7), step(1, 2, 0x44, 0),
	} {
		seed = append(seed, s...)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, history []byte) {
		if len(history) > 1400 {
			return
		}
		e := virtiotest.NewEcho()
		e.Queues = []uint16{256, 8}
		d := virtiotest.NewMMIO(t, e, nil)
		for ; len(history) >= 7; history = history[7:] {
			off, v := binary.LittleEndian.Uint16(history[1:]), binary.LittleEndian.Uint32(history[3:])
			n := 1 << (history[0] >> 4 & 3)
			switch history[0] & 3 {
			case 0:
				d.ReadWindow(int(off)%(virtio.MMIOSize-7), n)
			case 1:
				d.WriteWindow(int(off)%(virtio.MMIOSize-7), n, uint64(v)<<32|uint64(v))
			case 2: // a word of memory, where the seed has its rings
				d.Put(0x1000+uint64(off)*2&0x3ffe, binary.LittleEndian.AppendUint32(nil, v))
			case 3:
				d.Dev.Pause()
				if v&1 != 0 {
					d.Dev.ConfigChanged()
				}
				d.Dev.Resume()
			}
		}
		d.Dev.Pause()
		if err := d.Dev.Load(d.Dev.Save()); err != nil {
			t.Fatal(err)
		}
		d.Dev.Resume()
		d.Healthy(d.Begin(virtio.FeatureEventIdx, 8))
	})
}
