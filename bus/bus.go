// Package bus routes guest port and memory-mapped I/O to the devices behind it.
package bus

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
)

// Handler is a device's register window. off is relative to the window's base;
// len(p) is the access width in bytes (1, 2, 4 or 8; never more than remains in
// the window). Calls come from several vCPU threads at once, with no lock of
// the bus held; data is little-endian.
type Handler interface {
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
}

// Space is one address space: the 64 KiB of ports, or guest-physical memory
// outside RAM. Look-ups take no lock; changes copy the table.
type Space struct {
	size    uint64 // one past the last address; 0 means 2^64
	mu      sync.Mutex
	windows atomic.Pointer[[]*Window]
}

// Window is one mapped handler. Its fields do not change while it is mapped.
type Window struct {
	Base, Size uint64
	Name       string
	Handler    Handler
}

// New returns an empty space of size bytes (0: the whole 64-bit space).
func New(size uint64) *Space {
	s := &Space{size: size}
	s.windows.Store(&[]*Window{})
	return s
}

// Map puts h at [base, base+size). Overlap with another window is an error
// that names both.
func (s *Space) Map(base, size uint64, name string, h Handler) (*Window, error) {
	last := base + size - 1
	if size == 0 || last < base || (s.size != 0 && last >= s.size) {
		return nil, fmt.Errorf("bus: %s: window 0x%x+0x%x does not fit the address space", name, base, size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.windows.Load()
	i := sort.Search(len(old), func(i int) bool { return old[i].Base > base })
	if i > 0 && old[i-1].Base+old[i-1].Size-1 >= base {
		return nil, overlap(name, base, size, old[i-1])
	}
	if i < len(old) && old[i].Base <= last {
		return nil, overlap(name, base, size, old[i])
	}
	w := &Window{Base: base, Size: size, Name: name, Handler: h}
	next := make([]*Window, 0, len(old)+1)
	next = append(append(append(next, old[:i]...), w), old[i:]...)
	s.windows.Store(&next)
	return w, nil
}

func overlap(name string, base, size uint64, w *Window) error {
	return fmt.Errorf("bus: %s at 0x%x+0x%x overlaps %s at 0x%x+0x%x", name, base, size, w.Name, w.Base, w.Size)
}

// Unmap removes w. Accesses already inside its handler may still be running.
func (s *Space) Unmap(w *Window) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.windows.Load()
	next := make([]*Window, 0, len(old))
	for _, o := range old {
		if o != w {
			next = append(next, o)
		}
	}
	s.windows.Store(&next)
}

// Windows returns the mapped windows in address order. The slice is shared: do not change it.
func (s *Space) Windows() []*Window { return *s.windows.Load() }

// find returns the window that holds addr, or nil and the number of unmapped bytes from addr on.
func (s *Space) find(addr uint64) (w *Window, gap uint64) {
	ws := *s.windows.Load()
	lo, hi := 0, len(ws)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if ws[m].Base > addr {
			hi = m
		} else {
			lo = m + 1
		}
	}
	if lo > 0 && addr-ws[lo-1].Base < ws[lo-1].Size {
		return ws[lo-1], 0
	}
	if lo < len(ws) {
		return nil, ws[lo].Base - addr
	}
	return nil, ^uint64(0)
}

// Read fills p from addr. Unmapped bytes read as 0xff. An access that leaves
// its window is split there.
func (s *Space) Read(addr uint64, p []byte) {
	for len(p) > 0 {
		w, gap := s.find(addr)
		n := uint64(len(p))
		if w == nil {
			n = min(n, gap)
			for i := range p[:n] {
				p[i] = 0xff
			}
		} else {
			off := addr - w.Base
			n = min(n, w.Size-off)
			w.Handler.Read(off, p[:n])
		}
		addr, p = addr+n, p[n:]
	}
}

// Write stores p at addr. Writes to unmapped bytes are dropped.
func (s *Space) Write(addr uint64, p []byte) {
	for len(p) > 0 {
		w, gap := s.find(addr)
		n := uint64(len(p))
		if w == nil {
			n = min(n, gap)
		} else {
			off := addr - w.Base
			n = min(n, w.Size-off)
			w.Handler.Write(off, p[:n])
		}
		addr, p = addr+n, p[n:]
	}
}
