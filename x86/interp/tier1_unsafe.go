package interp

import (
	"errors"
	"fmt"
	"unsafe"

	"berth/x86/jit"
)

// jitLayout says where translated code finds the parts of a Core. unsafe: offsets only.
func jitLayout() jit.Layout {
	var k Core
	from := func(off uintptr) int32 { return int32(off) - int32(unsafe.Offsetof(k.Frame)) }
	return jit.Layout{
		R:        from(unsafe.Offsetof(k.R)),
		SegBase:  from(unsafe.Offsetof(k.SegBase)),
		SegEnd:   from(unsafe.Offsetof(k.SegEnd)),
		RIP:      from(unsafe.Offsetof(k.RIP)),
		Flags:    from(unsafe.Offsetof(k.Flags)),
		TLB:      from(unsafe.Offsetof(k.TLB)),
		Pending:  from(unsafe.Offsetof(k.Pending)),
		CPL:      from(unsafe.Offsetof(k.CPL)),
		MMUIndex: from(unsafe.Offsetof(k.MMUIndex)),
		CR: [5]int32{
			0: from(unsafe.Offsetof(k.CR0)), 2: from(unsafe.Offsetof(k.CR2)), 3: from(unsafe.Offsetof(k.CR3)), 4: from(unsafe.Offsetof(k.CR4)),
		},
		EFER:    from(unsafe.Offsetof(k.EFER)),
		Seg:     from(unsafe.Offsetof(k.Seg)),
		SegSize: int32(unsafe.Sizeof(k.Seg[0])),
	}
}

// jumpTable is the table that translated code looks addresses up in.
type jumpTable [jit.JumpEntries]jit.Jump

// newTier1 gives the vCPU a cache of code. unsafe: a mapping is reinterpreted; it
// holds no Go pointers and lives until close.
func (c *CPU) newTier1() error {
	layout := jitLayout()
	layout.V3 = c.single != nil
	cache, err := jit.New(codeFor(c.cfg.CPUs), layout)
	if err != nil {
		return fmt.Errorf("interp: %w", err)
	}
	p, err := mapGuarded(unsafe.Sizeof(jumpTable{}))
	if err != nil {
		return errors.Join(fmt.Errorf("interp: mapping the table of jumps: %w", err), cache.Close())
	}
	c.tier1 = &tier1{cache: cache, met: new([metUnits]uint32), cold: noKey, jumps: (*jumpTable)(p)}
	c.Frame.Jumps = uintptr(p)
	return nil
}

// close frees what newTier1 made. unsafe: undoes its reinterpretation.
func (t *tier1) close() error {
	if t == nil {
		return nil
	}
	return errors.Join(t.cache.Close(), unmapGuarded(unsafe.Pointer(t.jumps), unsafe.Sizeof(jumpTable{})))
}
