package vsock

import (
	"slices"
	"sync"
	"time"

	"berth/virtio"
)

// answerTime is how long a guest has to take a connection of the host's, or to let
// go of one that it has shut down with bytes that the host does not take.
const answerTime = 10 * time.Second

// conn is one connection. Device.mu guards it.
//
//	guest's: REQUEST --Dial--> RESPONSE sent --> established
//	host's:  REQUEST sent --RESPONSE--> established
//	established --SHUTDOWN of both halves, bytes written--> RST sent --> gone
//	any --RST--> gone; any --error of the host's end--> RST sent --> gone
type conn struct {
	d           *Device
	room        sync.Cond // its buffers, credit and end have changed; with Device.mu
	key         key
	host        Conn // nil while it is dialled
	established func(hostPort uint32) error
	timer       *time.Timer
	open        bool // established
	gone        bool
	queued      bool // it has a turn at the receive queue

	// What is to be sent to the guest, in this order.
	request, response, credit bool
	toGuest                   []byte // read from the host
	ended                     bool   // the host sends no more; the guest is told behind toGuest
	told                      bool   // it has been told
	reset                     bool   // RST is all that is sent any more

	// Credit (§5.10.6.3), all free-running.
	sent, peerAlloc, peerForwarded uint32
	received, forwarded, announced uint32

	toHost     []byte // from the guest
	peerNoSend bool   // the guest sends no more
	peerNoTake bool   // the guest receives no more
}

func (d *Device) newConn(k key) *conn {
	c := &conn{d: d, key: k}
	c.room.L = &d.mu
	d.conns[k] = c
	return c
}

// remove ends c. Its goroutines see it and its host's end closed. It gives up its turn: a
// guest that receives nothing could make the turns of those that are gone grow.
func (d *Device) remove(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	delete(d.conns, c.key)
	if c.queued {
		d.ready = slices.DeleteFunc(d.ready, func(o *conn) bool { return o == c })
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.host != nil {
		_ = c.host.Close()
	}
	c.room.Broadcast()
}

// abort has c end with a reset.
func (c *conn) abort() {
	c.reset = true
	c.toGuest, c.toHost = nil, nil
	if c.host != nil {
		_ = c.host.Close()
	}
	c.room.Broadcast()
}

// expire has c end unless its timer is stopped.
func (c *conn) expire() {
	if c.timer != nil {
		return
	}
	c.timer = time.AfterFunc(answerTime, func() {
		c.d.mu.Lock()
		defer c.d.mu.Unlock()
		if !c.gone {
			c.abort()
			c.d.enqueue(c)
		}
	})
}

// begin starts moving bytes.
func (c *conn) begin() {
	c.open = true
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if c.peerNoSend && c.peerNoTake {
		c.expire()
	}
	go c.readHost()
	go c.writeHost()
}

// responded is the guest's answer to a connection of the host's.
func (c *conn) responded() {
	if c.open || c.established == nil {
		c.abort()
		return
	}
	established := c.established
	c.established = nil
	go func() {
		err := established(c.key.host)
		c.d.mu.Lock()
		defer c.d.mu.Unlock()
		switch {
		case c.gone || c.reset:
		case err != nil:
			c.abort()
			c.d.enqueue(c)
		default:
			c.begin()
		}
	}()
}

// receive takes the payload of a packet.
func (c *conn) receive(chain *virtio.Chain, n int) {
	if c.reset || c.peerNoSend {
		return
	}
	if uint32(n) > bufferToHost-(c.received-c.forwarded) || !c.answered() {
		c.abort() // more than it was told to send, or too early
		return
	}
	c.received += uint32(n)
	skip := headerSize
	for _, b := range chain.Readable {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		b = b[skip:]
		skip = 0
		k := min(n, len(b))
		c.toHost = append(c.toHost, b[:k]...)
		n -= k
	}
}

// peerShut notes which halves the guest has shut down; that is for good.
func (c *conn) peerShut(flags uint32) {
	c.peerNoSend = c.peerNoSend || flags&shutSend != 0
	c.peerNoTake = c.peerNoTake || flags&shutReceive != 0
	if c.peerNoTake {
		c.toGuest = nil
	}
	switch {
	case !c.answered():
		c.abort()
	case c.peerNoSend && c.peerNoTake:
		c.expire()
	}
}

// answered reports whether REQUEST was followed by RESPONSE.
func (c *conn) answered() bool { return c.host != nil && c.established == nil }

// writeHost moves bytes to the host's end, and shuts that down behind the last.
func (c *conn) writeHost() {
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for !c.gone && !c.reset && len(c.toHost) == 0 && !c.peerNoSend {
			c.room.Wait()
		}
		if c.gone || c.reset {
			return
		}
		if len(c.toHost) == 0 {
			break
		}
		b := c.toHost
		c.toHost = nil
		d.mu.Unlock()
		_, err := c.host.Write(b)
		d.mu.Lock()
		if c.gone || c.reset {
			return
		}
		c.forwarded += uint32(len(b))
		if err != nil {
			c.abort()
			d.enqueue(c)
			return
		}
		if c.forwarded-c.announced >= bufferToHost/2 {
			c.credit = true
			d.enqueue(c)
		}
	}
	_ = c.host.CloseWrite()
	for !c.gone && !c.reset && !c.peerNoTake { // the other half goes on
		c.room.Wait()
	}
	if !c.gone && !c.reset {
		c.abort()
		d.enqueue(c)
	}
}

// readHost moves bytes from the host's end, as many as the guest has room for.
func (c *conn) readHost() {
	d := c.d
	buf := make([]byte, 16<<10)
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for !c.gone && !c.reset && len(c.toGuest) >= bufferToGuest {
			c.room.Wait()
		}
		if c.gone || c.reset {
			return
		}
		room := min(len(buf), bufferToGuest-len(c.toGuest))
		d.mu.Unlock()
		n, err := c.host.Read(buf[:room])
		d.mu.Lock()
		if c.gone || c.reset {
			return
		}
		if !c.peerNoTake {
			c.toGuest = append(c.toGuest, buf[:n]...)
		}
		if err != nil {
			c.ended = true
		}
		if c.ready() {
			d.enqueue(c)
		}
		if err != nil {
			return
		}
	}
}

// free is how much the guest has room for.
func (c *conn) free() int {
	used := c.sent - c.peerForwarded
	if used >= c.peerAlloc {
		return 0
	}
	return int(c.peerAlloc - used)
}

// ready reports whether there is something to be sent to the guest.
func (c *conn) ready() bool {
	return !c.gone && (c.reset || c.request || c.response || c.credit ||
		len(c.toGuest) > 0 && c.free() > 0 || c.ended && !c.told && len(c.toGuest) == 0)
}

// next makes the next packet for the guest in buf, at most size bytes.
func (c *conn) next(buf []byte, size int) []byte {
	if !c.ready() {
		return nil
	}
	h := header{
		srcCID: HostCID, dstCID: c.d.cid, srcPort: c.key.host, dstPort: c.key.guest, kind: typeStream,
		bufAlloc: bufferToHost, forwarded: c.forwarded,
	}
	var payload []byte
	switch {
	case c.reset:
		h.op = opReset
		c.d.remove(c)
	case c.request:
		h.op, c.request = opRequest, false
	case c.response:
		h.op, c.response = opResponse, false
	case len(c.toGuest) > 0 && c.free() > 0 && size > headerSize:
		payload = c.toGuest[:min(len(c.toGuest), c.free(), size-headerSize)]
		h.op, h.len = opData, uint32(len(payload))
		c.sent += h.len
	case c.credit, len(c.toGuest) > 0:
		h.op = opCreditUpdate
	default:
		h.op, h.flags, c.told = opShutdown, shutSend, true
	}
	c.credit = false // every packet says it
	c.announced = c.forwarded
	packet := append(h.append(buf), payload...)
	if len(payload) > 0 {
		c.toGuest = c.toGuest[len(payload):]
		if len(c.toGuest) == 0 {
			c.toGuest = nil
		}
		c.room.Broadcast()
	}
	return packet
}
