package net

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"berth/netdev"
	"berth/netdev/netdevtest"
	"berth/virtio"
	"berth/virtio/virtiotest"
)

// FuzzCommands sends commands: of each step the first byte is the length, the rest class,
// command and data. Each is answered, and what the state becomes is one that loads.
func FuzzCommands(f *testing.F) {
	step := func(b ...byte) []byte { return append([]byte{byte(len(b))}, b...) }
	f.Add(bytes.Join([][]byte{step(0, 0, 0), step(0, 1, 1), step(1, 1, 2, 2, 2, 2, 2, 2), step(2, 0, 5, 0), step(4, 0, 2, 0)}, nil))
	f.Add(bytes.Join([][]byte{step(append([]byte{1, 0}, table([][]byte{{2, 2, 2, 2, 2, 2}}, nil)...)...), step(3, 0), step(5, 0, 2, 0, 0, 0, 0, 0, 0, 0)}, nil))
	f.Add(step(append([]byte{4, 1}, rssCommand(0x3f, 0, []uint16{0, 1}, 2, rssKey)...)...))
	f.Add(step(append([]byte{4, 2, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40}, rssKey...)...))
	f.Add(step(1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0))
	f.Add(step(0))
	f.Fuzz(func(t *testing.T, steps []byte) {
		cfg := Config{Queues: 2, RSS: true, Hash: true, MTU: 1500}
		r := newRig(t, cfg, all, newFeatures(t, cfg)&^ringFeatures)
		for n := 0; len(steps) > 0 && n < 20; n++ {
			size := min(int(steps[0]), len(steps)-1)
			text := steps[1 : 1+size]
			steps = steps[1+size:]
			r.Put(outAt, text)
			r.Put(ackAt, []byte{0xee})
			ds := []virtiotest.Desc{virtiotest.In(ackAt, 1)}
			if size > 0 {
				ds = append([]virtiotest.Desc{virtiotest.Out(outAt, uint32(size))}, ds...)
			}
			r.Rings[r.control].Send(ds...)
			if _, n := r.Rings[r.control].Wait(); n != 1 || r.Get(ackAt, 1)[0] > ackError {
				t.Fatalf("answer %d of length %d", r.Get(ackAt, 1)[0], n)
			}
			for q := range 2 {
				r.arrive(tcp([]byte{1, 2, 3, 4}, []byte{5, 6, 7, 8}, []byte{1, byte(q)}, []byte{2, byte(n)}))
			}
		}
		r.Dev.Pause()
		if err := r.dev.Load(r.dev.Save()); err != nil {
			t.Error(err)
		}
		r.Dev.Resume()
		if r.Status() != 15 {
			t.Errorf("device status 0x%x", r.Status())
		}
	})
}

const ringFeatures = virtio.FeatureIndirect | virtio.FeatureEventIdx

func newFeatures(t testing.TB, cfg Config) uint64 {
	d, err := New(netdevtest.NewPipe(all), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return d.features()
}

// FuzzQueues sends chains of any shape to any queue: a step is a queue, how many
// buffers, and a byte for each: its length, the top bit its direction. Frames come
// meanwhile. Chains of the driver's output come back, and none breaks the device.
func FuzzQueues(f *testing.F) {
	f.Add(uint16(0), []byte{0, 2, 0xff, 0xff, 1, 2, 12, 60, 4, 3, 2, 5, 0x81})
	f.Add(uint16(0xffff), []byte{2, 1, 0x8c, 2, 1, 0xff, 0, 1, 0xc0, 1, 1, 100})
	f.Add(uint16(1<<3), []byte{1, 3, 12, 0x80, 70, 0, 3, 0x80, 0x81, 0x82, 0, 1, 5})
	f.Fuzz(func(t *testing.T, choice uint16, steps []byte) {
		features := featureControl | featureMultiqueue | featureGuestCSUM | featureCSUM
		for bit, feature := range []uint64{featureMergeable, featureHashReport, featureMTU, virtio.FeatureEventIdx, virtio.FeatureIndirect, featureHostTSO4, featureGuestTSO4} {
			if choice>>bit&1 != 0 {
				features |= feature
			}
		}
		r := newRig(t, Config{Queues: 2, Hash: true, MTU: 1000}, all, features)
		r.must(classMQ, mqPairs, 2, 0)
		body := make([]byte, 4096)
		for i := range body {
			body[i] = byte(choice) * byte(i)
		}
		r.Put(outAt, body)
		sent, offered := make([]int, 5), make([]int, 5)
		for n := 0; len(steps) >= 2 && n < 40; n++ {
			q, count := int(steps[0]%5), min(int(steps[1]%16), len(steps)-2)
			cut := steps[2 : 2+count]
			steps = steps[2+count:]
			ds := cutChain(cut)
			if len(ds) == 0 || offered[q] == 15 {
				continue
			}
			r.Rings[q].Send(ds...)
			if q == 1 || q == 3 || q == 4 {
				r.Rings[q].Wait()
				sent[q]++
			} else {
				offered[q]++
			}
			r.arrive(netdevtest.Frame(guestMAC, peerMAC, 60+n*30), byte(choice>>8)&3, byte(choice>>10)&1, 0, 0, 100)
		}
		for q := range 5 {
			if used := int(r.Rings[q].UsedIdx()); q != 0 && q != 2 && q != 4 && used != sent[q] || (q == 0 || q == 2) && used > offered[q] {
				t.Errorf("queue %d: %d chains were used of %d", q, used, sent[q]+offered[q])
			}
		}
		if r.Status() != 15 {
			t.Errorf("device status 0x%x", r.Status())
		}
	})
}

func cutChain(cut []byte) (ds []virtiotest.Desc) {
	at := uint64(outAt)
	for _, dir := range []byte{0, 0x80} {
		for _, c := range cut {
			if c&0x80 != dir {
				continue
			}
			d := virtiotest.Desc{Addr: at, Len: uint32(c & 0x7f)}
			if dir != 0 {
				d.Flags, d.Addr = virtiotest.Write, at-outAt+inAt
			}
			at += uint64(c & 0x7f)
			ds = append(ds, d)
		}
	}
	return ds
}

// FuzzFrames has any frame come in, with any header. It comes as it is, with a header that
// says only what was agreed, or not at all.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 34, 0, 16, 0}, tcp([]byte{1, 2, 3, 4}, []byte{5, 6, 7, 8}, []byte{1, 2}, []byte{3, 4}), true)
	f.Add([]byte{0}, tcp(make([]byte, 16), make([]byte, 16), []byte{1, 2}, []byte{3, 4}), false)
	f.Add([]byte{2, 4, 1, 1, 9, 9}, inVLAN(3), true)
	f.Add([]byte{}, []byte{1, 2, 3}, true)
	f.Fuzz(func(t *testing.T, header, body []byte, merge bool) {
		features := featureControl | featureMultiqueue | featureRSS | featureHashReport | featureGuestCSUM | featureGuestTSO4 | featureRX | featureVLAN
		if merge {
			features |= featureMergeable
		}
		body = body[:min(len(body), 3000)]
		r := newRig(t, Config{Queues: 2, RSS: true, Hash: true}, all, features)
		r.must(classMQ, mqRSS, rssCommand(0x3f, 0, []uint16{0, 1}, 2, rssKey)...)
		for q := range 2 {
			for range 8 {
				r.offer(q, 700)
			}
		}
		before := r.dev.Stats()
		r.arrive(body, header[:min(len(header), 12)]...)
		done := func() bool { return r.dev.Stats() != before }
		for i := 0; !done(); i++ {
			if i > 100000 {
				t.Fatal("the frame has neither come nor been dropped")
			}
			time.Sleep(20 * time.Microsecond)
		}
		if r.dev.Stats().ReceiveDropped != before.ReceiveDropped {
			return
		}
		q := 0
		if r.Rings[2].UsedIdx() != 0 {
			q = 1
		}
		got := r.take(q)
		if len(body) < minFrame || !bytes.Equal(got[hashHeaderSize:], body) || got[0]&^3 != 0 || got[1] != gsoNone && got[1] != gsoTCPv4 ||
			got[1] != 0 && (got[0]&1 == 0 || binary.LittleEndian.Uint16(got[4:]) == 0) {
			t.Errorf("% x came as % x", body, got)
		}
	})
}

var _ netdev.Multiqueue = (*several)(nil)

// several is a port of more than one way.
type several struct {
	*netdevtest.Pipe
	ways []netdev.Port
	used atomic.Int32
}

func (s *several) Ports() []netdev.Port { return s.ways }
func (s *several) Use(n int) error      { s.used.Store(int32(n)); return nil }
func (s *several) Close() error {
	for _, w := range s.ways {
		_ = w.Close()
	}
	return nil
}

// With a port of several ways the host steers: what comes by one goes to the queue beside,
// and is sent by it.
func TestSeveralWays(t *testing.T) {
	a, b := netdevtest.NewPipe(all), netdevtest.NewPipe(all)
	port := &several{Pipe: a, ways: []netdev.Port{a, b}}
	dev, err := New(port, Config{MAC: guestMAC, Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{dev: dev, pipe: a}
	t.Cleanup(func() { _ = dev.Close() })
	r.Driver = virtiotest.New(t, dev, nil)
	r.begin(featureControl | featureMultiqueue)
	if n := port.used.Load(); n != 1 {
		t.Errorf("%d ways are used at first", n)
	}
	r.must(classMQ, mqPairs, 2, 0)
	if n := port.used.Load(); n != 2 {
		t.Errorf("%d ways are used", n)
	}
	for q, way := range []*netdevtest.Pipe{a, b} {
		r.offer(q, 2000)
		way.ToGuest <- netdevtest.WithHeader(frame(100))
		r.take(q)
		r.send(q, netdevtest.WithHeader(frame(100)))
		way.Take(t)
	}
}
