package virtio_test

import (
	"encoding/binary"
	"testing"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

// FuzzVirtqueue lets the input be the rings: 8 entries, each with a descriptor,
// an indirect table, and the heads and index that the driver publishes. The
// device must answer every chain that it takes, or ask for a reset, and never
// touch memory that no writable descriptor names.
func FuzzVirtqueue(f *testing.F) {
	desc := func(ds ...virtiotest.Desc) (b []byte) {
		for _, d := range ds {
			b = append(b, d.Bytes()...)
		}
		return append(b, make([]byte, 16*16-len(b))...)
	}
	type D = virtiotest.Desc
	d := func(addr uint64, n uint32, flags, next uint16) D {
		return D{Addr: addr, Len: n, Flags: flags, Next: next}
	}
	f.Add(byte(3), uint16(1), []byte{0}, desc(d(0x1000, 8, 1, 1), d(0x2000, 8, 2, 0)))
	f.Add(byte(3), uint16(2), []byte{0, 0}, desc(d(0x8000+128, 32, 4, 0), D{}, D{}, D{}, D{}, D{}, D{}, D{}, d(0x1000, 4, 1, 1), d(0x2000, 4, 2, 0)))
	f.Add(byte(0), uint16(1), []byte{0}, desc(d(0x1000, 8, 1, 0)))
	f.Add(byte(1), uint16(9), []byte{0, 1, 2, 3, 4, 5, 6, 7}, desc(d(0x1000, 1<<32-1, 2, 0)))
	f.Add(byte(2), uint16(1), []byte{9}, desc())
	f.Fuzz(func(t *testing.T, features byte, idx uint16, heads, tables []byte) {
		e := virtiotest.NewEcho()
		d := virtiotest.New(t, e, nil)
		var accept uint64
		if features&1 != 0 {
			accept |= virtio.FeatureIndirect
		}
		if features&2 != 0 {
			accept |= virtio.FeatureEventIdx
		}
		r := d.Begin(accept, 8)
		guard := binary.LittleEndian.AppendUint64(nil, 0x5aa5_c33c_0ff0_9669)
		d.Put(0x3000, guard)
		named := layOut(t, d, r, tables)
		for i, h := range heads {
			if i < 8 {
				d.Put(r.Avail+4+2*uint64(i), []byte{h, 0})
			}
		}
		r.SetAvailIdx(idx)
		r.Kick()
		if !named { // a device that is told to overwrite its own rings may go anywhere
			d.Wait("an end", func() bool {
				return r.UsedIdx() == idx || d.Status()&virtio.StatusNeedsReset != 0
			})
		}
		d.Dev.Pause()
		if !named && d.Get(0x3000, 8) != string(guard) {
			t.Fatal("memory that the driver did not offer was written")
		}
		if n := r.UsedIdx(); n > 8 && !named {
			t.Fatalf("%d chains used of 8", n)
		}
	})
}

// layOut puts the fuzzed tables at the ring and at 0x8000. It reports whether a
// descriptor could name the guard or the rings.
func layOut(t *testing.T, d *virtiotest.Driver, r *virtiotest.Ring, tables []byte) (named bool) {
	tables = append(tables, make([]byte, 256)...)[:256]
	for i := 0; i < 256; i += 16 {
		addr, n := binary.LittleEndian.Uint64(tables[i:]), uint64(binary.LittleEndian.Uint32(tables[i+8:]))
		for _, x := range [][2]uint64{{0x3000, 8}, {r.Desc, 0x8000}, {0x8000, 256}} {
			named = named || (addr < x[0]+x[1] && addr+n > x[0]) || addr+n < addr
		}
		// A table may stand anywhere, so its bytes may be read as descriptors at any offset.
		named = named || tables[i+12]&4 != 0 && addr != 0x8000+128
	}
	d.Put(r.Desc, tables[:128])
	d.Put(0x8000, tables)
	return named
}
