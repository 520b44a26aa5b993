package net

import (
	"encoding/binary"
	"slices"

	"berth/netdev"
	"berth/virtio"
)

// Classes of commands, and the commands of each (§5.1.6.5).
const (
	classRX, rxPromiscuous, rxAllMulti, rxAllUni, rxNoMulti, rxNoUni, rxNoBroadcast = 0, 0, 1, 2, 3, 4, 5

	classMAC, macTableSet, macAddrSet         = 1, 0, 1
	classVLAN, vlanAdd, vlanDel               = 2, 0, 1
	classAnnounce, announceAck                = 3, 0
	classMQ, mqPairs, mqRSS, mqHash           = 4, 0, 1, 2
	classGuestOffloads, guestOffloadsSet      = 5, 0
	ackOK, ackError                      byte = 0, 1
)

// maxCommand bounds a command, in bytes: a table of ten thousand addresses.
const maxCommand = 64 << 10

// controller is the control queue. What it has is its worker's.
type controller struct {
	d     *Device
	q     *virtio.Queue
	chain virtio.Chain
	text  []byte
}

// serve is the queue's worker. Commands (§5.1.6.5):
//
//	readable: class 1 | command 1 | what it needs …
//	writable: ack 1
func (c *controller) serve() {
	for c.q.Pop(&c.chain) {
		ack, n := ackError, int64(0)
		if c.chain.ReadLen >= 2 && c.chain.ReadLen <= maxCommand {
			c.text = slices.Grow(c.text[:0], int(c.chain.ReadLen))[:c.chain.ReadLen]
			gather(c.text, c.chain.Readable)
			if c.d.command(c.text[0], c.text[1], c.text[2:]) {
				ack = ackOK
			}
		}
		if c.chain.WriteLen > 0 {
			c.chain.Writable[0][0], n = ack, 1
		}
		c.q.Push(&c.chain, n)
		c.q.Notify()
	}
}

// command does what the driver wants and reports whether it could. When it returns
// nothing goes by what was before.
func (d *Device) command(class, command byte, data []byte) bool {
	d.mu.Lock()
	filter := class == classRX || class == classMAC || class == classVLAN
	ok := d.apply(class, command, data)
	if ok {
		d.publish()
	}
	d.mu.Unlock()
	if ok && filter && d.cfg.FilterChanged != nil {
		d.cfg.FilterChanged()
	}
	return ok
}

// apply changes the state as a command says, if its feature was negotiated and it makes
// sense; else it changes nothing. Called with mu held.
func (d *Device) apply(class, command byte, data []byte) bool {
	has := func(feature uint64) bool { return d.acked&feature != 0 }
	switch class {
	case classRX:
		return d.setMode(command, data)
	case classMAC:
		switch {
		case command == macTableSet && has(featureRX):
			return d.setTable(data)
		case command == macAddrSet && has(featureSetMAC) && len(data) == 6:
			d.s.MAC = [6]byte(data)
			return true
		}
	case classVLAN:
		if command > vlanDel || !has(featureVLAN) || len(data) != 2 {
			return false
		}
		id := binary.LittleEndian.Uint16(data)
		if id >= 4096 {
			return false
		}
		d.s.VLANs.set(id, command == vlanAdd)
		return true
	case classAnnounce:
		if command != announceAck || !has(featureAnnounce) || !d.s.Announce {
			return false
		}
		d.s.Announce = false
		return true
	case classMQ:
		return d.setQueues(command, data)
	case classGuestOffloads:
		return command == guestOffloadsSet && has(featureGuestOffloads) && d.setOffloads(data)
	}
	return false
}

// setMode switches one of the ways to receive more, or less.
func (d *Device) setMode(command byte, data []byte) bool {
	s := &d.s
	modes := [...]*bool{&s.Promiscuous, &s.AllMulticast, &s.AllUnicast, &s.NoMulticast, &s.NoUnicast, &s.NoBroadcast}
	needs := featureRX
	if command > rxAllMulti {
		needs = featureRXExtra
	}
	if int(command) >= len(modes) || d.acked&needs == 0 || len(data) != 1 {
		return false
	}
	*modes[command] = data[0] != 0
	return true
}

// setTable takes the tables of addresses, unicast and then multicast, each
//
//	entries 4 | entries × address 6
func (d *Device) setTable(data []byte) bool {
	var tables [2][][6]byte
	var over [2]bool
	for i := range tables {
		if len(data) < 4 {
			return false
		}
		n := uint64(binary.LittleEndian.Uint32(data))
		data = data[4:]
		if n*6 > uint64(len(data)) {
			return false
		}
		if over[i] = n > maxAddresses; !over[i] {
			for k := range n {
				tables[i] = append(tables[i], [6]byte(data[6*k:]))
			}
		}
		data = data[6*n:]
	}
	if len(data) != 0 {
		return false
	}
	d.s.Unicast, d.s.Multicast, d.s.AnyUnicast, d.s.AnyMulticast = tables[0], tables[1], over[0], over[1]
	return true
}

// setOffloads switches what the driver receives, of what it has accepted.
func (d *Device) setOffloads(data []byte) bool {
	if len(data) != 8 {
		return false
	}
	bits := binary.LittleEndian.Uint64(data)
	if bits&^(d.acked&guestOffloads) != 0 {
		return false
	}
	old, set := d.s.Offloads, d.s.OffloadsSet
	d.s.Offloads, d.s.OffloadsSet = bits, true
	if d.offload() != nil {
		d.s.Offloads, d.s.OffloadsSet = old, set
		return false
	}
	return true
}

// setQueues chooses how frames come to the receive queues.
func (d *Device) setQueues(command byte, data []byte) bool {
	old := d.s
	switch command {
	case mqPairs:
		if d.acked&featureMultiqueue == 0 || len(data) != 2 {
			return false
		}
		n := binary.LittleEndian.Uint16(data)
		if n < 1 || int(n) > d.cfg.Queues {
			return false
		}
		d.s.Pairs, d.s.RSS = n, nil
	case mqRSS:
		r, ok := parseRSS(data, d.cfg.Queues)
		if d.acked&featureRSS == 0 || !ok {
			return false
		}
		d.s.Pairs, d.s.RSS, d.s.Hash = r.Pairs, r, nil
	case mqHash:
		h, ok := parseHash(data)
		if d.acked&featureHashReport == 0 || !ok {
			return false
		}
		d.s.Hash = h
	default:
		return false
	}
	d.prepareHash()
	if m, ok := d.port.(netdev.Multiqueue); ok && m.Use(int(d.s.Pairs)) != nil {
		d.s = old
		d.prepareHash()
		return false
	}
	return true
}
