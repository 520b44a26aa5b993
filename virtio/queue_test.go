package virtio_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

// The index is 16 bits in rings of any size: it wraps past 65535.
func Test_2_7_13_3_IndexWraps(t *testing.T) {
	d := virtiotest.New(t, virtiotest.NewEcho(), nil)
	r := d.Begin(virtio.FeatureEventIdx, 256)
	h := r.Chain(virtiotest.Out(0x1000, 1))
	batch := make([]uint16, 256)
	for i := range batch {
		batch[i] = h
	}
	for i := range 260 {
		r.Offer(batch...)
		r.Kick()
		d.Wait("a batch", func() bool { return r.UsedIdx() == uint16(256*(i+1)) })
	}
	if d.Status() != 15 {
		t.Errorf("status 0x%x", d.Status())
	}
}

func Test_2_7_5_3_IndirectTable(t *testing.T) {
	for _, at := range []uint64{0x8000, 0x8001} { // a table may stand anywhere
		e := virtiotest.NewEcho()
		d := virtiotest.New(t, e, nil)
		r := d.Begin(virtio.FeatureIndirect, 4)
		d.Put(0x1000, []byte("abcdef"))
		// 20 entries: more than the queue has
		var table []byte
		for i := range 20 {
			x := virtiotest.Desc{Addr: 0x2000 + uint64(i), Len: 1, Flags: virtiotest.Next | virtiotest.Write, Next: uint16(i + 1)}
			if i < 6 {
				x = virtiotest.Desc{Addr: 0x1000 + uint64(i), Len: 1, Flags: virtiotest.Next, Next: uint16(i + 1)}
			}
			if i == 19 {
				x.Flags &^= virtiotest.Next
			}
			table = append(table, x.Bytes()...)
		}
		d.Put(at, table)
		// §2.7.5.3.2: the write flag of the referring descriptor means nothing,
		// and ordinary descriptors may come before it.
		r.Send(virtiotest.Out(0x1000, 1), virtiotest.Desc{Addr: at, Len: uint32(len(table)), Flags: virtiotest.Indirect | virtiotest.Write})
		if _, n := r.Wait(); n != 7 {
			t.Errorf("length %d", n)
		}
		if c := <-e.Chains; c != [2]int64{7, 14} {
			t.Errorf("chain %v", c)
		}
		if s := d.Get(0x2006, 7); s != "aabcdef" {
			t.Errorf("answer %q", s)
		}
	}
}

// Every way that a driver can break the rings ends in DEVICE_NEEDS_RESET with a
// configuration interrupt, nothing is answered, and a reset mends it.
func TestHostileChains(t *testing.T) {
	const (
		next, wr, ind = virtiotest.Next, virtiotest.Write, virtiotest.Indirect
		ram           = virtiotest.RAM
	)
	table := func(ds ...virtiotest.Desc) (b []byte) {
		for _, d := range ds {
			b = append(b, d.Bytes()...)
		}
		return b
	}
	type D = virtiotest.Desc
	for _, c := range []struct {
		name  string
		chain []D
		inner []byte // stands at 0x8000
		noInd bool
	}{
		{name: "Test_2_7_5 head past the table", chain: nil},
		{name: "Test_2_7_5_2 loop of one", chain: []D{{Addr: 0, Len: 1, Flags: next, Next: 0}}},
		{name: "Test_2_7_5_2 loop of two", chain: []D{{Addr: 0, Len: 1, Flags: next, Next: 1}, {Addr: 0, Len: 1, Flags: next, Next: 0}}},
		{name: "loop of empty buffers", chain: []D{{Flags: next, Next: 0}}},
		{name: "next past the table", chain: []D{{Addr: 0, Len: 1, Flags: next, Next: 8}}},
		{name: "Test_2_7_4_2 readable after writable", chain: []D{{Addr: 0, Len: 1, Flags: next | wr, Next: 1}, {Addr: 0, Len: 1}}},
		{name: "buffer past RAM", chain: []D{{Addr: ram, Len: 1}}},
		{name: "buffer across RAM's end", chain: []D{{Addr: ram - 1, Len: 2, Flags: wr}}},
		{name: "buffer that wraps", chain: []D{{Addr: 1<<64 - 1, Len: 2}}},
		{name: "buffer at the registers", chain: []D{{Addr: 1 << 40, Len: 4, Flags: wr}}},
		{name: "4 GiB", chain: []D{{Addr: 0, Len: 1<<32 - 1}}},
		{name: "Test_2_7_5_3_1 indirect not negotiated", chain: []D{{Addr: 0x8000, Len: 16, Flags: ind}}, noInd: true, inner: table(D{Len: 1})},
		{name: "Test_2_7_5_3_1 indirect with next", chain: []D{{Addr: 0x8000, Len: 16, Flags: ind | next, Next: 1}}, inner: table(D{Len: 1})},
		{name: "Test_2_7_5_3_1 indirect in indirect", chain: []D{{Addr: 0x8000, Len: 16, Flags: ind}}, inner: table(D{Addr: 0x8000, Len: 16, Flags: ind})},
		{name: "empty table", chain: []D{{Addr: 0x8000, Len: 0, Flags: ind}}},
		{name: "table of 15 bytes", chain: []D{{Addr: 0x8000, Len: 15, Flags: ind}}},
		{name: "table of 17 bytes", chain: []D{{Addr: 0x8000, Len: 17, Flags: ind}}},
		{name: "table across RAM's end", chain: []D{{Addr: ram - 16, Len: 32, Flags: ind}}},
		{name: "table of 4 GiB", chain: []D{{Addr: 0, Len: 1<<32 - 16, Flags: ind}}},
		{name: "loop in the table", chain: []D{{Addr: 0x8000, Len: 32, Flags: ind}}, inner: table(D{Len: 1, Flags: next, Next: 1}, D{Len: 1, Flags: next, Next: 1})},
		{name: "next past the inner table", chain: []D{{Addr: 0x8000, Len: 16, Flags: ind}}, inner: table(D{Len: 1, Flags: next, Next: 1})},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := virtiotest.NewEcho()
			d := virtiotest.New(t, e, nil)
			features := virtio.FeatureIndirect | virtio.FeatureEventIdx
			if c.noInd {
				features = virtio.FeatureEventIdx
			}
			r := d.Begin(features, 8)
			d.Put(0x8000, c.inner)
			for i, x := range c.chain {
				r.Put(uint16(i), x)
			}
			head := uint16(0)
			if c.chain == nil {
				head = 8
			}
			r.Offer(head)
			r.Kick()
			broken(t, d, r, e)
			d.Healthy(d.Begin(features, 8))
		})
	}
}

func broken(t *testing.T, d *virtiotest.Driver, r *virtiotest.Ring, e *virtiotest.Echo) {
	t.Helper()
	d.Wait("DEVICE_NEEDS_RESET", func() bool { return d.Status()&virtio.StatusNeedsReset != 0 })
	d.Wait("a configuration interrupt", func() bool { return d.MSIs.Count(0x40) == 1 })
	if r.UsedIdx() != 0 || len(e.Chains) != 0 {
		t.Error("the device answered")
	}
	r.Kick()
	r.Kick()
}

func TestChainOfTooManyBuffers(t *testing.T) {
	e := virtiotest.NewEcho()
	d := virtiotest.New(t, e, nil)
	r := d.Begin(virtio.FeatureIndirect, 8)
	var table []byte
	for i := range 1025 {
		x := virtiotest.Desc{Len: 1, Flags: virtiotest.Next, Next: uint16(i + 1)}
		if i == 1023 {
			x.Flags = 0
		}
		table = append(table, x.Bytes()...)
	}
	d.Put(0x8000, table)
	r.Send(virtiotest.Desc{Addr: 0x8000, Len: uint32(len(table)), Flags: virtiotest.Indirect})
	if r.Wait(); (<-e.Chains)[0] != 1024 {
		t.Error("1024 buffers were not taken whole")
	}
	d.Put(0x8000+16*1023, virtiotest.Desc{Len: 1, Flags: virtiotest.Next, Next: 1024}.Bytes())
	r.Send(virtiotest.Desc{Addr: 0x8000, Len: uint32(len(table)), Flags: virtiotest.Indirect})
	d.Wait("DEVICE_NEEDS_RESET", func() bool { return d.Status()&virtio.StatusNeedsReset != 0 })
}

func Test_2_7_6_AvailableIndexTooFarAhead(t *testing.T) {
	e := virtiotest.NewEcho()
	d := virtiotest.New(t, e, nil)
	r := d.Begin(0, 8)
	r.SetAvailIdx(9)
	r.Kick()
	broken(t, d, r, e)
}

// A driver that offers one head again and again cannot make the device hold
// more chains than the queue has entries.
func TestMoreChainsInFlightThanEntries(t *testing.T) {
	e := &hoarder{max: 16}
	d := virtiotest.New(t, e, nil)
	r := d.Begin(0, 4)
	h := r.Chain(virtiotest.Out(0, 1))
	for i := range 5 {
		r.Offer(h)
		r.Kick()
		if i < 4 {
			d.Wait("a pop", func() bool { return e.count() == i+1 })
		}
	}
	d.Wait("DEVICE_NEEDS_RESET", func() bool { return d.Status()&virtio.StatusNeedsReset != 0 })
	if n := e.count(); n != 4 {
		t.Errorf("%d chains in flight", n)
	}
	e.pushAll()
}

func Test_2_7_10_AvailableBufferNotificationSuppression(t *testing.T) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx} {
		e := virtiotest.NewEcho()
		e.Hold = make(chan bool)
		d := virtiotest.New(t, e, nil)
		r := d.Begin(features, 8)
		r.Send(virtiotest.Out(0x1000, 1))
		e.Hold <- true // the device is serving now
		r.Wait()
		if features == 0 {
			d.Wait("notifications to be wanted again", func() bool { return r.Word(r.Used) == 0 })
		} else {
			d.Wait("avail_event to follow", func() bool { return r.Word(r.AvailEvent()) == 1 })
		}
		// Not rung: the device need not look, but a later ring brings both.
		r.Offer(r.Chain(virtiotest.Out(0x1000, 1)))
		r.Send(virtiotest.Out(0x1000, 1))
		e.Hold <- true
		if features == 0 && r.Word(r.Used) != 1 {
			t.Error("no suppression while serving")
		}
		e.Hold <- true
		r.Wait()
		r.Wait()
	}
}

func Test_2_7_7_2_UsedBufferNotificationSuppression(t *testing.T) {
	d := virtiotest.New(t, virtiotest.NewEcho(), nil)
	r := d.Begin(0, 8)
	if err := d.Mem.Store16(r.Avail, 1); err != nil { // no interrupt
		t.Fatal(err)
	}
	r.Send(virtiotest.Out(0x1000, 1))
	r.Wait()
	if err := d.Mem.Store16(r.Avail, 0); err != nil {
		t.Fatal(err)
	}
	r.Send(virtiotest.Out(0x1000, 1))
	r.Wait()
	d.Wait("one interrupt", func() bool { return d.MSIs.Count(0x41) == 1 })

	r = d.Begin(virtio.FeatureEventIdx, 8)
	before := d.MSIs.Count(0x41)
	if err := d.Mem.Store16(r.UsedEvent(), 3); err != nil { // after the fourth
		t.Fatal(err)
	}
	for i := range 4 {
		r.Send(virtiotest.Out(0x1000, 1))
		r.Wait()
		if i == 0 {
			// The first one always notifies: the device has no older index to compare with.
			d.Wait("the first", func() bool { return d.MSIs.Count(0x41) == before+1 })
		}
	}
	d.Wait("the fourth", func() bool { return d.MSIs.Count(0x41) == before+2 })
}

func TestNewPCIRefusesImpossibleDevices(t *testing.T) {
	for _, queues := range [][]uint16{nil, {0}, {3}, {2048}, make([]uint16, 5000)} {
		e := virtiotest.NewEcho()
		e.Queues = queues
		if _, err := virtio.NewPCI(e, virtio.PCIConfig{}); err == nil || !strings.HasPrefix(err.Error(), "virtio: echo: ") {
			t.Errorf("%d queues: %v", len(queues), err)
		}
	}
}

// picky is a device that gives its first chain back until its host has room.
type picky struct {
	*virtiotest.Echo
	room atomic.Bool
	q    atomic.Pointer[virtio.Queue]
}

func (p *picky) Activate(_ uint64, qs []*virtio.Queue) error {
	q := qs[0]
	p.q.Store(q)
	var c virtio.Chain
	q.Start(func() {
		for q.Pop(&c) {
			for !p.room.Load() {
				q.Unpop()
				if !q.Sleep() {
					return
				}
				if !q.Pop(&c) {
					return
				}
			}
			q.Push(&c, int64(copy(c.Writable[0], c.Readable[0])))
			q.Notify()
		}
	})
	return nil
}

func TestUnpopSleepAndWake(t *testing.T) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx} {
		p := &picky{Echo: virtiotest.NewEcho()}
		d := virtiotest.New(t, p, nil)
		r := d.Begin(features, 8)
		d.Put(0x1000, []byte("first"))
		r.Send(virtiotest.Out(0x1000, 5), virtiotest.In(0x2000, 5))
		r.Send(virtiotest.Out(0x1000, 5), virtiotest.In(0x2010, 5))
		for range 20 {
			d.Dev.Pause() // with no chain kept, it returns
			d.Dev.Resume()
		}
		if r.UsedIdx() != 0 {
			t.Fatal("a chain was used")
		}
		d.Put(0x1000, []byte("later")) // a chain is as the driver has it when it is popped
		p.room.Store(true)
		p.q.Load().Wake()
		r.Wait()
		r.Wait()
		if s := d.Get(0x2000, 5) + d.Get(0x2010, 5); s != "laterlater" {
			t.Errorf("answers %q", s)
		}
		p.room.Store(false)
		r.Send(virtiotest.Out(0x1000, 5), virtiotest.In(0x2000, 5))
		d.SetStatus(0) // ends a worker that sleeps
		if d.Status() != 0 {
			t.Errorf("status 0x%x", d.Status())
		}
	}
}

func TestOnConfigChange(t *testing.T) {
	c := &changing{Echo: virtiotest.NewEcho()}
	d := virtiotest.New(t, c, nil)
	d.Begin(0, 8)
	c.changed()
	if n := d.MSIs.Count(0x40); n != 1 {
		t.Errorf("%d notifications", n)
	}
}

type changing struct {
	*virtiotest.Echo
	changed func()
}

func (c *changing) OnConfigChange(changed func()) { c.changed = changed }
