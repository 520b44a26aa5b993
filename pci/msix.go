package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"berth/bus"
	"berth/irq"
)

const (
	capMSIX      = 0x11
	msixEnable   = 1 << 15
	msixMaskAll  = 1 << 14
	msixEntry    = 16
	msixMaxCount = 2048
	vectorMasked = 1
)

// MSIX is a function's message-signalled interrupts (PCI Local Bus 3.0 §6.8.2).
// Safe for concurrent use.
//
//	table entry   0  message address | 8  data | 12  vector control, bit 0 masked
//	capability    2  31 enable … as 16 bits: 15 enable | 14 mask all | 10..0 vectors - 1
type MSIX struct {
	cap int // offset of the capability; fixed once built

	mu      sync.Mutex
	enabled bool
	masked  bool // function mask
	vectors []vector
}

type vector struct {
	addr    uint64
	data    uint32
	ctl     uint32
	pending bool
	source  irq.MSISource
	live    bool // source is programmed and not masked
}

// AddMSIX gives the function n vectors, their table at the start of 32-bit BAR
// i and the pending bits behind it.
func (f *Function) AddMSIX(i, n int) (*MSIX, error) {
	if n < 1 || n > msixMaxCount || f.msix != nil {
		return nil, fmt.Errorf("pci: %s: cannot have %d MSI-X vectors", f.name, n)
	}
	x := &MSIX{vectors: make([]vector, n)}
	pba := uint64(2048)
	for pba < uint64(n)*msixEntry {
		pba *= 2
	}
	if err := f.AddBAR(i, BAR32, 2*pba, &msixBAR{x, pba}); err != nil {
		return nil, err
	}
	var body, mask [10]byte
	le := binary.LittleEndian
	le.PutUint16(body[0:], uint16(n-1))
	le.PutUint32(body[2:], uint32(i))
	le.PutUint32(body[6:], uint32(pba)|uint32(i))
	le.PutUint16(mask[0:], msixEnable|msixMaskAll)
	off, err := f.AddCapability(capMSIX, body[:], mask[:])
	if err != nil {
		return nil, err
	}
	x.cap = off
	x.resetVectors()
	f.msix = x
	return x, nil
}

// Vectors returns how many vectors there are.
func (x *MSIX) Vectors() int { return len(x.vectors) }

// Enabled reports whether the guest has switched the function to MSI-X.
func (x *MSIX) Enabled() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.enabled
}

// Trigger sends vector v's message; a masked vector becomes pending instead. It
// reports whether MSI-X is enabled, so that the caller falls back to INTx.
// A v that does not exist is ignored.
func (x *MSIX) Trigger(v int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.enabled && v < len(x.vectors) {
		e := &x.vectors[v]
		if e.live {
			e.source.Trigger()
		} else {
			e.pending = true
		}
	}
	return x.enabled
}

// allocate gives every vector its source.
func (x *MSIX) allocate(a irq.MSIAllocator) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.vectors {
		s, err := a.NewMSISource()
		if err != nil {
			return fmt.Errorf("MSI-X vector %d: %w", i, err)
		}
		x.vectors[i].source = s
	}
	return nil
}

func (x *MSIX) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var err error
	for i := range x.vectors {
		if s := x.vectors[i].source; s != nil {
			err = errors.Join(err, s.Close())
		}
		x.vectors[i].source, x.vectors[i].live = nil, false
	}
	return err
}

// control takes over the capability's message control word.
func (x *MSIX) control(v uint16) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.enabled, x.masked = v&msixEnable != 0, v&msixMaskAll != 0
	for i := range x.vectors {
		x.update(i, false)
	}
}

// update brings vector i's source in line with its entry; changed says that the
// message itself is new. Called with mu held.
func (x *MSIX) update(i int, changed bool) {
	e := &x.vectors[i]
	live := x.enabled && !x.masked && e.ctl&vectorMasked == 0 && e.source != nil
	if e.source != nil && (live != e.live || (live && changed)) {
		// A refused message leaves the vector masked: its interrupts stay pending.
		if e.source.Program(irq.MSI{Addr: e.addr, Data: e.data}, !live) != nil {
			live = false
		}
	}
	e.live = live
	if live && e.pending {
		e.pending = false
		e.source.Trigger()
	}
}

func (x *MSIX) resetVectors() {
	for i := range x.vectors {
		e := &x.vectors[i]
		e.addr, e.data, e.ctl, e.pending = 0, 0, vectorMasked, false
	}
}

func (x *MSIX) reset() {
	x.mu.Lock()
	x.resetVectors()
	x.mu.Unlock()
	x.control(0)
}

// msixBAR is the memory behind the table and the pending bit array.
type msixBAR struct {
	x   *MSIX
	pba uint64
}

var _ bus.Handler = (*msixBAR)(nil)

// word returns the 32-bit word at an aligned offset. Called with mu held.
func (b *msixBAR) word(off uint64) uint32 {
	if off >= b.pba {
		var v uint32
		for i := range uint64(32) {
			if n := (off-b.pba)*8 + i; n < uint64(len(b.x.vectors)) && b.x.vectors[n].pending {
				v |= 1 << i
			}
		}
		return v
	}
	n := off / msixEntry
	if n >= uint64(len(b.x.vectors)) {
		return 0
	}
	e := &b.x.vectors[n]
	return [4]uint32{uint32(e.addr), uint32(e.addr >> 32), e.data, e.ctl}[off/4%4]
}

// Read serves any width; the table is defined for 4 and 8 bytes only.
func (b *msixBAR) Read(off uint64, p []byte) {
	b.x.mu.Lock()
	defer b.x.mu.Unlock()
	for i := range p {
		o := off + uint64(i)
		p[i] = byte(b.word(o&^3) >> (o & 3 * 8))
	}
}

// Write stores aligned words of 4 or 8 bytes; other accesses and the pending bits ignore writes.
func (b *msixBAR) Write(off uint64, p []byte) {
	if (len(p) != 4 && len(p) != 8) || off%uint64(len(p)) != 0 {
		return
	}
	b.x.mu.Lock()
	defer b.x.mu.Unlock()
	n := off / msixEntry
	if off >= b.pba || n >= uint64(len(b.x.vectors)) {
		return
	}
	e := &b.x.vectors[n]
	old := *e
	for i := 0; i < len(p); i += 4 {
		v := binary.LittleEndian.Uint32(p[i:])
		switch (off + uint64(i)) / 4 % 4 {
		case 0:
			e.addr = e.addr&^0xffffffff | uint64(v&^3)
		case 1:
			e.addr = e.addr&0xffffffff | uint64(v)<<32
		case 2:
			e.data = v
		case 3:
			e.ctl = v & vectorMasked
		}
	}
	b.x.update(int(n), e.addr != old.addr || e.data != old.data)
}
