package virtiotest

import "encoding/binary"

// Descriptor flags.
const (
	Next     = 1
	Write    = 2
	Indirect = 4
)

// Desc is one descriptor as the driver writes it.
type Desc struct {
	Addr  uint64
	Len   uint32
	Flags uint16
	Next  uint16
}

// Bytes returns the descriptor as it stands in a table.
func (d Desc) Bytes() []byte {
	b := binary.LittleEndian.AppendUint64(nil, d.Addr)
	b = binary.LittleEndian.AppendUint32(b, d.Len)
	b = binary.LittleEndian.AppendUint16(b, d.Flags)
	return binary.LittleEndian.AppendUint16(b, d.Next)
}

// Out describes n bytes at gpa for the device to read.
func Out(gpa uint64, n uint32) Desc { return Desc{Addr: gpa, Len: n} }

// In describes n bytes at gpa for the device to write.
func In(gpa uint64, n uint32) Desc { return Desc{Addr: gpa, Len: n, Flags: Write} }

// Ring is the driver's side of one split virtqueue.
type Ring struct {
	Index             int
	Size              uint16
	Desc, Avail, Used uint64

	d     *Driver
	bell  uint64 // the notification register, width bytes wide
	width int
	free  uint16 // next descriptor that Chain uses
	avail uint16
	seen  uint16
	ring  [4]byte
}

func (r *Ring) must(err error) {
	r.d.T.Helper()
	if err != nil {
		r.d.T.Fatal(err)
	}
}

// Put writes descriptor i of the table.
func (r *Ring) Put(i uint16, d Desc) {
	r.d.T.Helper()
	r.must(r.d.Mem.Write(r.Desc+16*uint64(i), d.Bytes()))
}

// Chain writes a chain of descriptors, linked in order, and returns its head.
func (r *Ring) Chain(ds ...Desc) uint16 {
	r.d.T.Helper()
	head := r.free
	for i, d := range ds {
		at := r.free
		r.free = (r.free + 1) % r.Size
		if i < len(ds)-1 {
			d.Flags |= Next
			d.Next = r.free
		}
		r.Put(at, d)
	}
	return head
}

// Offer makes heads available without ringing.
func (r *Ring) Offer(heads ...uint16) {
	r.d.T.Helper()
	for _, h := range heads {
		r.must(r.d.Mem.Store16(r.Avail+4+2*uint64(r.avail%r.Size), h))
		r.avail++
	}
	r.must(r.d.Mem.Store16(r.Avail+2, r.avail))
}

// SetAvailIdx overwrites the available index.
func (r *Ring) SetAvailIdx(v uint16) { r.must(r.d.Mem.Store16(r.Avail+2, v)) }

// Kick writes the notification register. It does not allocate.
func (r *Ring) Kick() {
	binary.LittleEndian.PutUint32(r.ring[:], uint32(r.Index))
	r.d.MMIO.Write(r.bell, r.ring[:r.width])
}

// NotifyAddr returns the guest-physical address of the notification register.
func (r *Ring) NotifyAddr() uint64 { return r.bell }

// Send offers one chain and rings.
func (r *Ring) Send(ds ...Desc) uint16 {
	r.d.T.Helper()
	h := r.Chain(ds...)
	r.Offer(h)
	r.Kick()
	return h
}

// UsedIdx reads the used index.
func (r *Ring) UsedIdx() uint16 {
	v, err := r.d.Mem.Load16(r.Used + 2)
	r.must(err)
	return v
}

// Word reads a 16-bit word of a ring.
func (r *Ring) Word(gpa uint64) uint16 {
	v, err := r.d.Mem.Load16(gpa)
	r.must(err)
	return v
}

// Wait waits for the next used element.
func (r *Ring) Wait() (id, n uint32) {
	r.d.T.Helper()
	r.d.Wait("a used buffer", func() bool { return r.UsedIdx() != r.seen })
	at := r.Used + 4 + 8*uint64(r.seen%r.Size)
	r.seen++
	id, err := r.d.Mem.Load32(at)
	r.must(err)
	n, err = r.d.Mem.Load32(at + 4)
	r.must(err)
	return id, n
}

// AvailEvent is where the device writes avail_event, UsedEvent where it reads used_event.
func (r *Ring) AvailEvent() uint64 { return r.Used + 4 + 8*uint64(r.Size) }

// UsedEvent is where the driver writes used_event.
func (r *Ring) UsedEvent() uint64 { return r.Avail + 4 + 2*uint64(r.Size) }
