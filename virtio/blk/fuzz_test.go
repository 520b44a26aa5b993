package blk

import (
	"bytes"
	"encoding/binary"
	"testing"

	"berth/block/blocktest"
	"berth/virtio"
	"berth/virtio/virtiotest"
)

// FuzzRequest sends one request whose header, cut and data are the input's:
// every byte of cut is the length of a buffer, its top bit the direction. The
// chain comes back with a status, and a refused request leaves the disk alone.
func FuzzRequest(f *testing.F) {
	f.Add(uint32(typeIn), uint64(0), []byte{16, 0xff, 0xff, 0xff, 0xff, 0x85})
	f.Add(uint32(typeOut), uint64(3), []byte{8, 8, 127, 127, 127, 127, 4, 0x81})
	f.Add(uint32(typeGetID), uint64(0), []byte{16, 0x94, 0x81})
	f.Add(uint32(typeFlush), uint64(0), []byte{1, 15, 0x80, 0x81})
	f.Add(uint32(typeOut), uint64(1<<63), []byte{16, 0x81})
	f.Fuzz(func(t *testing.T, kind uint32, sector uint64, cut []byte) {
		mem := blocktest.NewMem(8 << 10)
		r := newRig(t, mem, Config{Serial: "fuzz"}, featureFlush|virtio.FeatureIndirect)
		header := binary.LittleEndian.AppendUint64(nil, uint64(kind))
		header = binary.LittleEndian.AppendUint64(header, sector)
		r.put(dataAt, append(header, bytes.Repeat([]byte{0x77}, 1<<12)...))
		readable, writable, ds := 0, 0, []virtiotest.Desc(nil)
		for _, dir := range []byte{0, 0x80} {
			for _, c := range cut[:min(len(cut), 15)] {
				n := uint32(c & 0x7f)
				switch {
				case c&0x80 != dir:
				case dir == 0:
					ds = append(ds, out(dataAt+uint64(readable), n))
					readable += int(n)
				default:
					ds = append(ds, in(dataAt+0x10000+uint64(writable), n))
					writable += int(n)
				}
			}
		}
		if len(ds) == 0 {
			return
		}
		last := dataAt + 0x10000 + uint64(max(writable, 1)) - 1
		r.put(last, []byte{0xee})
		r.ring.Send(ds...)
		if _, n := r.ring.Wait(); int(n) > writable {
			t.Errorf("length %d of %d", n, writable)
		}
		status := r.get(last, 1)[0]
		if writable > 0 && status > statusUnsupported {
			t.Errorf("status %d", status)
		}
		if (status != statusOK || kind != typeOut) && !bytes.Equal(mem.Bytes(), make([]byte, 8<<10)) {
			t.Error("the disk changed")
		}
		if r.Status() != 15 {
			t.Errorf("device status 0x%x", r.Status())
		}
	})
}
