package blk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/formats"
	"berth/block/pool"
	"berth/block/throttle"
	"berth/virtio"
	"berth/virtio/virtiotest"
)

const (
	headerAt = 0x1000
	statusAt = 0x1100
	dataAt   = 0x10000
	allRings = virtio.FeatureEventIdx | virtio.FeatureIndirect
)

type rig struct {
	*virtiotest.Driver
	ring *virtiotest.Ring
	dev  *Device
}

func newRig(t testing.TB, disk block.Disk, cfg Config, features uint64) *rig {
	t.Helper()
	dev, err := New(disk, cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, dev, nil)
	return &rig{d, d.Begin(features, 16), dev}
}

func (r *rig) put(gpa uint64, b []byte) {
	r.T.Helper()
	if err := r.Mem.Write(gpa, b); err != nil {
		r.T.Fatal(err)
	}
}

func (r *rig) get(gpa uint64, n int) []byte {
	r.T.Helper()
	b := make([]byte, n)
	if err := r.Mem.Read(gpa, b); err != nil {
		r.T.Fatal(err)
	}
	return b
}

func (r *rig) header(kind uint32, sector uint64) {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, 0)
	r.put(headerAt, binary.LittleEndian.AppendUint64(b, sector))
	r.put(statusAt, []byte{0xee})
}

// do sends header, data and status and returns the status byte and the used length.
func (r *rig) do(kind uint32, sector uint64, data ...virtiotest.Desc) (status byte, n uint32) {
	r.T.Helper()
	r.header(kind, sector)
	ds := append([]virtiotest.Desc{{Addr: headerAt, Len: 16}}, data...)
	h := r.ring.Send(append(ds, virtiotest.Desc{Addr: statusAt, Len: 1, Flags: virtiotest.Write})...)
	id, n := r.ring.Wait()
	if id != uint32(h) {
		r.T.Errorf("used id %d, want %d", id, h)
	}
	return r.get(statusAt, 1)[0], n
}

func in(gpa uint64, n uint32) virtiotest.Desc {
	return virtiotest.Desc{Addr: gpa, Len: n, Flags: virtiotest.Write}
}

func out(gpa uint64, n uint32) virtiotest.Desc { return virtiotest.Desc{Addr: gpa, Len: n} }

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*13 + i>>8)
	}
	return p
}

func Test_5_2_6_WriteThenReadMultiSector(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := formats.Open(formats.Options{Filename: path, Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	disk := n.Disk(pool.Options{})
	r := newRig(t, disk, Config{}, featureFlush|allRings)
	p := pattern(64 << 10)
	r.put(dataAt, p)
	if s, n := r.do(typeOut, 100, out(dataAt, 40000), out(dataAt+40000, 64<<10-40000)); s != statusOK || n != 1 {
		t.Fatalf("write: status %d, length %d", s, n)
	}
	if s, _ := r.do(typeFlush, 0); s != statusOK {
		t.Fatalf("flush: status %d", s)
	}
	if s, n := r.do(typeIn, 100, in(dataAt+1<<20, 1000), in(dataAt+1<<20+1000, 64<<10-1000)); s != statusOK || n != 64<<10+1 {
		t.Fatalf("read: status %d, length %d", s, n)
	}
	if !bytes.Equal(r.get(dataAt+1<<20, 64<<10), p) {
		t.Error("data read differs from data written")
	}
	r.Wait("an interrupt", func() bool { return r.MSIs.Count(0x41) > 0 })
	r.Dev.Reset()
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b[100*512:100*512+64<<10], p) {
		t.Errorf("the file does not hold the data (%v)", err)
	}
}

func Test_5_2_4_ConfigurationSpace(t *testing.T) {
	r := newRig(t, blocktest.NewMem(10<<20), Config{ReadOnly: true}, 0)
	if n := r.Read(virtiotest.Config, writebackOff, 1); n != 0 {
		t.Error("writeback without flushes")
	}
	if n := r.Read(virtiotest.Config, 0, 8); n != 10<<20/512 {
		t.Errorf("capacity %d", n)
	}
	if n := r.Read(virtiotest.Config, 12, 4); n != queueSize-2 {
		t.Errorf("seg_max %d", n)
	}
	if n := r.Read(virtiotest.Config, 20, 4); n != 512 {
		t.Errorf("blk_size %d", n)
	}
	if n := r.Read(virtiotest.Config, configSize-2, 4); n != 0 {
		t.Errorf("past the end: 0x%x", n)
	}
	want := featureSegMax | featureReadOnly | featureBlockSize | featureFlush | featureTopology | featureConfigWCE | allRings | virtio.FeatureVersion1
	if f := r.Offered(); f != want {
		t.Errorf("features 0x%x, want 0x%x", f, want)
	}
	if id := r.ReadConfig(0, 4); id != 0x1042_1af4 {
		t.Errorf("PCI ID 0x%x", id)
	}
}

func Test_5_2_6_GetID(t *testing.T) {
	r := newRig(t, blocktest.NewMem(4096), Config{Serial: "disk-17"}, 0)
	r.put(dataAt, bytes.Repeat([]byte{0xff}, 32))
	if s, n := r.do(typeGetID, 0, in(dataAt, 3), in(dataAt+3, 17)); s != statusOK || n != 21 {
		t.Errorf("status %d, length %d", s, n)
	}
	if b := r.get(dataAt, 21); string(b) != "disk-17"+string(make([]byte, 13))+"\xff" {
		t.Errorf("ID %q", b)
	}
	if s, _ := r.do(typeGetID, 0, in(dataAt, 4)); s != statusOK || string(r.get(dataAt, 4)) != "disk" {
		t.Errorf("short buffer: status %d", s)
	}
	if _, err := New(blocktest.NewMem(512), Config{Serial: "123456789012345678901"}); err == nil {
		t.Error("a serial of 21 bytes was accepted")
	}
}

func Test_5_2_6_1_RefusedRequests(t *testing.T) {
	mem := blocktest.NewMem(64 << 10) // 128 sectors
	r := newRig(t, mem, Config{}, 0)
	for _, c := range []struct {
		name   string
		kind   uint32
		sector uint64
		data   []virtiotest.Desc
		want   byte
	}{
		{"read past the end", typeIn, 128, []virtiotest.Desc{in(dataAt, 512)}, statusIOErr},
		{"read across the end", typeIn, 127, []virtiotest.Desc{in(dataAt, 1024)}, statusIOErr},
		{"read at the last sector", typeIn, 127, []virtiotest.Desc{in(dataAt, 512)}, statusOK},
		{"sector that overflows", typeIn, 1<<64 - 1, []virtiotest.Desc{in(dataAt, 1024)}, statusIOErr},
		{"sector times 512 overflows", typeOut, 1 << 55, []virtiotest.Desc{out(dataAt, 512)}, statusIOErr},
		{"half a sector", typeOut, 0, []virtiotest.Desc{out(dataAt, 256)}, statusIOErr},
		{"a byte too many", typeIn, 0, []virtiotest.Desc{in(dataAt, 513)}, statusIOErr},
		{"write past the end", typeOut, 128, []virtiotest.Desc{out(dataAt, 512)}, statusIOErr},
		{"nothing at the end", typeIn, 128, nil, statusOK},
		{"unknown type", 77, 0, nil, statusUnsupported},
		{"secure erase, not offered", 14, 0, []virtiotest.Desc{out(dataAt, 16)}, statusUnsupported},
		{"SCSI command of old", 2, 0, nil, statusUnsupported},
	} {
		if s, _ := r.do(c.kind, c.sector, c.data...); s != c.want {
			t.Errorf("%s: status %d, want %d", c.name, s, c.want)
		}
	}
	if r.Status()&virtio.StatusNeedsReset != 0 {
		t.Error("the device wants a reset")
	}
}

func Test_5_2_6_2_ReadOnlyDiskRefusesWrites(t *testing.T) {
	mem := blocktest.NewMem(4096)
	r := newRig(t, mem, Config{ReadOnly: true}, 0)
	r.put(dataAt, pattern(512))
	if s, _ := r.do(typeOut, 0, out(dataAt, 512)); s != statusIOErr {
		t.Errorf("status %d", s)
	}
	if !bytes.Equal(mem.Bytes(), make([]byte, 4096)) {
		t.Error("the disk was written")
	}
}

func Test_5_2_6_2_WritesAreDurableWithoutFlushFeature(t *testing.T) {
	for _, c := range []struct {
		features uint64
		synced   int
	}{{0, 1}, {featureFlush, 0}} {
		mem := blocktest.NewMem(4096)
		r := newRig(t, mem, Config{}, c.features)
		if s, _ := r.do(typeOut, 0, out(dataAt, 512)); s != statusOK || mem.Synced() != c.synced {
			t.Errorf("features 0x%x: status %d, %d syncs, want %d", c.features, s, mem.Synced(), c.synced)
		}
	}
}

// TestWriteThrough: a disk that begins without a write cache has none whatever the
// driver knows of it, until the driver turns it on.
func TestWriteThrough(t *testing.T) {
	for _, features := range []uint64{0, featureFlush, featureFlush | featureConfigWCE} {
		mem := blocktest.NewMem(4096)
		r := newRig(t, mem, Config{WriteThrough: true}, features)
		if n := r.Read(virtiotest.Config, writebackOff, 1); n != 0 {
			t.Errorf("features 0x%x: a write cache", features)
		}
		if s, _ := r.do(typeOut, 0, out(dataAt, 512)); s != statusOK || mem.Synced() != 1 {
			t.Errorf("features 0x%x: status %d, %d syncs", features, s, mem.Synced())
		}
		if features&featureConfigWCE == 0 {
			continue
		}
		r.Write(virtiotest.Config, writebackOff, 1, 1)
		if s, _ := r.do(typeOut, 0, out(dataAt, 512)); s != statusOK || mem.Synced() != 1 {
			t.Errorf("with a cache: status %d, %d syncs", s, mem.Synced())
		}
		r.SetStatus(0)
		if n := r.Read(virtiotest.Config, writebackOff, 1); n != 0 {
			t.Error("a reset leaves the write cache on")
		}
	}
}

// §2.7.4.1: nothing may be assumed about how a request is cut into descriptors.
func Test_2_7_4_1_AnyFraming(t *testing.T) {
	mem := blocktest.NewMem(64 << 10)
	r := newRig(t, mem, Config{}, allRings)
	p := pattern(1024)
	r.header(typeOut, 2)
	// header and data in one buffer, byte by byte at first; status behind spare room
	whole := append(r.get(headerAt, 16), p...)
	r.put(dataAt, whole)
	r.ring.Send(out(dataAt, 1), out(dataAt+1, 7), out(dataAt+8, 100), out(dataAt+108, 932), in(statusAt, 1))
	r.ring.Wait()
	if s := r.get(statusAt, 1)[0]; s != statusOK || !bytes.Equal(mem.Bytes()[1024:2048], p) {
		t.Fatalf("write: status %d", s)
	}
	r.header(typeIn, 2)
	r.ring.Send(out(headerAt, 9), out(headerAt+9, 7), in(dataAt+4096, 1000), in(dataAt+5096, 25))
	if _, n := r.ring.Wait(); n != 1025 {
		t.Errorf("length %d", n)
	}
	b := r.get(dataAt+4096, 1025)
	if b[1024] != statusOK || !bytes.Equal(b[:1024], p) {
		t.Errorf("read: status %d", b[1024])
	}
}

func TestHostileChains(t *testing.T) {
	r := newRig(t, blocktest.NewMem(64<<10), Config{}, allRings)
	r.header(typeIn, 0)
	for _, c := range []struct {
		name string
		ds   []virtiotest.Desc
	}{
		{"no status", []virtiotest.Desc{out(headerAt, 16)}},
		{"empty", []virtiotest.Desc{out(headerAt, 0)}},
		{"short header", []virtiotest.Desc{out(headerAt, 15), in(statusAt, 1)}},
		{"no header", []virtiotest.Desc{in(statusAt, 1)}},
		{"only zero-length buffers", []virtiotest.Desc{out(headerAt, 0), in(statusAt, 0)}},
		{"huge data", []virtiotest.Desc{out(headerAt, 16), in(0, virtiotest.RAM), in(statusAt, 1)}},
	} {
		r.put(statusAt, []byte{0xee})
		r.ring.Send(c.ds...)
		r.ring.Wait()
		if n := len(c.ds); n > 0 && c.ds[n-1].Flags&virtiotest.Write != 0 && c.ds[n-1].Len > 0 && r.get(statusAt, 1)[0] != statusIOErr {
			t.Errorf("%s: status %d", c.name, r.get(statusAt, 1)[0])
		}
		if r.Status()&virtio.StatusNeedsReset != 0 {
			t.Fatalf("%s: the device wants a reset", c.name)
		}
		r.header(typeIn, 0)
	}
	if s, _ := r.do(typeIn, 0, in(dataAt, 512)); s != statusOK {
		t.Errorf("afterwards: status %d", s)
	}
}

func TestDiskErrorsReachTheStatusByte(t *testing.T) {
	bad := errors.New("medium error")
	disk := &blocktest.Faulty{Disk: blocktest.NewMem(64 << 10), Fail: func(q *block.Request) error {
		switch {
		case q.Op == block.OpFlush:
			return block.ErrUnsupported
		case q.Off == 4096:
			return bad
		}
		return nil
	}}
	r := newRig(t, disk, Config{}, featureFlush)
	if s, n := r.do(typeIn, 8, in(dataAt, 512)); s != statusIOErr || n != 0 {
		t.Errorf("read: status %d, length %d", s, n)
	}
	if s, _ := r.do(typeOut, 8, out(dataAt, 512)); s != statusIOErr {
		t.Errorf("write: status %d", s)
	}
	if s, _ := r.do(typeFlush, 0); s != statusUnsupported {
		t.Errorf("flush: status %d", s)
	}
	if s, _ := r.do(typeIn, 9, in(dataAt, 512)); s != statusOK {
		t.Errorf("the sector beside: status %d", s)
	}
}

// Requests complete out of order, and a device that is paused finishes what it
// has taken, takes nothing more, and goes on in another process from its state.
func TestSaveAndLoadMidOperation(t *testing.T) {
	mem := blocktest.NewMem(64 << 10)
	stalled := &blocktest.Stalled{Disk: mem}
	r := newRig(t, stalled, Config{}, featureFlush|allRings)
	send := func(i uint64) {
		b := binary.LittleEndian.AppendUint64(nil, typeOut)
		r.put(headerAt+16*i, binary.LittleEndian.AppendUint64(b, i))
		r.put(dataAt+512*i, bytes.Repeat([]byte{byte(i + 1)}, 512))
		r.put(statusAt+i, []byte{0xee})
		r.ring.Send(out(headerAt+16*i, 16), out(dataAt+512*i, 512), in(statusAt+i, 1))
	}
	send(0)
	send(1)
	r.Wait("two requests at the disk", func() bool { return stalled.Held() == 2 })
	paused := make(chan bool)
	go func() {
		r.Dev.Pause()
		close(paused)
	}()
	stalled.Release()
	<-paused
	if r.ring.UsedIdx() != 2 {
		t.Fatalf("Pause returned with used index %d", r.ring.UsedIdx())
	}
	send(2) // accepted, not served
	if r.ring.UsedIdx() != 2 || stalled.Held() != 0 {
		t.Fatal("a paused device worked")
	}
	root, tr, own := r.Root.Save(), r.Dev.Save(), r.dev.Save()

	// A second machine with a copy of the memory goes on.
	s := newRig(t, mem, Config{}, 0)
	s.Dev.Pause()
	s.put(0, r.get(0, virtiotest.RAM))
	for _, err := range []error{s.Root.Load(root), s.dev.Load(own), s.Dev.Load(tr)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Dev.Save(); got.Queues[0] != tr.Queues[0] || got.Acked != tr.Acked || got.Status != tr.Status {
		t.Errorf("state does not survive:\n%+v\n%+v", tr, got)
	}
	before := s.MSIs.Count(0x41)
	s.Dev.Resume()
	s.Wait("the third request", func() bool { return s.ring.UsedIdx() == 3 })
	s.Wait("its interrupt", func() bool { return s.MSIs.Count(0x41) > before })
	if !bytes.Equal(s.get(statusAt, 3), make([]byte, 3)) {
		t.Errorf("status bytes %v", s.get(statusAt, 3))
	}
	for i := range 3 {
		if mem.Bytes()[512*i] != byte(i+1) {
			t.Errorf("sector %d holds %d", i, mem.Bytes()[512*i])
		}
	}
	if err := s.dev.Load(State{Version: 99}); err == nil {
		t.Error("an unknown version was loaded")
	}
	if err := s.dev.Load(State{Version: StateVersion, Capacity: 1}); err == nil {
		t.Error("the state of another disk was loaded")
	}
}

func TestResetWaitsForTheDisk(t *testing.T) {
	stalled := &blocktest.Stalled{Disk: blocktest.NewMem(4096)}
	r := newRig(t, stalled, Config{}, 0)
	r.header(typeIn, 0)
	r.ring.Send(out(headerAt, 16), in(dataAt, 512), in(statusAt, 1))
	r.Wait("the request at the disk", func() bool { return stalled.Held() == 1 })
	done := make(chan bool)
	go func() {
		r.SetStatus(0)
		close(done)
	}()
	stalled.Release()
	<-done
	if r.Status() != 0 || r.get(statusAt, 1)[0] != statusOK {
		t.Error("the request was not finished before the reset")
	}
	if r.ring = r.Begin(featureFlush, 16); r.Status() != 15 {
		t.Fatalf("status 0x%x after the second start", r.Status())
	}
	r.header(typeFlush, 0)
	r.ring.Send(out(headerAt, 16), in(statusAt, 1))
	r.Wait("the flush", func() bool { return stalled.Held() == 1 })
	stalled.Release()
	if r.ring.Wait(); r.get(statusAt, 1)[0] != statusOK {
		t.Error("flush after the second start failed")
	}
}

// TestResetHastensThrottledRequests: a guest that resets its disk, and its vCPU
// with it, does not wait for what limits hold back.
func TestResetHastensThrottledRequests(t *testing.T) {
	mem := blocktest.NewMem(4096)
	disk := throttle.New(mem, throttle.Limits{Bytes: throttle.Pair{Total: throttle.Limit{Rate: 1}}})
	r := newRig(t, disk, Config{}, 0)
	if s, _ := r.do(typeOut, 0, out(dataAt, 512)); s != statusOK {
		t.Fatal("the first write fails")
	}
	r.put(dataAt, pattern(512))
	r.header(typeOut, 7)
	r.ring.Send(out(headerAt, 16), out(dataAt, 512), in(statusAt, 1)) // due in eight minutes
	r.SetStatus(0)
	if r.Status() != 0 {
		t.Errorf("status 0x%x", r.Status())
	}
	for range 2 {
		r.Dev.Pause()
		r.Dev.Resume()
	}
}

// Every page that a request stored into is marked, on failure too.
func TestDMAMarksPages(t *testing.T) {
	var fail atomic.Bool
	disk := &blocktest.Faulty{Disk: blocktest.NewMem(64 << 10), Fail: func(*block.Request) error {
		if fail.Load() {
			return errors.New("after half of it")
		}
		return nil
	}}
	r := newRig(t, disk, Config{}, 0)
	for _, bad := range []bool{false, true} {
		fail.Store(bad)
		r.header(typeIn, 0)
		r.Mem.SetDirtyLog(true)
		r.Mem.CollectDirty(func(uint64) {})
		r.ring.Send(out(headerAt, 16), in(dataAt, 4096), in(dataAt+8192, 8192), in(statusAt, 1))
		r.ring.Wait()
		dirty := map[uint64]bool{}
		r.Mem.CollectDirty(func(gpa uint64) { dirty[gpa] = true })
		for _, gpa := range []uint64{dataAt, dataAt + 8192, dataAt + 12288, statusAt &^ 0xfff, r.ring.Used} {
			if !dirty[gpa] {
				t.Errorf("failing %v: page 0x%x is not marked", bad, gpa)
			}
		}
		if dirty[dataAt+4096] {
			t.Error("a page that was not written is marked")
		}
		r.Mem.SetDirtyLog(false)
	}
}

func TestRequestsCostNoAllocation(t *testing.T) {
	r := newRig(t, blocktest.NewMem(64<<10), Config{}, featureFlush|allRings)
	r.header(typeIn, 0)
	r.costsNoAllocation(t, r.ring.Chain(out(headerAt, 16), in(dataAt, 4096), in(statusAt, 1)))
}

// costsNoAllocation serves the chain at head again and again.
func (r *rig) costsNoAllocation(t *testing.T, head uint16) {
	t.Helper()
	want := r.ring.UsedIdx()
	send := func() {
		r.ring.Offer(head)
		r.ring.Kick()
		want++
		for r.ring.UsedIdx() != want {
			runtime.Gosched()
		}
	}
	send()
	if n := testing.AllocsPerRun(200, send); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// BenchmarkRead4K is one request at a time, from the notification register to
// the used ring; its cost is two thread wake-ups.
func BenchmarkRead4K(b *testing.B) { benchmark(b, 1) }

// BenchmarkRead4KBatch is eight requests a notification.
func BenchmarkRead4KBatch(b *testing.B) { benchmark(b, 8) }

func benchmark(b *testing.B, batch int) {
	r := newRig(b, blocktest.NewMem(64<<10), Config{}, featureFlush|allRings)
	r.header(typeIn, 0)
	heads := make([]uint16, batch)
	h := r.ring.Chain(out(headerAt, 16), in(dataAt, 4096), in(statusAt, 1))
	for i := range heads {
		heads[i] = h
	}
	want := r.ring.UsedIdx()
	for b.Loop() {
		r.ring.Offer(heads...)
		r.ring.Kick()
		want += uint16(batch)
		for r.ring.UsedIdx() != want {
			runtime.Gosched()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/request")
}

// late completes what it got when it is told to.
type late struct {
	block.Disk
	got chan *block.Request
}

func (l *late) Submit(r *block.Request) { l.got <- r }

// BenchmarkRawFile is random reads of a raw image in the page cache, with the file
// itself as peer: at a depth, each time that many are asked for at once.
func BenchmarkRawFile(b *testing.B) {
	const size = 64 << 20
	path := filepath.Join(b.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dK/file", n>>10), func(b *testing.B) {
			f, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			p := make([]byte, n)
			for b.Loop() {
				if _, err := f.ReadAt(p, int64(rand.IntN(size/n)*n)); err != nil {
					b.Fatal(err)
				}
			}
		})
		for _, depth := range []int{1, 8} {
			b.Run(fmt.Sprintf("%dK/depth %d", n>>10, depth), func(b *testing.B) { readRandom(b, path, size, n, depth) })
		}
	}
}

func readRandom(b *testing.B, path string, size, n, depth int) {
	node, err := formats.Open(formats.Options{Filename: path, Format: "raw"})
	if err != nil {
		b.Fatal(err)
	}
	disk := node.Disk(pool.Options{})
	r := newRig(b, disk, Config{}, featureFlush|allRings)
	heads := make([]uint16, depth)
	for i := range heads {
		heads[i] = r.ring.Chain(out(headerAt+uint64(i)*16, headerSize), in(dataAt+uint64(i*n), uint32(n)), in(statusAt, 1))
	}
	want := r.ring.UsedIdx()
	for b.Loop() {
		for i := range heads {
			h := binary.LittleEndian.AppendUint64(make([]byte, 8, headerSize), uint64(rand.IntN(size/n)*n/512))
			r.put(headerAt+uint64(i)*16, h)
		}
		r.ring.Offer(heads...)
		r.ring.Kick()
		for want += uint16(depth); r.ring.UsedIdx() != want; {
			runtime.Gosched()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*depth), "ns/request")
	r.Dev.Reset()
	if err := disk.Close(); err != nil {
		b.Fatal(err)
	}
}

// TestPatience: a request that comes while another is under way is not to keep the queue.
func TestPatience(t *testing.T) {
	l := &late{blocktest.NewMem(1 << 20), make(chan *block.Request, 4)}
	r := newRig(t, l, Config{}, 0)
	r.header(typeIn, 0)
	send := func() *block.Request {
		r.ring.Send(out(headerAt, headerSize), in(dataAt, 512), in(statusAt, 1))
		return <-l.got
	}
	first := send()
	second := send()
	if first.Patience != patience || second.Patience != 0 {
		t.Errorf("patience: with the first %v, with the second %v", first.Patience, second.Patience)
	}
	first.Done(nil)
	second.Done(nil)
	if third := send(); third.Patience != patience {
		t.Error("the third is alone again")
	} else {
		third.Done(nil)
	}
	// Two at once.
	r.ring.Offer(r.ring.Chain(out(headerAt, headerSize), in(dataAt, 512), in(statusAt, 1)), r.ring.Chain(out(headerAt, headerSize), in(dataAt, 512), in(statusAt, 1)))
	r.ring.Kick()
	for range 2 {
		if q := <-l.got; q.Patience != 0 {
			t.Error("one of two is alone")
		} else {
			defer q.Done(nil)
		}
	}
}
