package blk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/virtio"
	"berth/virtio/virtiotest"
)

// watched notes the requests that reach a disk.
type watched struct {
	block.Disk
	topology block.Topology

	mu   sync.Mutex
	seen []block.Request
}

func (w *watched) Topology() block.Topology { return w.topology }

func (w *watched) Submit(r *block.Request) {
	w.mu.Lock()
	w.seen = append(w.seen, *r)
	w.mu.Unlock()
	w.Disk.Submit(r)
}

func (w *watched) take() []block.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.seen
	w.seen = nil
	return s
}

func segments(ss ...segment) (b []byte) {
	for _, s := range ss {
		b = binary.LittleEndian.AppendUint64(b, s.sector)
		b = binary.LittleEndian.AppendUint32(b, s.count)
		b = binary.LittleEndian.AppendUint32(b, s.flags)
	}
	return b
}

func Test_5_2_4_TopologyAndLimits(t *testing.T) {
	mem := blocktest.NewMem(10 << 20)
	w := &watched{Disk: mem, topology: block.Topology{Logical: 4096, Physical: 4096, MinIO: 8192, OptIO: 1 << 20}}
	r := newRig(t, w, Config{Queues: 4, Discard: true}, featureFlush)
	for _, c := range []struct {
		name   string
		off, n int
		want   uint64
	}{
		{"blk_size", 20, 4, 512}, {"physical_block_exp", 24, 1, 3}, {"min_io_size", 26, 2, 16}, {"opt_io_size", 28, 4, 2048},
		{"writeback", 32, 1, 1}, {"num_queues", 34, 2, 4},
		{"max_discard_sectors", 36, 4, maxZeroSectors}, {"max_discard_seg", 40, 4, maxZeroSegments}, {"discard_sector_alignment", 44, 4, 8},
		{"max_write_zeroes_sectors", 48, 4, maxZeroSectors}, {"max_write_zeroes_seg", 52, 4, maxZeroSegments}, {"write_zeroes_may_unmap", 56, 1, 1},
	} {
		if n := r.DeviceConfig(c.off, c.n); n != c.want {
			t.Errorf("%s = %d, want %d", c.name, n, c.want)
		}
	}
	if want := featureMultiQueue | featureDiscard | featureWriteZeroes; r.Offered()&want != want {
		t.Errorf("features 0x%x", r.Offered())
	}
	r = newRig(t, mem, Config{}, 0)
	if n := r.DeviceConfig(56, 1); n != 0 {
		t.Error("write_zeroes_may_unmap on a disk that gives nothing back")
	}
	if r.Offered()&featureMultiQueue != 0 {
		t.Error("MQ with one queue")
	}
	if _, err := New(mem, Config{Queues: MaxQueues + 1}); err == nil {
		t.Error("too many queues were accepted")
	}
}

func Test_5_2_6_WriteZeroesAndDiscard(t *testing.T) {
	mem := blocktest.NewMem(64 << 10)
	w := &watched{Disk: mem}
	r := newRig(t, w, Config{Discard: true}, featureFlush|featureWriteZeroes|featureDiscard|allRings)
	p := pattern(64 << 10)
	if _, err := block.WriteAt(mem, p, 0); err != nil {
		t.Fatal(err)
	}
	r.put(dataAt, segments(segment{3, 5, flagUnmap}, segment{127, 1, 0}, segment{128, 0, 0}))
	// cut in the middle of a segment
	if s, n := r.do(typeWriteZeroes, 99, out(dataAt, 20), out(dataAt+20, 28)); s != statusOK || n != 1 {
		t.Errorf("write zeroes: status %d, length %d", s, n)
	}
	clear(p[3*512 : 8*512])
	clear(p[127*512:])
	if !bytes.Equal(mem.Bytes(), p) {
		t.Error("the wrong sectors were zeroed")
	}
	if s := w.take(); len(s) != 3 || s[0].Flags != block.FlagUnmap || s[1].Flags != 0 || s[0].Off != 3*512 || s[0].Len != 5*512 {
		t.Errorf("the disk got %+v", s)
	}
	r.put(dataAt, segments(segment{10, 2, 0}))
	if s, _ := r.do(typeDiscard, 0, out(dataAt, 16)); s != statusOK {
		t.Errorf("discard: status %d", s)
	}
	if s := w.take(); len(s) != 1 || s[0].Op != block.OpDiscard || s[0].Off != 5120 || s[0].Len != 1024 || s[0].Flags != 0 {
		t.Errorf("the disk got %+v", s)
	}
	// As many segments as there may be, in a disk that completes in Submit.
	r.put(dataAt, segments(make([]segment, maxZeroSegments)...))
	if s, _ := r.do(typeDiscard, 0, out(dataAt, maxZeroSegments*segmentSize)); s != statusOK || len(w.take()) != maxZeroSegments {
		t.Errorf("most segments: status %d", s)
	}
}

func Test_5_2_6_2_RefusedSegments(t *testing.T) {
	mem := blocktest.NewMem(64 << 10)
	w := &watched{Disk: mem}
	r := newRig(t, w, Config{Discard: true}, featureDiscard|featureWriteZeroes)
	good := segment{0, 1, 0}
	for _, c := range []struct {
		name string
		kind uint32
		body []byte
		want byte
	}{
		{"none", typeDiscard, nil, statusIOErr},
		{"half of one", typeWriteZeroes, segments(good)[:8], statusIOErr},
		{"one and a half", typeDiscard, segments(good, good)[:24], statusIOErr},
		{"one too many", typeWriteZeroes, segments(make([]segment, maxZeroSegments+1)...), statusIOErr},
		{"past the end", typeDiscard, segments(segment{128, 1, 0}), statusIOErr},
		{"across the end", typeWriteZeroes, segments(segment{127, 2, 0}), statusIOErr},
		{"sector that overflows", typeWriteZeroes, segments(segment{1<<64 - 1, 2, 0}), statusIOErr},
		{"sector times 512 overflows", typeDiscard, segments(segment{1 << 55, 1, 0}), statusIOErr},
		{"too long", typeDiscard, segments(segment{0, maxZeroSectors + 1, 0}), statusIOErr},
		{"longest", typeWriteZeroes, segments(segment{0, 1<<32 - 1, 0}), statusIOErr},
		{"unknown flag", typeWriteZeroes, segments(segment{0, 1, 2}), statusUnsupported},
		{"all flags", typeDiscard, segments(segment{0, 1, 1<<32 - 1}), statusUnsupported},
		{"discard with unmap", typeDiscard, segments(segment{0, 1, flagUnmap}), statusUnsupported},
		{"the second is bad", typeWriteZeroes, segments(good, segment{999, 1, 0}), statusIOErr},
	} {
		r.put(dataAt, c.body)
		if s, _ := r.do(c.kind, 0, out(dataAt, uint32(len(c.body)))); s != c.want {
			t.Errorf("%s: status %d, want %d", c.name, s, c.want)
		}
		if s := w.take(); len(s) != 0 {
			t.Errorf("%s: the disk got %+v", c.name, s)
		}
	}
	r = newRig(t, w, Config{ReadOnly: true}, 0)
	r.put(dataAt, segments(good))
	for _, kind := range []uint32{typeDiscard, typeWriteZeroes} {
		if s, _ := r.do(kind, 0, out(dataAt, 16)); s != statusIOErr || len(w.take()) != 0 {
			t.Errorf("type %d on a read-only disk: status %d", kind, s)
		}
	}
	if r.Offered()&(featureDiscard|featureWriteZeroes) != 0 {
		t.Error("a read-only disk offers to zero")
	}
}

func TestAFailingSegmentEndsTheRequest(t *testing.T) {
	var calls atomic.Int32
	disk := &blocktest.Faulty{Disk: blocktest.NewMem(64 << 10), Fail: func(q *block.Request) error {
		if calls.Add(1); q.Off == 512 {
			return errors.New("medium error")
		}
		return nil
	}}
	r := newRig(t, disk, Config{}, featureWriteZeroes|featureFlush)
	r.put(dataAt, segments(segment{0, 1, 0}, segment{1, 1, 0}, segment{2, 1, 0}))
	if s, _ := r.do(typeWriteZeroes, 0, out(dataAt, 48)); s != statusIOErr || calls.Load() != 2 {
		t.Errorf("status %d after %d calls", s, calls.Load())
	}
	r.put(dataAt, segments(segment{3, 1, 0}))
	if s, _ := r.do(typeWriteZeroes, 0, out(dataAt, 16)); s != statusOK || calls.Load() != 3 {
		t.Errorf("afterwards: status %d after %d calls", s, calls.Load())
	}
}

// §5.2.5: the driver turns the write cache off and on again.
func Test_5_2_5_Writeback(t *testing.T) {
	mem := blocktest.NewMem(64 << 10)
	r := newRig(t, mem, Config{}, featureFlush|featureConfigWCE|featureWriteZeroes)
	writes := func() int {
		t.Helper()
		before := mem.Synced()
		r.put(dataAt, segments(segment{1, 1, 0}))
		if s, _ := r.do(typeOut, 0, out(dataAt, 512)); s != statusOK {
			t.Errorf("status %d", s)
		}
		if s, _ := r.do(typeWriteZeroes, 0, out(dataAt, 16)); s != statusOK {
			t.Errorf("status %d", s)
		}
		return mem.Synced() - before
	}
	if n := writes(); n != 0 {
		t.Errorf("writeback: %d syncs", n)
	}
	r.SetDeviceConfig(writebackOff, 1, 0)
	if n := mem.Synced(); n != 1 || r.DeviceConfig(writebackOff, 1) != 0 {
		t.Errorf("turning it off: %d syncs", n)
	}
	if n := writes(); n != 2 {
		t.Errorf("writethrough: %d syncs", n)
	}
	own := r.dev.Save()
	r.SetDeviceConfig(writebackOff, 1, 1)
	if n := writes(); n != 0 || r.DeviceConfig(writebackOff, 1) != 1 {
		t.Errorf("writeback again: %d syncs", n)
	}
	r.SetDeviceConfig(writebackOff+1, 1, 0)
	r.SetDeviceConfig(writebackOff, 4, 0)
	if n := writes(); n != 0 {
		t.Error("another write than that of the field was heard")
	}
	if err := r.dev.Load(own); err != nil || r.DeviceConfig(writebackOff, 1) != 0 {
		t.Errorf("loading it off: %v", err)
	}
	if r.Begin(featureFlush, 16); r.DeviceConfig(writebackOff, 1) != 1 {
		t.Error("a reset leaves it off")
	}
	r.Begin(featureConfigWCE, 16)
	if r.SetDeviceConfig(writebackOff, 1, 1); r.DeviceConfig(writebackOff, 1) != 0 {
		t.Error("a driver that knows no flush has writeback")
	}
}

// A write that is under way when the write cache is turned off is durable before it completes.
func TestWritesUnderWayAreDurableAfterWritebackEnds(t *testing.T) {
	mem := blocktest.NewMem(4096)
	stalled := &blocktest.Stalled{Disk: mem}
	r := newRig(t, stalled, Config{}, featureFlush|featureConfigWCE)
	r.header(typeOut, 0)
	r.ring.Send(out(headerAt, 16), out(dataAt, 512), in(statusAt, 1))
	r.Wait("the write at the disk", func() bool { return stalled.Held() == 1 })
	for range 100 { // however often: one flush at a time
		r.SetDeviceConfig(writebackOff, 1, 1)
		r.SetDeviceConfig(writebackOff, 1, 0)
	}
	if n := stalled.Held(); n != 2 {
		t.Fatalf("%d requests at the disk", n)
	}
	stalled.Release() // both; each is followed by a flush
	r.Wait("the flushes", func() bool { return stalled.Held() == 2 })
	if r.ring.UsedIdx() != 0 {
		t.Error("the write completed before its flush")
	}
	stalled.Release()
	if r.ring.Wait(); r.get(statusAt, 1)[0] != statusOK || mem.Synced() != 3 {
		t.Errorf("status %d, %d syncs", r.get(statusAt, 1)[0], mem.Synced())
	}
	if stalled.Held() != 0 {
		t.Error("flushes go on")
	}
}

// Each queue has its own worker and vector, and may be left out by the driver.
func Test_5_2_2_Queues(t *testing.T) {
	mem := blocktest.NewMem(64 << 10)
	dev, err := New(mem, Config{Queues: 4})
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, dev, nil)
	if !d.Negotiate(featureFlush | featureMultiQueue | allRings | virtio.FeatureVersion1) {
		t.Fatal("FEATURES_OK did not stick")
	}
	d.EnableMSIX()
	rings := []*virtiotest.Ring{d.AddQueue(0, 16), d.AddQueue(1, 8), d.AddQueue(3, 256)}
	d.SetStatus(15)
	rig := &rig{d, nil, dev}
	for i, ring := range rings {
		rig.ring = ring
		rig.put(dataAt, bytes.Repeat([]byte{byte(i + 1)}, 512))
		if s, _ := rig.do(typeOut, uint64(i), out(dataAt, 512)); s != statusOK {
			t.Errorf("queue %d: status %d", ring.Index, s)
		}
		vector := uint32(0x41 + ring.Index)
		d.Wait("its own interrupt", func() bool { return d.MSIs.Count(vector) == 1 })
		if mem.Bytes()[512*i] != byte(i+1) {
			t.Errorf("queue %d: not written", ring.Index)
		}
	}
	if n := d.MSIs.Count(0x43); n != 0 {
		t.Error("the queue that is left out interrupts")
	}
	d.SetStatus(0)
	rig.ring = d.Begin(featureFlush, 16) // the next driver has one queue only
	if s, _ := rig.do(typeFlush, 0); s != statusOK {
		t.Errorf("one queue: status %d", s)
	}
}

// Queues that are worked at the same time do not mix up their requests.
func TestQueuesWorkSideBySide(t *testing.T) {
	const each = 200
	mem := blocktest.NewMem(64 << 10)
	dev, err := New(mem, Config{Queues: 4})
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, dev, nil)
	if !d.Negotiate(featureFlush | featureMultiQueue | allRings | virtio.FeatureVersion1) {
		t.Fatal("FEATURES_OK did not stick")
	}
	var rings []*virtiotest.Ring
	for i := range 4 {
		rings = append(rings, d.AddQueue(i, 16))
	}
	d.SetStatus(15)
	var wg sync.WaitGroup
	for i, ring := range rings {
		wg.Go(func() {
			at := uint64(dataAt + i*0x2000)
			for n := range each {
				sector := uint64(i*32 + n%32)
				b := binary.LittleEndian.AppendUint64(nil, typeOut)
				d.Put(at, binary.LittleEndian.AppendUint64(b, sector))
				d.Put(at+0x1000, bytes.Repeat([]byte{byte(i<<5 | n%32)}, 512))
				ring.Send(out(at, 16), out(at+0x1000, 512), in(at+0x800, 1))
				if ring.Wait(); d.Get(at+0x800, 1) != "\x00" {
					t.Errorf("queue %d: status %q", i, d.Get(at+0x800, 1))
				}
			}
		})
	}
	wg.Wait()
	for i, b := range mem.Bytes() {
		if b != byte(i/512) {
			t.Fatalf("sector %d holds %d", i/512, b)
		}
	}
}

func TestZeroingCostsNoAllocation(t *testing.T) {
	r := newRig(t, blocktest.NewMem(64<<10), Config{Discard: true}, featureFlush|featureDiscard|allRings)
	r.header(typeDiscard, 0)
	r.put(dataAt, segments(segment{0, 1, 0}, segment{7, 1, 0}))
	r.costsNoAllocation(t, r.ring.Chain(out(headerAt, 16), out(dataAt, 32), in(statusAt, 1)))
}
