package virtiotest

import (
	"encoding/binary"
	"testing"

	"berth/virtio"
)

const (
	windowBase = 0xd0000000
	windowGSI  = 17
)

// NewMMIO puts dev into a machine of its own behind a register window. Closing
// is registered with t.
func NewMMIO(t testing.TB, dev virtio.Device, bells virtio.Doorbells) *Driver {
	t.Helper()
	d := newDriver(t)
	transport, err := virtio.NewMMIO(dev, virtio.MMIOConfig{Memory: d.Mem, Base: windowBase, Line: d.GSI.Line(windowGSI), Doorbells: bells})
	if err != nil {
		t.Fatal(err)
	}
	d.registers, d.Dev, d.line = windowRegisters{d}, transport, windowGSI
	if _, err := d.MMIO.Map(windowBase, virtio.MMIOSize, "virtio", transport); err != nil {
		t.Fatal(err)
	}
	return d
}

// ReadWindow reads n bytes of the register window.
func (d *Driver) ReadWindow(off, n int) uint64 {
	var b [8]byte
	d.MMIO.Read(windowBase+uint64(off), b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

// WriteWindow writes n bytes of the register window.
func (d *Driver) WriteWindow(off, n int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	d.MMIO.Write(windowBase+uint64(off), b[:n])
}

// windowRegisters reaches a device by its register window, a word at a time.
type windowRegisters struct{ d *Driver }

func (w windowRegisters) read(off int) uint64     { return w.d.ReadWindow(off, 4) }
func (w windowRegisters) write(off int, v uint64) { w.d.WriteWindow(off, 4, v) }

func (w windowRegisters) status() uint64     { return w.read(0x70) }
func (w windowRegisters) setStatus(v uint64) { w.write(0x70, v) }
func (w windowRegisters) generation() uint64 { return w.read(0xfc) }

func (w windowRegisters) feature(half uint64) uint64 {
	w.write(0x14, half)
	return w.read(0x10)
}

func (w windowRegisters) acceptFeature(half, bits uint64) {
	w.write(0x24, half)
	w.write(0x20, bits)
}

func (w windowRegisters) queueMax(i int) uint64 {
	w.write(0x30, uint64(i))
	return w.read(0x34)
}

func (w windowRegisters) queueReady(i int) bool {
	w.write(0x30, uint64(i))
	return w.read(0x44) == 1
}

func (w windowRegisters) setQueue(r *Ring) {
	w.write(0x30, uint64(r.Index))
	w.write(0x38, uint64(r.Size))
	for i, gpa := range []uint64{r.Desc, r.Avail, r.Used} {
		w.write(0x80+16*i, gpa&0xffffffff)
		w.write(0x84+16*i, gpa>>32)
	}
	r.bell, r.width = w.bell(r.Index)
	w.write(0x44, 1)
}

func (w windowRegisters) bell(int) (uint64, int) { return windowBase + 0x50, 4 }

func (w windowRegisters) takeInterrupt() uint64 {
	v := w.read(0x60)
	w.write(0x64, v)
	return v
}

func (w windowRegisters) config(off, n int) uint64       { return w.d.ReadWindow(0x100+off, n) }
func (w windowRegisters) setConfig(off, n int, v uint64) { w.d.WriteWindow(0x100+off, n, v) }
