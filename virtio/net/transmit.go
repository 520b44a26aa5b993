package net

import (
	"berth/netdev"
	"berth/virtio"
)

// notifyEvery is after how many frames the driver has its buffers back at the latest,
// while more wait.
const notifyEvery = 32

// transmitter is one transmit queue. What it has is its worker's.
type transmitter struct {
	d     *Device
	index int
	way   netdev.Port
	q     *virtio.Queue

	chain  virtio.Chain
	header [hashHeaderSize]byte
	pieces [][]byte
	start  [flowBytes]byte
}

// serve is the queue's worker.
func (t *transmitter) serve() {
	waiting := 0
	for t.q.Pop(&t.chain) {
		t.send()
		t.q.Push(&t.chain, 0)
		if waiting++; waiting == notifyEvery {
			t.q.Notify()
			waiting = 0
		}
	}
	if waiting > 0 {
		t.q.Notify()
	}
	clear(t.pieces)
}

// send passes one frame on. What is no frame, and what needs more of the port than the
// driver has accepted, is dropped.
func (t *transmitter) send() {
	p, c := t.d.plan.Load(), &t.chain
	if p == nil || !p.link || !t.split(p.header) {
		t.d.stats.TransmitDropped.Add(1)
		return
	}
	if !understood(t.header[:netdev.HeaderSize], offered(p.acked)) {
		t.d.stats.TransmitDropped.Add(1)
		return
	}
	if p.pairs > 1 && p.rss == nil && len(t.d.ways) == 1 {
		n := gather(t.start[:], t.pieces[1:])
		t.d.flows.learn(t.start[:n], t.index)
	}
	if err := t.way.Send(t.pieces); err != nil {
		t.d.stats.TransmitDropped.Add(1)
		return
	}
	t.d.stats.transmitted(int(c.ReadLen) - p.header)
}

// offered is what the driver may ask of the port.
func offered(acked uint64) netdev.Offloads {
	if acked&featureCSUM == 0 {
		return netdev.Offloads{}
	}
	uso := acked&featureHostUSO != 0
	return netdev.Offloads{
		Checksum: true,
		TSO4:     acked&featureHostTSO4 != 0, TSO6: acked&featureHostTSO6 != 0, TSOECN: acked&featureHostECN != 0,
		UFO: acked&featureHostUFO != 0, USO4: uso, USO6: uso,
	}
}

// split copies the header out, for the driver may change it meanwhile, and leaves in
// pieces that copy and the rest of the frame.
func (t *transmitter) split(size int) bool {
	c := &t.chain
	if c.ReadLen < int64(size+minFrame) || c.ReadLen-int64(size) > netdev.MaxFrame-netdev.HeaderSize {
		return false
	}
	t.pieces = append(t.pieces[:0], t.header[:netdev.HeaderSize])
	got := 0
	for _, b := range c.Readable {
		k := copy(t.header[got:size], b)
		got += k
		if k < len(b) {
			t.pieces = append(t.pieces, b[k:])
		}
	}
	return true
}

// gather copies bytes out of buffers and returns how many.
func gather(p []byte, from [][]byte) (n int) {
	for _, b := range from {
		n += copy(p[n:], b)
	}
	return n
}
