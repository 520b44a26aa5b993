package pci

import "fmt"

// AssignResources gives every BAR an address, as firmware would: 64-bit BARs in
// Config.Mem64 while it has room, the others from Mem32Base on, ports from IOBase.
// Decoding stays off: the guest's driver enables it. For direct boot.
func (r *RootComplex) AssignResources() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	mem32, mem64, ports := Range{Mem32Base, Mem32Size}, r.cfg.Mem64, Range{IOBase, IOSize}
	for _, f := range r.functions {
		for i := range f.bars {
			b := &f.bars[i]
			var base uint64
			ok := b.size == 0
			switch {
			case ok:
				continue
			case b.kind == BARIO:
				base, ok = ports.take(b.size)
			case b.wide():
				if base, ok = mem64.take(b.size); ok {
					break
				}
				fallthrough
			default:
				base, ok = mem32.take(b.size)
			}
			if !ok {
				return fmt.Errorf("pci: %s: no address space left for BAR %d of 0x%x bytes", f.name, i, b.size)
			}
			f.setBase(i, base)
		}
	}
	r.remap()
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
