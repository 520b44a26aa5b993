package balloon

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

const ramSize = 64 << 20 // as the device is told

// memory notes what is discarded. Pages from limit up are no RAM.
type memory struct {
	mu     sync.Mutex
	limit  uint64
	ranges [][2]uint64
	wrong  int
}

func (m *memory) Discard(gpa, n uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if gpa >= m.limit || n > m.limit-gpa {
		m.wrong++
		return errors.New("no RAM")
	}
	m.ranges = append(m.ranges, [2]uint64{gpa, n})
	return nil
}

func (m *memory) took() [][2]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.ranges
	m.ranges = nil
	return r
}

// rig is a balloon and its driver, with all queues.
type rig struct {
	*virtiotest.Driver
	dev     *Device
	mem     *memory
	rings   []*virtiotest.Ring
	changes chan uint64
}

func newRig(t testing.TB, features uint64) *rig {
	t.Helper()
	r := &rig{mem: &memory{limit: ramSize}, changes: make(chan uint64, 16)}
	r.dev = New(Config{Memory: r.mem, Size: ramSize, DeflateOnOOM: true, Reporting: true, Changed: func(n uint64) {
		select {
		case r.changes <- n:
		default:
		}
	}})
	t.Cleanup(func() { _ = r.dev.Close() })
	r.Driver = virtiotest.New(t, r.dev, nil)
	r.begin(features)
	return r
}

func (r *rig) begin(features uint64) {
	r.T.Helper()
	if !r.Negotiate(features | virtio.FeatureVersion1) {
		r.T.Fatal("FEATURES_OK did not stick")
	}
	r.EnableMSIX()
	r.rings = nil
	for i := range r.dev.Info().Queues {
		r.rings = append(r.rings, r.AddQueue(i, 16))
	}
	r.SetStatus(15)
}

// numbers puts page numbers at gpa.
func (r *rig) numbers(gpa uint64, pages ...uint32) virtiotest.Desc {
	var b []byte
	for _, p := range pages {
		b = binary.LittleEndian.AppendUint32(b, p)
	}
	r.Put(gpa, b)
	return virtiotest.Out(gpa, uint32(len(b)))
}

func pages(first, n uint64) [2]uint64 { return [2]uint64{first * pageSize, n * pageSize} }

func (r *rig) expect(t *testing.T, want ...[2]uint64) {
	t.Helper()
	if got := r.mem.took(); !slices.Equal(got, want) {
		t.Errorf("discarded %x, want %x", got, want)
	}
}

func Test_5_5_3_Features(t *testing.T) {
	r := newRig(t, 0)
	if f := r.Offered(); f&0xff != featureStats|featureDeflateOnOOM|featurePagePoison|featureReporting {
		t.Errorf("features 0x%x: no MUST_TELL_HOST, no hints", f)
	}
	if id := r.ReadConfig(0, 4); id != 0x1045_1af4 {
		t.Errorf("PCI ID 0x%x", id)
	}
	small := virtiotest.New(t, New(Config{}), nil)
	if f := small.Offered(); f&0xff != featureStats|featurePagePoison {
		t.Errorf("features 0x%x without options", f)
	}
}

func Test_5_5_4_Configuration(t *testing.T) {
	r := newRig(t, 0)
	g := r.Generation()
	r.dev.SetTarget(ramSize - 10*pageSize)
	if v := r.DeviceConfig(0, 4); v != 10 {
		t.Errorf("num_pages %d", v)
	}
	if r.Generation() == g {
		t.Error("the configuration's generation is the same")
	}
	r.SetDeviceConfig(0, 4, 77) // read-only
	r.SetDeviceConfig(8, 4, 77) // there are no hints
	r.SetDeviceConfig(4, 4, 6)
	if a, b, c := r.DeviceConfig(0, 4), r.DeviceConfig(4, 4), r.DeviceConfig(8, 4); a != 10 || b != 6 || c != 0 {
		t.Errorf("num_pages %d, actual %d, command %d", a, b, c)
	}
	if n := r.dev.Actual(); n != ramSize-6*pageSize {
		t.Errorf("the guest has %d bytes", n)
	}
	if n := <-r.changes; n != ramSize-6*pageSize {
		t.Errorf("changed to %d", n)
	}
	r.SetDeviceConfig(4, 4, 1<<32-1) // more than there is
	if n := r.dev.Actual(); n != 0 {
		t.Errorf("the guest has %d bytes", n)
	}
	<-r.changes
	for target, want := range map[uint64]uint64{ramSize: 0, 1 << 60: 0, 0: ramSize / pageSize} {
		r.dev.SetTarget(target)
		if v := r.DeviceConfig(0, 4); v != want {
			t.Errorf("a target of %d: num_pages %d, want %d", target, v, want)
		}
	}
	r.SetStatus(0) // the pages are the guest's again
	if n := <-r.changes; n != ramSize || r.dev.Actual() != ramSize {
		t.Errorf("after a reset %d", n)
	}
}

func Test_5_5_6_2_InflatedPagesGoBack(t *testing.T) {
	r := newRig(t, 0)
	q := r.rings[queueInflate]
	q.Send(r.numbers(0x1000, 5, 6, 7, 100, 99, 98, 50))
	if _, n := q.Wait(); n != 0 {
		t.Errorf("used length %d", n)
	}
	r.expect(t, pages(5, 3), pages(98, 3), pages(50, 1))
	// A number may be split between buffers; the rest of one is nothing.
	r.Put(0x1000, []byte{9, 0})
	r.Put(0x2000, []byte{0, 0, 10, 0, 0})
	q.Send(virtiotest.Out(0x1000, 2), virtiotest.Out(0x2000, 5))
	q.Wait()
	r.expect(t, pages(9, 1))
	// What is no RAM is passed over.
	q.Send(r.numbers(0x1000, 1<<32-1, ramSize/pageSize, 3, 0xfee00))
	q.Wait()
	r.expect(t, pages(3, 1))
	if s := r.Status(); s != 15 {
		t.Errorf("status 0x%x", s)
	}
	// Taking pages back needs nothing.
	r.rings[queueDeflate].Send(r.numbers(0x1000, 5, 6, 7))
	r.rings[queueDeflate].Wait()
	r.expect(t)
}

func TestInflateIsBounded(t *testing.T) {
	r := newRig(t, virtio.FeatureIndirect)
	// 1 MiB of page 0 twice is more numbers than a chain may have.
	r.rings[queueInflate].Send(virtiotest.Out(0x100000, 1<<20), virtiotest.Out(0x100000, 1<<20))
	r.rings[queueInflate].Wait()
	if n := len(r.mem.took()); n != maxPages {
		t.Errorf("%d pages", n)
	}
}

func stat(tag uint16, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint16(nil, tag), v)
}

func Test_5_5_6_3_2_Statistics(t *testing.T) {
	r := newRig(t, featureStats)
	if s := r.dev.Stats(); !s.At.IsZero() || s.Values[FreeMemory] != Unknown {
		t.Errorf("before the driver has spoken: %+v", s)
	}
	q := r.rings[queueStats]
	give := func(b []byte) {
		r.Put(0x1000, b)
		q.Send(virtiotest.Out(0x1000, 7), virtiotest.Out(0x1007, uint32(len(b)-7)))
	}
	// In any order, and with tags that nobody knows.
	give(slices.Concat(stat(TotalMemory, 1000), stat(77, 1), stat(FreeMemory, 500), stat(Tags, 2), []byte{1, 0, 3}))
	r.Wait("statistics", func() bool { return r.dev.Stats().Values[FreeMemory] == 500 })
	s := r.dev.Stats()
	if s.Values[TotalMemory] != 1000 || s.Values[SwapIn] != Unknown || s.Values[SwapOut] != Unknown || time.Since(s.At) > time.Minute {
		t.Errorf("%+v", s)
	}
	if q.UsedIdx() != 0 {
		t.Error("the buffer went back before anybody asked")
	}
	// The device can be paused, saved and reset while it has the buffer.
	r.Dev.Pause()
	r.Dev.Save()
	r.Dev.Resume()
	for i := range 3 {
		r.dev.SetInterval(time.Millisecond)
		q.Wait()
		r.dev.SetInterval(0)
		give(stat(FreeMemory, uint64(600+i)))
		r.Wait("new statistics", func() bool { return r.dev.Stats().Values[FreeMemory] == uint64(600+i) })
	}
	r.dev.SetInterval(time.Hour)
	if r.dev.Interval() != time.Hour {
		t.Error("interval")
	}
	r.SetStatus(0)
	if s := r.dev.Stats(); !s.At.IsZero() {
		t.Errorf("after a reset: %+v", s)
	}
}

func Test_5_5_6_7_2_ReportedPages(t *testing.T) {
	for _, c := range []struct {
		features uint64
		poison   uint64
		queue    int
		kept     bool
	}{
		{featureStats | featureReporting, 0, queueReporting, false},
		{featureStats | featureReporting, 0, queueReportingToo, false}, // as §5.5.2 counts
		{featureReporting, 0, queueStats, false},                       // as Linux counts
		{featureReporting | featureStats, 0xaa, queueReporting, false}, // not negotiated: says nothing
		{featureReporting | featureStats | featurePagePoison, 0, queueReporting, false},
		{featureReporting | featureStats | featurePagePoison, 0xaa, queueReporting, true},
	} {
		r := newRig(t, c.features)
		r.SetDeviceConfig(12, 4, c.poison)
		q := r.rings[c.queue]
		q.Send(virtiotest.In(0x10000, 0x4000), virtiotest.In(0x80000, 0x1000))
		if _, n := q.Wait(); n != 0 {
			t.Errorf("used length %d", n)
		}
		want := [][2]uint64{{0x10000, 0x4000}, {0x80000, 0x1000}}
		if c.kept {
			want = nil
		}
		r.expect(t, want...)
	}
}

func TestReportsOfOthersPagesAreRefused(t *testing.T) {
	r := newRig(t, featureStats|featureReporting)
	r.rings[queueReporting].Send(virtiotest.In(virtiotest.RAM-0x1000, 0x2000))
	r.Wait("DEVICE_NEEDS_RESET", func() bool { return r.Status()&virtio.StatusNeedsReset != 0 })
	r.expect(t)
}

func TestState(t *testing.T) {
	r := newRig(t, 0)
	r.dev.SetTarget(ramSize / 2)
	r.SetDeviceConfig(4, 4, 9)
	r.SetDeviceConfig(12, 4, 0xaa)
	s := r.dev.Save()
	d := New(Config{Size: ramSize})
	if err := d.Load(s); err != nil || d.Save() != s || d.Actual() != ramSize-9*pageSize {
		t.Errorf("%+v, %v", d.Save(), err)
	}
	if err := d.Load(State{Version: 9}); err == nil {
		t.Error("an unknown version was loaded")
	}
}
