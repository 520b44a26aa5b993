package pci

import "fmt"

// AssignResources gives every BAR an address, as firmware would: 64-bit BARs in
// Config.Mem64 while it has room, the others from Mem32Base on, ports from IOBase.
// Root ports get a bus number each and windows with room for what may be plugged
// in. Decoding stays off: the guest's driver enables it. For direct boot.
func (r *RootComplex) AssignResources() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	bus0 := space{Range{Mem32Base, Mem32Size}, r.cfg.Mem64, Range{IOBase, IOSize}}
	for _, f := range r.functions {
		if f.behind != nil {
			continue // its port's turn has come
		}
		if err := bus0.assign(f); err != nil {
			return err
		}
		if f.bridge == nil {
			continue
		}
		behind, err := f.bridge.assign(&bus0)
		if err != nil {
			return err
		}
		if child := f.bridge.child; child != nil {
			if err := behind.assign(child); err != nil {
				return err
			}
		}
	}
	r.remap()
	return nil
}

// space is what a bus has left to give.
type space struct{ mem32, mem64, ports Range }

// assign gives each BAR of f a part of the space.
func (s *space) assign(f *Function) error {
	for i := range f.bars {
		b := &f.bars[i]
		var base uint64
		ok := b.size == 0
		switch {
		case ok:
			continue
		case b.kind == BARIO:
			base, ok = s.ports.take(b.size)
		case b.wide():
			if base, ok = s.mem64.take(b.size); ok {
				break
			}
			fallthrough
		default:
			base, ok = s.mem32.take(b.size)
		}
		if !ok {
			return fmt.Errorf("pci: %s: no address space left for BAR %d of 0x%x bytes", f.name, i, b.size)
		}
		f.setBase(i, base)
	}
	return nil
}

// take cuts size bytes, aligned to their size, off the front of the range.
func (a *Range) take(size uint64) (base uint64, ok bool) {
	end := a.Base + a.Size
	base = (a.Base + size - 1) &^ (size - 1)
	if base < a.Base || base > end || size > end-base {
		return 0, false
	}
	a.Base, a.Size = base+size, end-base-size
	return base, true
}
