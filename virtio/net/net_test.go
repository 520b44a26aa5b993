package net

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"berth/netdev"
	"berth/netdev/netdevtest"
	"berth/virtio"
	"berth/virtio/virtiotest"
)

const (
	allRings = virtio.FeatureEventIdx | virtio.FeatureIndirect
	outAt    = 0x10000  // what the driver sends
	inAt     = 0x40000  // where it receives
	ackAt    = 0x180000 // where the answer to a command comes
	ringSize = 64
)

var (
	guestMAC = [6]byte{0x52, 0x54, 0, 1, 2, 3}
	peerMAC  = [6]byte{0x52, 0x54, 0, 9, 9, 9}
	all      = netdev.Offloads{Checksum: true, TSO4: true, TSO6: true, TSOECN: true, UFO: true, USO4: true, USO6: true}
)

// rig is a driver with all queues of a device set up, and the far end of its cable.
type rig struct {
	*virtiotest.Driver
	dev     *Device
	pipe    *netdevtest.Pipe
	buffers map[int][]buffer // of each receive queue, in the order in which they were offered
	control int
	next    uint64
	used    int // buffers of receive queue 0, for who counts them
}

type buffer struct {
	gpa  uint64
	size uint32
}

func newRig(t testing.TB, cfg Config, can netdev.Offloads, features uint64) *rig {
	t.Helper()
	if cfg.MAC == ([6]byte{}) {
		cfg.MAC = guestMAC
	}
	pipe := netdevtest.NewPipe(can)
	dev, err := New(pipe, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{dev: dev, pipe: pipe}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	r.Driver = virtiotest.New(t, dev, nil) // reset before that, in its own cleanup
	r.begin(features)
	return r
}

// begin negotiates and sets up all queues.
func (r *rig) begin(features uint64) {
	r.T.Helper()
	r.Rings, r.buffers, r.next = nil, map[int][]buffer{}, inAt
	if !r.Negotiate(features | virtio.FeatureVersion1) {
		r.T.Fatal("FEATURES_OK did not stick")
	}
	r.EnableMSIX()
	r.Write(virtiotest.Common, 0x10, 2, 0)
	for i := range r.dev.Info().Queues {
		r.AddQueue(i, ringSize)
	}
	r.control = 2
	if features&(featureMultiqueue|featureRSS) != 0 {
		r.control = 2 * r.dev.cfg.Queues
	}
	r.SetStatus(15)
}

// offer gives receive queue q a buffer.
func (r *rig) offer(q int, size uint32) {
	r.T.Helper()
	b := buffer{r.next, size}
	r.next += uint64(size)
	r.buffers[q] = append(r.buffers[q], b)
	r.Rings[2*q].Send(virtiotest.In(b.gpa, size))
}

// take returns the next frame of receive queue q with its header.
func (r *rig) take(q int) []byte {
	r.T.Helper()
	size := netdev.HeaderSize
	if r.Features&featureHashReport != 0 {
		size = hashHeaderSize
	}
	frame := r.one(q)
	if len(frame) < size {
		r.T.Fatalf("%d bytes came", len(frame))
	}
	for n := binary.LittleEndian.Uint16(frame[10:]); n > 1; n-- {
		frame = append(frame, r.one(q)...)
	}
	return frame
}

func (r *rig) one(q int) []byte {
	r.T.Helper()
	_, n := r.Rings[2*q].Wait()
	b := r.buffers[q][0]
	r.buffers[q] = r.buffers[q][1:]
	return []byte(r.Get(b.gpa, int(n)))
}

// quiet checks that receive queue q has nothing though there was time.
func (r *rig) quiet(q int) {
	r.T.Helper()
	before := r.Rings[2*q].UsedIdx()
	time.Sleep(20 * time.Millisecond)
	if r.Rings[2*q].UsedIdx() != before {
		r.T.Errorf("receive queue %d got a frame", q)
	}
}

// arrive has a frame come from outside.
func (r *rig) arrive(frame []byte, header ...byte) {
	r.pipe.ToGuest <- netdevtest.WithHeader(frame, header...)
}

// send has the driver send a frame, header first, in buffers of the sizes cut.
func (r *rig) send(q int, frame []byte, cut ...int) {
	r.T.Helper()
	r.Put(outAt, frame)
	var ds []virtiotest.Desc
	at := uint64(outAt)
	left := len(frame)
	for _, n := range append(cut, left) {
		if n = min(n, left); n > 0 {
			ds = append(ds, virtiotest.Out(at, uint32(n)))
			at, left = at+uint64(n), left-n
		}
	}
	ring := r.Rings[2*q+1]
	ring.Send(ds...)
	if _, n := ring.Wait(); n != 0 {
		r.T.Errorf("used length %d of a transmit buffer", n)
	}
}

// command sends a command and returns the answer.
func (r *rig) command(class, command byte, data ...byte) byte {
	r.T.Helper()
	r.Put(outAt, append([]byte{class, command}, data...))
	r.Put(ackAt, []byte{0xee})
	ds := []virtiotest.Desc{virtiotest.Out(outAt, 2)}
	if len(data) > 0 {
		ds = append(ds, virtiotest.Out(outAt+2, uint32(len(data))))
	}
	ring := r.Rings[r.control]
	ring.Send(append(ds, virtiotest.In(ackAt, 1))...)
	if _, n := ring.Wait(); n != 1 {
		r.T.Errorf("used length %d of a command", n)
	}
	return r.Get(ackAt, 1)[0]
}

func (r *rig) must(class, command byte, data ...byte) {
	r.T.Helper()
	if ack := r.command(class, command, data...); ack != ackOK {
		r.T.Errorf("class %d command %d: answer %d", class, command, ack)
	}
}

func (r *rig) refused(class, command byte, data ...byte) {
	r.T.Helper()
	if ack := r.command(class, command, data...); ack != ackError {
		r.T.Errorf("class %d command %d %v: answer %d", class, command, data, ack)
	}
}

func frame(n int) []byte { return netdevtest.Frame(guestMAC, peerMAC, n) }

func TestFramesBothWays(t *testing.T) {
	for _, features := range []uint64{0, featureMergeable, allRings | featureMAC | featureStatus | featureMergeable} {
		r := newRig(t, Config{}, netdev.Offloads{}, features)
		for i := range 200 {
			n := 60 + i*7
			r.send(0, netdevtest.WithHeader(frame(n)), i%13, i%40)
			if got := r.pipe.Take(t); !bytes.Equal(got, netdevtest.WithHeader(frame(n))) {
				t.Fatalf("frame %d: sent % x", i, got)
			}
			r.offer(0, 1600)
			if r.next > ackAt-0x10000 {
				r.next = inAt
			}
			r.arrive(frame(n))
			got := r.take(0)
			if !bytes.Equal(got, netdevtest.WithHeader(frame(n), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)) {
				t.Fatalf("frame %d: received % x", i, got)
			}
		}
		if s := r.dev.Stats(); s.ReceivedFrames != 200 || s.TransmittedFrames != 200 || s.ReceiveDropped+s.TransmitDropped != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// stiff is a port of two ways that cannot change which it uses.
type stiff struct{ *netdevtest.Pipe }

func (s stiff) Ports() []netdev.Port { return []netdev.Port{s.Pipe} }
func (s stiff) Use(int) error        { return errors.New("no") }

// A command that the host refuses changes nothing.
func TestARefusedNumberOfQueuesChangesNothing(t *testing.T) {
	d, err := New(stiff{netdevtest.NewPipe(netdev.Offloads{})}, Config{Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.acked = featureMultiqueue
	if d.command(classMQ, mqPairs, []byte{2, 0}) || d.s.Pairs != 1 {
		t.Errorf("%d pairs", d.s.Pairs)
	}
}
