package vsock

import (
	"encoding/binary"

	"berth/virtio"
)

// Operations (virtio 1.2 §5.10.6).
const (
	opRequest       = 1
	opResponse      = 2
	opReset         = 3
	opShutdown      = 4
	opData          = 5 // RW
	opCreditUpdate  = 6
	opCreditRequest = 7
)

// Flags of opShutdown (§5.10.6.5): the sender receives, or sends, no more.
const (
	shutReceive = 1
	shutSend    = 2
)

const typeStream = 1

// header is struct virtio_vsock_hdr (§5.10.6), little-endian:
//
//	 0 src_cid 8 |  8 dst_cid 8 | 16 src_port 4 | 20 dst_port 4
//	24 len 4     | 28 type 2    | 30 op 2       | 32 flags 4
//	36 buf_alloc 4 | 40 fwd_cnt 4
type header struct {
	srcCID, dstCID      uint64
	srcPort, dstPort    uint32
	len                 uint32
	kind, op            uint16
	flags               uint32
	bufAlloc, forwarded uint32
}

const headerSize = 44

func (h *header) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(le.AppendUint64(b, h.srcCID), h.dstCID)
	b = le.AppendUint32(le.AppendUint32(b, h.srcPort), h.dstPort)
	b = le.AppendUint16(le.AppendUint16(le.AppendUint32(b, h.len), h.kind), h.op)
	return le.AppendUint32(le.AppendUint32(le.AppendUint32(b, h.flags), h.bufAlloc), h.forwarded)
}

func parseHeader(b *[headerSize]byte) (h header) {
	le := binary.LittleEndian
	h.srcCID, h.dstCID = le.Uint64(b[0:]), le.Uint64(b[8:])
	h.srcPort, h.dstPort = le.Uint32(b[16:]), le.Uint32(b[20:])
	h.len, h.kind, h.op = le.Uint32(b[24:]), le.Uint16(b[28:]), le.Uint16(b[30:])
	h.flags, h.bufAlloc, h.forwarded = le.Uint32(b[32:]), le.Uint32(b[36:]), le.Uint32(b[40:])
	return h
}

// handle acts on a packet of the driver's. One that is not whole, or not from this
// guest to the host, is dropped.
func (d *Device) handle(c *virtio.Chain) {
	var b [headerSize]byte
	n := 0
	for _, p := range c.Readable {
		n += copy(b[n:], p)
	}
	h := parseHeader(&b)
	if n < headerSize || h.srcCID != d.cid || h.dstCID != HostCID || int64(h.len) > c.ReadLen-headerSize {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.kind != typeStream { // §5.10.6.4.2
		d.answer(h)
		return
	}
	k := key{h.srcPort, h.dstPort}
	conn := d.conns[k]
	switch {
	case h.op == opRequest && conn == nil:
		d.accept(k, h)
		return
	case conn == nil || h.op == opRequest:
		d.answer(h)
		return
	}
	conn.peerAlloc, conn.peerForwarded = h.bufAlloc, h.forwarded
	switch h.op {
	case opResponse:
		conn.responded()
	case opReset:
		d.remove(conn)
	case opShutdown:
		conn.peerShut(h.flags)
	case opData:
		conn.receive(c, int(h.len))
	case opCreditRequest:
		conn.credit = true
	case opCreditUpdate:
	default:
		conn.abort()
	}
	if conn.ready() {
		d.enqueue(conn)
	}
	conn.room.Broadcast()
}

// accept begins a connection of the guest's. Connecting to a program of the host may
// take a while.
func (d *Device) accept(k key, h header) {
	if len(d.conns) >= maxConnections || d.dialing == maxDialing {
		d.answer(h)
		return
	}
	c := d.newConn(k)
	c.peerAlloc, c.peerForwarded = h.bufAlloc, h.forwarded
	d.dialing++
	go func() {
		host, err := d.host.Dial(k.host)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.dialing--
		switch {
		case c.gone && err == nil:
			_ = host.Close()
		case c.gone:
		case err != nil:
			c.abort()
			d.enqueue(c)
		default:
			c.host, c.response = host, true
			c.begin()
			d.enqueue(c)
		}
	}()
}
