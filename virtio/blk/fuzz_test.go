package blk

import (
	"bytes"
	"encoding/binary"
	"testing"

	"berth/block"
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
	f.Add(uint32(typeDiscard), uint64(0), []byte{16, 16, 0x81})
	f.Add(uint32(typeWriteZeroes), uint64(0), []byte{16, 15, 17, 0x81})
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

// FuzzZeroing sends one discard or write-zeroes request whose segments, and the
// length of the first buffer, are the input's. What the device accepts is what
// §5.2.6.2 allows, it does exactly that, and what it refuses leaves the disk alone.
func FuzzZeroing(f *testing.F) {
	f.Add(false, byte(16), segments(segment{1, 2, 0}))
	f.Add(true, byte(7), segments(segment{1, 2, flagUnmap}, segment{15, 1, 0}))
	f.Add(true, byte(0), segments(segment{16, 1, 0}))
	f.Add(false, byte(40), segments(segment{0, 1, flagUnmap}))
	f.Add(true, byte(40), segments(segment{1<<64 - 1, 1<<32 - 1, 0}))
	f.Fuzz(func(t *testing.T, zero bool, cut byte, body []byte) {
		body = body[:min(len(body), 1024)]
		mem := blocktest.NewMem(8 << 10)
		model := pattern(8 << 10)
		if _, err := block.WriteAt(mem, model, 0); err != nil {
			t.Fatal(err)
		}
		kind := uint32(typeDiscard)
		if zero {
			kind = typeWriteZeroes
		}
		want := judge(zero, body, model)
		r := newRig(t, mem, Config{Discard: true}, featureFlush|featureDiscard|featureWriteZeroes)
		r.put(dataAt, body)
		first := min(int(cut), len(body))
		s, _ := r.do(kind, 0, out(dataAt, uint32(first)), out(dataAt+uint64(first), uint32(len(body)-first)))
		if s != want || !bytes.Equal(mem.Bytes(), model) || r.Status() != 15 {
			t.Errorf("status %d, want %d; device status 0x%x", s, want, r.Status())
		}
	})
}

// judge is the request as a reader of the specification would do it to model.
func judge(zero bool, body, model []byte) (status byte) {
	if len(body) == 0 || len(body)%16 != 0 || len(body) > 16*maxZeroSegments {
		return statusIOErr
	}
	sectors := uint64(len(model)) / 512
	for b := body; len(b) > 0; b = b[16:] {
		sector, n, flags := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
		if flags > 1 || flags == 1 && !zero {
			return statusUnsupported
		}
		if sector > sectors || uint64(n) > sectors-sector {
			return statusIOErr
		}
	}
	for b := body; len(b) > 0; b = b[16:] {
		sector, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:])
		clear(model[sector*512:][:n*512])
	}
	return statusOK
}
