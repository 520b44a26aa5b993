package virtio_test

import (
	"errors"
	"strings"
	"testing"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

// echo is a device that answers each chain with what it read, and keeps what it saw.
type echo struct {
	queues   []uint16
	config   []byte
	acked    uint64
	resets   int
	refuse   error
	chains   chan [2]int64 // read and write length of each chain served
	hold     chan bool     // when not nil, one receive before each chain
	qs       []*virtio.Queue
	configIn [][]byte
}

func newEcho() *echo {
	return &echo{queues: []uint16{256}, config: []byte("configuration"), chains: make(chan [2]int64, 4096)}
}

func (e *echo) Info() virtio.Info {
	return virtio.Info{ID: 63, Name: "echo", Features: 1 << 3, Queues: e.queues, ConfigSize: len(e.config)}
}
func (e *echo) ReadConfig(p []byte, off int) { copy(p, e.config[off:]) }
func (e *echo) WriteConfig(p []byte, off int) {
	e.configIn = append(e.configIn, append([]byte(nil), p...))
}
func (e *echo) Reset() { e.resets++ }

func (e *echo) Activate(acked uint64, qs []*virtio.Queue) error {
	e.acked, e.qs = acked, qs
	for _, q := range qs {
		var c virtio.Chain
		q.Start(func() {
			for q.Pop(&c) {
				if e.hold != nil {
					<-e.hold
				}
				select {
				case e.chains <- [2]int64{c.ReadLen, c.WriteLen}:
				default:
				}
				q.Push(&c, e.answer(&c))
				q.Notify()
			}
		})
	}
	return e.refuse
}

func (e *echo) answer(c *virtio.Chain) (n int64) {
	var in []byte
	for _, b := range c.Readable {
		if len(in) < 1<<16 {
			in = append(in, b...)
		}
	}
	for _, b := range c.Writable {
		k := copy(b, in)
		in = in[k:]
		n += int64(k)
	}
	return n
}

func out(gpa uint64, n uint32) virtiotest.Desc { return virtiotest.Desc{Addr: gpa, Len: n} }
func in(gpa uint64, n uint32) virtiotest.Desc {
	return virtiotest.Desc{Addr: gpa, Len: n, Flags: virtiotest.Write}
}

func put(t testing.TB, d *virtiotest.Driver, gpa uint64, b []byte) {
	t.Helper()
	if err := d.Mem.Write(gpa, b); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, d *virtiotest.Driver, gpa uint64, n int) string {
	t.Helper()
	b := make([]byte, n)
	if err := d.Mem.Read(gpa, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// healthy sends one good chain and checks its answer.
func healthy(t *testing.T, d *virtiotest.Driver, r *virtiotest.Ring) {
	t.Helper()
	put(t, d, 0x1000, []byte("hello, device"))
	put(t, d, 0x2000, make([]byte, 32))
	h := r.Send(out(0x1000, 7), out(0x1007, 6), in(0x2000, 5), in(0x2005, 20))
	if id, n := r.Wait(); id != uint32(h) || n != 13 {
		t.Errorf("used id %d (want %d), length %d", id, h, n)
	}
	if s := get(t, d, 0x2000, 14); s != "hello, device\x00" {
		t.Errorf("answer %q", s)
	}
}

func Test_2_7_ChainThroughTheQueue(t *testing.T) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx, virtio.FeatureIndirect, virtio.FeatureEventIdx | virtio.FeatureIndirect} {
		d := virtiotest.New(t, newEcho(), nil)
		r := d.Begin(features, 8)
		for range 40 { // the rings wrap
			healthy(t, d, r)
		}
		d.Wait("an interrupt", func() bool { return d.MSIs.Count(0x41) > 0 })
	}
}

// The index is 16 bits in rings of any size: it wraps past 65535.
func Test_2_7_13_3_IndexWraps(t *testing.T) {
	d := virtiotest.New(t, newEcho(), nil)
	r := d.Begin(virtio.FeatureEventIdx, 256)
	h := r.Chain(out(0x1000, 1))
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
		e := newEcho()
		d := virtiotest.New(t, e, nil)
		r := d.Begin(virtio.FeatureIndirect, 4)
		put(t, d, 0x1000, []byte("abcdef"))
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
		put(t, d, at, table)
		// §2.7.5.3.2: the write flag of the referring descriptor means nothing,
		// and ordinary descriptors may come before it.
		r.Send(out(0x1000, 1), virtiotest.Desc{Addr: at, Len: uint32(len(table)), Flags: virtiotest.Indirect | virtiotest.Write})
		if _, n := r.Wait(); n != 7 {
			t.Errorf("length %d", n)
		}
		if c := <-e.chains; c != [2]int64{7, 14} {
			t.Errorf("chain %v", c)
		}
		if s := get(t, d, 0x2006, 7); s != "aabcdef" {
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
			e := newEcho()
			d := virtiotest.New(t, e, nil)
			features := virtio.FeatureIndirect | virtio.FeatureEventIdx
			if c.noInd {
				features = virtio.FeatureEventIdx
			}
			r := d.Begin(features, 8)
			put(t, d, 0x8000, c.inner)
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
			healthy(t, d, d.Begin(features, 8))
		})
	}
}

func broken(t *testing.T, d *virtiotest.Driver, r *virtiotest.Ring, e *echo) {
	t.Helper()
	d.Wait("DEVICE_NEEDS_RESET", func() bool { return d.Status()&virtio.StatusNeedsReset != 0 })
	d.Wait("a configuration interrupt", func() bool { return d.MSIs.Count(0x40) == 1 })
	if r.UsedIdx() != 0 || len(e.chains) != 0 {
		t.Error("the device answered")
	}
	r.Kick()
	r.Kick()
}

func TestChainOfTooManyBuffers(t *testing.T) {
	e := newEcho()
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
	put(t, d, 0x8000, table)
	r.Send(virtiotest.Desc{Addr: 0x8000, Len: uint32(len(table)), Flags: virtiotest.Indirect})
	if r.Wait(); (<-e.chains)[0] != 1024 {
		t.Error("1024 buffers were not taken whole")
	}
	put(t, d, 0x8000+16*1023, virtiotest.Desc{Len: 1, Flags: virtiotest.Next, Next: 1024}.Bytes())
	r.Send(virtiotest.Desc{Addr: 0x8000, Len: uint32(len(table)), Flags: virtiotest.Indirect})
	d.Wait("DEVICE_NEEDS_RESET", func() bool { return d.Status()&virtio.StatusNeedsReset != 0 })
}

func Test_2_7_6_AvailableIndexTooFarAhead(t *testing.T) {
	e := newEcho()
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
	h := r.Chain(out(0, 1))
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
		e := newEcho()
		e.hold = make(chan bool)
		d := virtiotest.New(t, e, nil)
		r := d.Begin(features, 8)
		r.Send(out(0x1000, 1))
		e.hold <- true // the device is serving now
		r.Wait()
		if features == 0 {
			d.Wait("notifications to be wanted again", func() bool { return r.Word(r.Used) == 0 })
		} else {
			d.Wait("avail_event to follow", func() bool { return r.Word(r.AvailEvent()) == 1 })
		}
		// Not rung: the device need not look, but a later ring brings both.
		r.Offer(r.Chain(out(0x1000, 1)))
		r.Send(out(0x1000, 1))
		e.hold <- true
		if features == 0 && r.Word(r.Used) != 1 {
			t.Error("no suppression while serving")
		}
		e.hold <- true
		r.Wait()
		r.Wait()
	}
}

func Test_2_7_7_2_UsedBufferNotificationSuppression(t *testing.T) {
	d := virtiotest.New(t, newEcho(), nil)
	r := d.Begin(0, 8)
	if err := d.Mem.Store16(r.Avail, 1); err != nil { // no interrupt
		t.Fatal(err)
	}
	r.Send(out(0x1000, 1))
	r.Wait()
	if err := d.Mem.Store16(r.Avail, 0); err != nil {
		t.Fatal(err)
	}
	r.Send(out(0x1000, 1))
	r.Wait()
	d.Wait("one interrupt", func() bool { return d.MSIs.Count(0x41) == 1 })

	r = d.Begin(virtio.FeatureEventIdx, 8)
	before := d.MSIs.Count(0x41)
	if err := d.Mem.Store16(r.UsedEvent(), 3); err != nil { // after the fourth
		t.Fatal(err)
	}
	for i := range 4 {
		r.Send(out(0x1000, 1))
		r.Wait()
		if i == 0 {
			// The first one always notifies: the device has no older index to compare with.
			d.Wait("the first", func() bool { return d.MSIs.Count(0x41) == before+1 })
		}
	}
	d.Wait("the fourth", func() bool { return d.MSIs.Count(0x41) == before+2 })
}

func TestActivateErrorNeedsReset(t *testing.T) {
	e := newEcho()
	e.refuse = errors.New("no")
	d := virtiotest.New(t, e, nil)
	d.Begin(0, 8)
	if s := d.Status(); s != 15|virtio.StatusNeedsReset {
		t.Errorf("status 0x%x", s)
	}
}

func TestNewPCIRefusesImpossibleDevices(t *testing.T) {
	for _, queues := range [][]uint16{nil, {0}, {3}, {2048}, make([]uint16, 5000)} {
		e := newEcho()
		e.queues = queues
		if _, err := virtio.NewPCI(e, virtio.PCIConfig{}); err == nil || !strings.HasPrefix(err.Error(), "virtio: echo: ") {
			t.Errorf("%d queues: %v", len(queues), err)
		}
	}
}
