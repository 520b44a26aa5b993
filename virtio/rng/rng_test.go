package rng

import (
	"testing"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

const allRings = virtio.FeatureEventIdx | virtio.FeatureIndirect

func in(gpa uint64, n uint32) virtiotest.Desc {
	return virtiotest.Desc{Addr: gpa, Len: n, Flags: virtiotest.Write}
}

func bytesAt(t *testing.T, d *virtiotest.Driver, gpa uint64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if err := d.Mem.Read(gpa, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func zeros(b []byte) (n int) {
	for _, v := range b {
		if v == 0 {
			n++
		}
	}
	return n
}

func Test_5_4_6_FillsBuffers(t *testing.T) {
	d := virtiotest.New(t, New(), nil)
	if id := d.ReadConfig(0, 4); id != 0x1044_1af4 {
		t.Errorf("PCI ID 0x%x", id)
	}
	r := d.Begin(allRings, 16)
	r.Send(in(0x1000, 100), in(0x5000, 156))
	if _, n := r.Wait(); n != 256 {
		t.Errorf("length %d", n)
	}
	if n := zeros(append(bytesAt(t, d, 0x1000, 100), bytesAt(t, d, 0x5000, 156)...)); n > 20 {
		t.Errorf("%d of 256 bytes are zero", n)
	}
	if n := zeros(bytesAt(t, d, 0x5000+156, 100)); n != 100 {
		t.Error("bytes past the buffer were written")
	}
	d.Wait("an interrupt", func() bool { return d.MSIs.Count(0x41) == 1 })
}

func TestRequestsAreBounded(t *testing.T) {
	d := virtiotest.New(t, New(), nil)
	r := d.Begin(0, 16)
	r.Send(in(0x1000, 3000), in(0x10000, 1<<20))
	if _, n := r.Wait(); n != maxRequest {
		t.Errorf("length %d", n)
	}
	if n := zeros(bytesAt(t, d, 0x10000+maxRequest-3000, 4096)); n != 4096 {
		t.Error("more than the bound was written")
	}
}

func TestHostileChains(t *testing.T) {
	d := virtiotest.New(t, New(), nil)
	r := d.Begin(allRings, 16)
	for _, ds := range [][]virtiotest.Desc{
		{{Addr: 0x1000, Len: 8}},
		{{Addr: 0x1000, Len: 0}},
		{{Addr: 0x1000, Len: 8}, in(0x2000, 4)},
	} {
		r.Send(ds...)
		if _, n := r.Wait(); n > 4 {
			t.Errorf("%v: length %d", ds, n)
		}
	}
	if n := zeros(bytesAt(t, d, 0x1000, 8)); n != 8 {
		t.Error("a device-readable buffer was written")
	}
	r.Send(in(virtiotest.RAM-4, 8))
	d.Wait("DEVICE_NEEDS_RESET", func() bool { return d.Status()&virtio.StatusNeedsReset != 0 })
}

func TestSaveAndLoadMidOperation(t *testing.T) {
	a := virtiotest.New(t, New(), nil)
	r := a.Begin(allRings, 16)
	r.Send(in(0x1000, 64))
	r.Wait()
	a.Dev.Pause()
	r.Send(in(0x2000, 64)) // accepted, not served
	own := New()
	b := virtiotest.New(t, own, nil)
	b.Dev.Pause()
	if err := b.Mem.Write(0, bytesAt(t, a, 0, virtiotest.RAM)); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{b.Root.Load(a.Root.Save()), own.Load(New().Save()), b.Dev.Load(a.Dev.Save())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if zeros(bytesAt(t, b, 0x2000, 64)) != 64 {
		t.Error("a paused device worked")
	}
	b.Dev.Resume()
	b.Wait("the second request", func() bool { return zeros(bytesAt(t, b, 0x2000, 64)) < 10 })
	if err := own.Load(State{Version: 9}); err == nil {
		t.Error("an unknown version was loaded")
	}
}
