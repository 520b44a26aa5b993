package interp

import (
	"encoding/binary"
	"sync/atomic"

	"berth/guestmem"
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/mmu"
)

const (
	pageSize = guestmem.PageSize
	pageMask = ^uint64(pageSize - 1)
)

// memState is the memory side of a vCPU beyond Core.TLB.
type memState struct {
	regs mmu.Regs // as the control registers stand

	tlb   tlbState
	walks mmu.Cache
	ages  ages

	fetches [fetchEntries]fetchEntry

	buf [64]byte // for I/O and page-crossing accesses: escapes to IO implementations
}

const fetchEntries = 256

// fetchEntry remembers where the code of one linear page lies.
type fetchEntry struct {
	page   uint64
	age    uint64 // that its translation holds under; 0 is none
	global bool
	user   bool
	phys   uint64
	code   []byte
}

// canonical reports whether va can be translated: 48-bit addresses are
// sign-extended (Intel SDM vol. 1 §3.3.7.1). Outside long mode va is 32 bits.
func (c *CPU) canonical(va uint64) bool {
	return uint64(int64(va<<16)>>16) == va || c.EFER&x86.EFERLMA == 0
}

// wholeCanonical raises #GP(0) if [va, va+n) runs out of the canonical
// addresses: before any page fault on its canonical part.
func (c *CPU) wholeCanonical(va, n uint64) bool {
	if c.canonical(c.after(va, n-1)) {
		return true
	}
	c.exc = exception{vector: x86.GP, hasError: true, nonCanonical: true}
	return false
}

// linear returns va as the bus sees it: outside long mode addresses wrap at 4 GiB.
func (c *CPU) linear(va uint64) uint64 {
	if c.EFER&x86.EFERLMA == 0 {
		return uint64(uint32(va))
	}
	return va
}

// after returns the linear address n bytes past va in the current mode.
func (c *CPU) after(va, n uint64) uint64 {
	if c.Mode != decode.Mode64 && va>>32 == 0 {
		return uint64(uint32(va + n))
	}
	return va + n
}

// translate finds the guest-physical address of va for an access under the
// current privilege and fills the TLB. host is nil outside RAM and, for writes,
// where the store must not go straight to the host: ROM and pages with code.
func (c *CPU) translate(va uint64, a mmu.Access) (gpa uint64, region *guestmem.Region, ok bool) {
	pg, ok := c.walk(va, a)
	if !ok {
		return 0, nil, false
	}
	region = c.cfg.Memory.Find(pg.Phys)
	if region != nil && a != mmu.Fetch {
		c.fill(va, &pg, region, a)
	}
	return pg.Phys | va&^pageMask, region, true
}

// walk finds va's page; not ok: exc is set.
func (c *CPU) walk(va uint64, a mmu.Access) (pg mmu.Page, ok bool) {
	if !c.canonical(va) {
		c.exc = exception{vector: x86.GP, hasError: true, nonCanonical: true}
		return pg, false
	}
	m := &c.sys.mem
	pg, code, ok := m.walks.Walk(c.cfg.Memory, &m.regs, m.ages.Ages, va, a, mmu.Privilege(c.MMUIndex))
	if !ok {
		c.exc = exception{vector: x86.PF, hasError: true, code: code, cr2: va}
	}
	return pg, ok
}

// writeUnseen reports whether stores to a RAM page may bypass the page's flags.
// For a write about to be made it marks the page dirty.
func (c *CPU) writeUnseen(phys uint64, a mmu.Access) bool {
	f := c.cfg.Memory.Flags(phys)
	if atomic.LoadUint32(f)&guestmem.FlagDirty == 0 && c.cfg.Memory.DirtyLog() {
		if a != mmu.Write {
			return false
		}
		atomic.OrUint32(f, guestmem.FlagDirty)
	}
	return guestmem.GrantDirect(f)
}

// watchAccess looks for data breakpoints, and a debugger's watchpoints, on a slow access.
func (c *CPU) watchAccess(va, n uint64, write bool) {
	if c.DR[7]&0xff != 0 {
		c.watchData(va, n, write)
	}
	if c.debug != nil && len(c.debug.Watchpoints) > 0 {
		c.debug.access(va, n, write)
		c.post(pendDebug)
	}
}

// aligned applies alignment checking, during which all accesses at CPL 3 are
// slow, to an operand of n bytes (Intel SDM vol. 3A table 6-7); false: exc is
// #AC(0). Operands over 8 bytes are checked as those of 8, which the SDM leaves
// to the processor for those of 16.
func (c *CPU) aligned(va, n uint64) bool { return c.alignedTo(va, min(n, 8)) }

// alignedTo is aligned for an operand with a boundary of its own, a power of 2.
func (c *CPU) alignedTo(va, boundary uint64) bool {
	if !c.sys.alignCheck || c.MMUIndex != mmuUser || va&(boundary-1) == 0 {
		return true
	}
	return c.fail(x86.AC, 0)
}

// loadSlow is a load of n ≤ 16 bytes that the TLB could not serve: misses, page
// crossings, I/O, faults. intent is Write for the load of a read-modify-write.
func (c *CPU) loadSlow(va, n uint64, intent mmu.Access) ([]byte, bool) {
	return c.loadPiece(va, n, intent, min(n, 8))
}

// loadPiece is loadSlow for what must lie at a boundary.
func (c *CPU) loadPiece(va, n uint64, intent mmu.Access, boundary uint64) ([]byte, bool) {
	va = c.linear(va)
	p := c.sys.mem.buf[:n]
	first := min(n, pageSize-va%pageSize)
	if !c.wholeCanonical(va, n) {
		return nil, false
	}
	gpa, r, ok := c.translate(va, intent)
	if !ok {
		return nil, false
	}
	if first == n {
		if !c.alignedTo(va, boundary) {
			return nil, false
		}
		c.physRead(r, gpa, p)
		c.watchAccess(va, n, false)
		return p, true
	}
	gpa2, r2, ok := c.translate(c.after(va, first), intent)
	if !ok || !c.alignedTo(va, boundary) {
		return nil, false
	}
	c.physRead(r, gpa, p[:first])
	c.physRead(r2, gpa2, p[first:])
	c.watchAccess(va, n, false)
	return p, true
}

// storeSlow stores p, n ≤ 16 bytes, under the same circumstances.
func (c *CPU) storeSlow(va uint64, p []byte) bool {
	return c.storePiece(va, p, min(uint64(len(p)), 8))
}

// storePiece is storeSlow for what must lie at a boundary.
func (c *CPU) storePiece(va uint64, p []byte, boundary uint64) bool {
	va = c.linear(va)
	n := uint64(len(p))
	first := min(n, pageSize-va%pageSize)
	if !c.wholeCanonical(va, n) {
		return false
	}
	gpa, r, ok := c.translate(va, mmu.Write)
	if !ok {
		return false
	}
	if first == n {
		if !c.alignedTo(va, boundary) {
			return false
		}
		c.physWrite(r, gpa, p)
		c.watchAccess(va, n, true)
		return true
	}
	gpa2, r2, ok := c.translate(c.after(va, first), mmu.Write)
	if !ok || !c.alignedTo(va, boundary) {
		return false
	}
	c.physWrite(r, gpa, p[:first])
	c.physWrite(r2, gpa2, p[first:])
	c.watchAccess(va, n, true)
	return true
}

// physRead reads bytes of one page; r is their region, nil for I/O.
func (c *CPU) physRead(r *guestmem.Region, gpa uint64, p []byte) {
	if r == nil {
		c.cfg.MMIO.Read(gpa, p)
		return
	}
	loadHost(r.Host[gpa-r.GPA:], p)
}

// physWrite writes bytes of one page and tells whoever watches it.
func (c *CPU) physWrite(r *guestmem.Region, gpa uint64, p []byte) {
	if r == nil {
		c.cfg.MMIO.Write(gpa, p)
		return
	}
	if r.ReadOnly {
		return
	}
	storeHost(r.Host[gpa-r.GPA:], p)
	c.stored(gpa, uint64(len(p)))
}

// stored tells whoever watches the page of a store past the TLB.
func (c *CPU) stored(gpa, n uint64) {
	f := c.cfg.Memory.Flags(gpa)
	v := atomic.OrUint32(f, 0) // a full fence: see guestmem.MarkWritten
	if v&guestmem.FlagDirty == 0 && c.cfg.Memory.DirtyLog() {
		atomic.OrUint32(f, guestmem.FlagDirty)
	}
	if v&guestmem.FlagCode != 0 {
		c.invalidateCode(gpa, n)
	}
}

func (c *CPU) ld8Slow(va uint64) (uint8, bool) {
	p, ok := c.loadSlow(va, 1, mmu.Read)
	if !ok {
		return 0, false
	}
	return p[0], true
}

func (c *CPU) ld16Slow(va uint64) (uint16, bool) {
	p, ok := c.loadSlow(va, 2, mmu.Read)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint16(p), true
}

func (c *CPU) ld32Slow(va uint64) (uint32, bool) {
	p, ok := c.loadSlow(va, 4, mmu.Read)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint32(p), true
}

func (c *CPU) ld64Slow(va uint64) (uint64, bool) {
	p, ok := c.loadSlow(va, 8, mmu.Read)
	if !ok {
		return 0, false
	}
	return binary.LittleEndian.Uint64(p), true
}

func (c *CPU) st8Slow(va uint64, v uint8) bool {
	p := c.sys.mem.buf[:1]
	p[0] = v
	return c.storeSlow(va, p)
}

func (c *CPU) st16Slow(va uint64, v uint16) bool {
	p := c.sys.mem.buf[:2]
	binary.LittleEndian.PutUint16(p, v)
	return c.storeSlow(va, p)
}

func (c *CPU) st32Slow(va uint64, v uint32) bool {
	p := c.sys.mem.buf[:4]
	binary.LittleEndian.PutUint32(p, v)
	return c.storeSlow(va, p)
}

func (c *CPU) st64Slow(va uint64, v uint64) bool {
	p := c.sys.mem.buf[:8]
	binary.LittleEndian.PutUint64(p, v)
	return c.storeSlow(va, p)
}

func (c *CPU) ld128Slow(va uint64) (v [2]uint64, ok bool) {
	p, ok := c.loadSlow(va, 16, mmu.Read)
	if ok {
		v[0], v[1] = binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])
	}
	return v, ok
}

func (c *CPU) st128Slow(va uint64, v [2]uint64) bool {
	p := c.sys.mem.buf[:16]
	binary.LittleEndian.PutUint64(p, v[0])
	binary.LittleEndian.PutUint64(p[8:], v[1])
	return c.storeSlow(va, p)
}

// ldChunk loads n ≤ 64 bytes of any alignment; the result is valid until the next access.
func (c *CPU) ldChunk(va, n uint64) ([]byte, bool) {
	if h := c.readPtr(va, n-1); h != nil {
		p := c.sys.mem.buf[:n]
		loadHost(hostBytes(h, n), p)
		return p, true
	}
	return c.loadPiece(va, n, mmu.Read, 1)
}

// ldBytes loads len(p) ≥ 1 bytes, however many pages they span, whatever their
// alignment. If it faults p is partly filled.
func (c *CPU) ldBytes(va uint64, p []byte) bool {
	for len(p) > 0 {
		n := min(uint64(len(p)), pageSize-va%pageSize)
		if h := c.readPtr(va, n-1); h != nil {
			loadHostBytes(hostBytes(h, n), p[:n])
			va, p = c.after(va, n), p[n:]
			continue
		}
		n = min(n, 16)
		b, ok := c.ldChunk(va, n)
		if !ok {
			return false
		}
		copy(p, b)
		va, p = c.after(va, n), p[n:]
	}
	return true
}

// stBytes stores p, 1 byte to less than a page, at any alignment; nothing is stored
// if it faults.
func (c *CPU) stBytes(va uint64, p []byte) bool {
	if !c.probeWrite(va, uint64(len(p))) {
		return false
	}
	for len(p) > 0 {
		n := min(uint64(len(p)), pageSize-va%pageSize)
		if h := c.writePtr(va, n-1); h != nil {
			storeHostBytes(hostBytes(h, n), p[:n])
			va, p = c.after(va, n), p[n:]
			continue
		}
		n = min(n, 16)
		b := c.sys.mem.buf[:n]
		copy(b, p)
		if !c.storePiece(va, b, 1) {
			return false
		}
		va, p = c.after(va, n), p[n:]
	}
	return true
}

// probeWrite checks that [va, va+n), 1 ≤ n ≤ a page, can be written, with a
// write's effects on the page tables and none on memory.
func (c *CPU) probeWrite(va, n uint64) bool { return c.probe(va, n, mmu.Write) }

// probeRead checks likewise that [va, va+n) can be read.
func (c *CPU) probeRead(va, n uint64) bool { return c.probe(va, n, mmu.Read) }

func (c *CPU) probe(va, n uint64, a mmu.Access) bool {
	va = c.linear(va)
	last := c.after(va, n-1)
	if !c.wholeCanonical(va, n) || !c.probePage(va, a) {
		return false
	}
	if (va^last)&pageMask == 0 {
		return true
	}
	return c.probePage(last&pageMask, a)
}

func (c *CPU) probePage(va uint64, a mmu.Access) bool {
	if c.readPtr(va, 0) != nil && (a == mmu.Read || c.writePtr(va, 0) != nil) {
		return true
	}
	_, _, ok := c.translate(va, a)
	return ok
}

// fetch returns the guest-physical address of the code at va and its bytes up
// to the end of the page. No bytes with ok set: the page is not memory.
func (c *CPU) fetch(va uint64) (phys uint64, code []byte, ok bool) {
	page, off := va&pageMask, va%pageSize
	m := &c.sys.mem
	user := c.MMUIndex == mmuUser
	f := &m.fetches[va/pageSize%fetchEntries]
	if f.page == page && f.user == user && f.age == m.ages.of(f.global) {
		return f.phys + off, f.code[off:], true
	}
	pg, ok := c.walk(va, mmu.Fetch)
	if !ok {
		return 0, nil, false
	}
	r := c.cfg.Memory.Find(pg.Phys)
	if r == nil {
		return pg.Phys | off, nil, true
	}
	start := pg.Phys - r.GPA
	*f = fetchEntry{page, m.ages.hold(va, &pg), pg.Global, user, pg.Phys, r.Host[start : start+pageSize : start+pageSize]}
	return pg.Phys | off, f.code[off:], true
}

// fetchedGlobal reports that the translation of va, which fetch has returned, is global.
func (c *CPU) fetchedGlobal(va uint64) bool {
	f := &c.sys.mem.fetches[va/pageSize%fetchEntries]
	return f.page == va&pageMask && f.global
}

// asSupervisor runs f with the privilege of the processor's own accesses to
// descriptor tables and task states: supervisor whatever CPL and AC say.
func (c *CPU) asSupervisor(f func() bool) bool {
	old := c.MMUIndex
	c.MMUIndex = c.implicitIndex()
	ok := f()
	c.MMUIndex = old
	return ok
}

func (c *CPU) implicitIndex() uint8 {
	if c.CR4&x86.CR4SMAP == 0 {
		return mmuSupervisorAC
	}
	return mmuSupervisor
}

// sys16 to sys64 load, and setSys stores, as the processor itself does.

func (c *CPU) sys16(va uint64) (uint16, bool) {
	old := c.MMUIndex
	c.MMUIndex = c.implicitIndex()
	v, ok := c.ld16(va)
	c.MMUIndex = old
	return v, ok
}

func (c *CPU) sys32(va uint64) (uint32, bool) {
	old := c.MMUIndex
	c.MMUIndex = c.implicitIndex()
	v, ok := c.ld32(va)
	c.MMUIndex = old
	return v, ok
}

func (c *CPU) sys64(va uint64) (uint64, bool) {
	old := c.MMUIndex
	c.MMUIndex = c.implicitIndex()
	v, ok := c.ld64(va)
	c.MMUIndex = old
	return v, ok
}
