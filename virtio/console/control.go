package console

import (
	"encoding/binary"

	"berth/virtio"
)

// Control messages (virtio 1.2 §5.3.6.2), each followed by what its event calls for:
//
//	id 4 | event 2 | value 2
const (
	controlSize = 8

	eventDeviceReady = 0
	eventPortAdd     = 1
	eventPortReady   = 3
	eventPortOpen    = 6
	eventPortName    = 7
)

// serveControl starts the control queues. What the driver is to be told is not
// kept as messages but as the difference between what is and what it knows, so
// that no driver can make it grow.
//
//	device ready --> add port --> port ready --> name, open when somebody is there
func (d *Device) serveControl(in, out *virtio.Queue) {
	var toDriver, fromDriver virtio.Chain
	in.Start(func() {
		for {
			for !d.peek() {
				if !in.Sleep() {
					return
				}
			}
			if !in.Pop(&toDriver) {
				return
			}
			m := d.next()
			if m == nil { // who came has gone meanwhile
				in.Unpop()
				continue
			}
			in.Push(&toDriver, scatter(toDriver.Writable, m))
			in.Notify()
		}
	})
	out.Start(func() {
		for out.Pop(&fromDriver) {
			var m [controlSize]byte
			if gather(m[:], fromDriver.Readable) == controlSize {
				d.heard(&m)
			}
			out.Push(&fromDriver, 0)
			out.Notify()
		}
	})
}

// gather copies bytes out of buffers and returns how many.
func gather(p []byte, from [][]byte) (n int) {
	for _, b := range from {
		n += copy(p[n:], b)
	}
	return n
}

// scatter copies p into buffers and returns how much had room.
func scatter(to [][]byte, p []byte) (n int64) {
	for _, b := range to {
		n += int64(copy(b, p[n:]))
	}
	return n
}

// wakeControl makes the control queue look for what to tell. Called with mu held.
func (d *Device) wakeControl() {
	if d.control != nil {
		d.control.Wake()
	}
}

// peek reports whether there is something to tell the driver.
func (d *Device) peek() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.all() {
		if p.untold() != nothing {
			return true
		}
	}
	return false
}

// next returns the next message for the driver, which knows it from now on, or nil.
func (d *Device) next() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.all() {
		switch p.untold() {
		case isThere:
			p.s.Added = true
			return p.message(eventPortAdd, 0)
		case hasName:
			p.s.Named = true
			return append(p.message(eventPortName, 1), p.name...)
		case isClosed:
			p.s.Hangup, p.s.HostOpen = false, false
			return p.message(eventPortOpen, 0)
		case isOpen:
			p.s.HostOpen = true
			return p.message(eventPortOpen, 1)
		}
	}
	return nil
}

func (p *port) message(event, value uint16) []byte {
	m := binary.LittleEndian.AppendUint32(nil, uint32(p.id))
	m = binary.LittleEndian.AppendUint16(m, event)
	return binary.LittleEndian.AppendUint16(m, value)
}

// fact is something about a port that its driver does not know yet.
type fact uint8

const (
	nothing fact = iota
	isThere
	hasName
	isClosed
	isOpen
)

// untold returns the first fact that the driver is to be told. Called with d.mu held.
func (p *port) untold() fact {
	switch {
	case !p.s.Added:
		if p.d.s.Ready {
			return isThere
		}
	case !p.s.Ready:
	case !p.s.Named:
		return hasName
	case p.s.Hangup:
		return isClosed
	case p.connected && !p.s.HostOpen:
		return isOpen
	}
	return nothing
}

// heard takes a message from the driver. Ports that do not exist, and events that
// are not a driver's to send, are ignored.
func (d *Device) heard(m *[controlSize]byte) {
	le := binary.LittleEndian
	id, event, value := le.Uint32(m[0:]), le.Uint16(m[4:]), le.Uint16(m[6:])
	if event == eventDeviceReady {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.s.Ready = value == 1
		d.wakeControl()
		return
	}
	if id >= uint32(len(d.ports)) || d.ports[id] == nil {
		return
	}
	p := d.ports[id]
	p.heard(event, value)
	p.tellOpened()
}

// heard takes a message from the driver about the port.
func (p *port) heard(event, value uint16) {
	d := p.d
	d.mu.Lock()
	defer d.mu.Unlock()
	switch event {
	case eventPortReady:
		// After a suspend to disk Linux has its ports already and waits for no word of them.
		p.s.Added, p.s.Ready = true, value == 1
		d.wakeControl()
	case eventPortOpen:
		p.s.GuestOpen = value != 0
		if p.rx != nil {
			p.rx.Wake()
		}
	}
}

// tellOpened says whether the guest has the port open, if that is news.
func (p *port) tellOpened() {
	if p.opened == nil {
		return
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	p.d.mu.Lock()
	open := p.s.GuestOpen
	p.d.mu.Unlock()
	if open != p.toldOpen {
		p.toldOpen = open
		p.opened(open)
	}
}
