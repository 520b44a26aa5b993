package net

import (
	"encoding/binary"
	"sync/atomic"

	"berth/netdev"
)

const (
	flowBits  = 12
	flowBytes = 96 // of a frame's start, which tell its flow
)

// flowTable remembers by which queue a flow was sent, so that what comes for it comes to
// the queue beside (§5.1.6.5.5: automatic receive steering). Flows that share an entry
// share the queue; the guest can fill it but not make it grow.
type flowTable [1 << flowBits]atomic.Uint32 // queue number + 1

func (t *flowTable) clear() {
	for i := range t {
		t[i].Store(0)
	}
}

func (t *flowTable) learn(frame []byte, queue int) {
	if i, ok := flowOf(frame); ok && t[i].Load() != uint32(queue+1) {
		t[i].Store(uint32(queue + 1))
	}
}

// queue is where a frame belongs, of n queues.
func (t *flowTable) queue(frame []byte, n int) int {
	i, ok := flowOf(frame)
	if !ok {
		return 0
	}
	if q := int(t[i].Load()); q > 0 && q <= n {
		return q - 1
	}
	return int(i) % n
}

// flowOf is the place of a frame's flow, the same for both directions; ok is false for
// what is not IP.
func flowOf(frame []byte) (place uint32, ok bool) {
	p, ok := parse(frame)
	if !ok {
		return 0, false
	}
	var h uint32
	for i := 0; i+4 <= len(p.source); i += 4 {
		h = h*31 + (binary.BigEndian.Uint32(p.source[i:]) ^ binary.BigEndian.Uint32(p.destination[i:]))
	}
	if p.ports != nil {
		h ^= uint32(binary.BigEndian.Uint16(p.ports)^binary.BigEndian.Uint16(p.ports[2:])) | uint32(p.protocol)<<16
	}
	return h * 0x9e3779b1 >> (32 - flowBits), true
}

// steer is the number of the receive queue for a frame that came by a way.
func (d *Device) steer(p *plan, way int, frame []byte, sum hashed) int {
	switch {
	case p.rss != nil:
		return p.rss.queue(sum)
	case p.pairs == 1:
		return 0
	case len(d.ways) > 1: // the host has steered
		return way % p.pairs
	}
	return d.flows.queue(frame[netdev.HeaderSize:], p.pairs)
}
