package interp

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"berth/guestmem"
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/jit"
)

// A block is a run of instructions that starts where control arrived and ends
// at an unconditional branch, at an instruction that may change how the next is decoded or
// reached, or at the end of the page. It is keyed by guest-physical address and
// mode, so it serves every linear address that maps there: a micro-op knows its
// offset in the page only, and R[decode.RIP] says where the page is.
type block struct {
	first *uop // &ops[0]
	n     uint8
	cross bool   // one instruction that reaches into the next linear page
	found bool   // find returned it since the last sweep
	off   uint16 // of the first instruction in its page
	end   uint16 // past the last

	// Where the block's end goes. Only a block of the same page is linked: its linear
	// address follows from this one's, so a link holds whatever the mapping. It
	// goes when the target is invalidated, which is the page's own business.
	takenInside, fallInside bool // it stays in the page
	taken, fall             *block
	target                  uint64 // of the branch, relative to the page

	exits []exit // of the conditional branches

	page  *codePage
	key   uint64
	phys2 uint64 // of a crossing instruction: the second page
	ops   []uop
	insts []decode.Inst // of generic micro-ops

	unit *jit.Unit // of translated code: then there are no micro-ops
	in   []uint32  // exits of other units that lead here
}

// exit is where a conditional branch within a block goes.
type exit struct {
	to      *block // as block.taken
	target  uint64
	inside  bool
	skipped uint8 // instructions of the block behind the branch
}

// codePage is a guest-physical page that blocks were decoded from.
type codePage struct {
	phys    uint64
	blocks  []*block // that have bytes in the page
	granule uint64   // a bit per 64 bytes with code
}

// jump maps a linear address to its block. The key is the address, moved left by
// tagBits (which drops only the copies of its sign), and the tag it holds under.
type jump struct {
	key uint64
	b   *block
}

const (
	jumpEntries     = 1 << 13
	tagBits         = 16
	maxInstructions = 48   // a block's
	maxNews         = 4096 // pages of CodeWritten and codeHeld to remember one by one
)

func jumpIndex(rip uint64) uint64 { return (rip ^ rip>>12) & (jumpEntries - 1) }

// blockCache holds a vCPU's blocks.
type blockCache struct {
	byKey   map[uint64]*block
	pages   map[uint64]*codePage // by page number
	jumps   [jumpEntries]jump
	epoch   uint64 // upper bits of the translations' generation that jumps hold under
	held    int    // weight of all blocks
	max     int    // of held
	changed bool   // a block was invalidated since this was last cleared
	swept   time.Time
	seen    uint64        // CPU.Instructions then, for translated code
	slept   time.Duration // how long the vCPU slept since, likewise

	mu    sync.Mutex
	news  news          // under mu
	given atomic.Uint64 // news.asked, as far as it is done
}

// news is what other threads told of pages and the vCPU has not yet acted on.
type news struct {
	written, held       []uint64 // see CodeWritten and codeHeld
	allWritten, allHeld bool     // too many to remember
	asked               uint64   // how often codeHeld was called
}

// note adds a page to a list; full: it is too long already.
func note(list []uint64, gpa uint64) (_ []uint64, full bool) {
	page := gpa & pageMask
	switch n := len(list); {
	case n > 0 && list[n-1] == page:
		return list, false
	case n == maxNews:
		return nil, true
	}
	return append(list, page), false
}

// Weights of a vCPU's blocks together, of which each is some 24 bytes: all vCPUs
// share 600 MiB, one has at most 150 MiB and at least 12.
const (
	groupWeight = 24 << 20
	maxWeight   = 6 << 20
	minWeight   = 512 << 10
)

// maxHeld is the weight of blocks at which a vCPU of a group of n begins anew.
func maxHeld(n int) int { return min(maxWeight, max(minWeight, groupWeight/n)) }

// weight is how much of maxHeld a block takes.
func (b *block) weight() int { return len(b.ops) + 3*len(b.insts) + 12 }

// clearBlocks forgets every block. One of them may be running.
func (c *CPU) clearBlocks() {
	for _, b := range c.blocks.byKey {
		c.kill(b)
	}
	c.forgetBlocks()
}

// forgetBlocks is clearBlocks while none of them runs.
func (c *CPU) forgetBlocks() {
	bc := &c.blocks
	for _, p := range bc.pages {
		c.releasePage(p)
	}
	bc.byKey, bc.pages, bc.held = map[uint64]*block{}, map[uint64]*codePage{}, 0
	bc.jumps = [jumpEntries]jump{}
	bc.changed = true
	c.tier1.clear()
}

// die makes whoever still reaches the block look for its successor.
func (b *block) die() { b.ops[0].kind = uDead }

// kill is die for blocks of both tiers.
func (c *CPU) kill(b *block) {
	if b.unit != nil {
		c.tier1.kill(b)
		return
	}
	b.die()
}

// jumpTag is what a jump entry must have been made under to hold now: the same
// translations, privilege and mode; never 0. A code segment whose base or limit
// needs checks has the tag noJump, which no entry has.
func (c *CPU) jumpTag() uint64 {
	if c.Mode != decode.Mode64 && !c.flatCode() {
		return noJump
	}
	const kinds = 3 // bits of mode and privilege
	if e := c.sys.mem.ages.Current >> (tagBits - kinds); e != c.blocks.epoch {
		c.blocks.epoch = e
		c.blocks.jumps = [jumpEntries]jump{}
	}
	return c.sys.mem.ages.Current<<kinds&(1<<tagBits-1) | (uint64(c.Mode)+1)<<1 | b2u(c.MMUIndex == mmuUser)
}

// noJump is a tag that jumpTag makes for no mode.
const noJump = 1

// flatCode reports that CS covers all 4 GiB from 0.
func (c *CPU) flatCode() bool { return c.SegBase[x86.CS] == 0 && c.Seg[x86.CS].Limit == 0xffffffff }

// blockKey tells blocks apart: where they are and what decoding depends on.
func (c *CPU) blockKey(phys uint64) uint64 {
	if c.translates() {
		return phys<<5 | uint64(c.MMUIndex+1)<<3 | uint64(c.Mode)
	}
	return phys<<5 | b2u(c.flatCode())<<2 | uint64(c.Mode)
}

// find returns the block at RIP, decoding it if need be, and sets R[decode.RIP].
// nil: the status says what happened instead, which may be one instruction executed.
func (c *CPU) find() (*block, status) {
	c.sys.mem.ages.limit()
	lin := c.RIP
	if c.Mode != decode.Mode64 {
		if c.RIP > uint64(c.Seg[x86.CS].Limit) {
			return nil, c.raiseErr(x86.GP, 0)
		}
		lin = uint64(uint32(c.RIP + c.SegBase[x86.CS]))
	}
	phys, code, st := c.codeAt(lin)
	if st != next {
		return nil, st
	}
	key := c.blockKey(phys)
	if c.debug.cut(lin) {
		return nil, next
	}
	b, ok := c.confirm(c.blocks.byKey[key], lin, len(code))
	if !ok {
		return nil, faulted
	}
	if b == nil {
		if b, st = c.build(key, phys, lin, code); b == nil {
			return nil, st
		}
	}
	tag := c.jumpTag()
	if tag != noJump {
		c.blocks.jumps[jumpIndex(c.RIP)] = jump{c.RIP<<tagBits | tag, b}
	} else if c.Mode != decode.Mode64 && c.RIP+uint64(b.end-b.off)-1 > uint64(c.Seg[x86.CS].Limit) {
		return nil, c.step()
	}
	b.found = true
	c.R[decode.RIP] = c.RIP - uint64(b.off)
	return b, next
}

// codeAt is fetch of what is about to be executed; next: there is some.
func (c *CPU) codeAt(lin uint64) (phys uint64, code []byte, st status) {
	phys, code, ok := c.fetch(lin)
	switch {
	case !ok:
		return 0, nil, faulted
	case len(code) == 0:
		return 0, nil, c.unimplementedText("executing code outside memory")
	}
	return phys, code, next
}

// confirm returns b, which is nil or was found for lin, n bytes before its page's end,
// or nil if the instruction crosses into a page that is another now. not ok: that page faults.
func (c *CPU) confirm(b *block, lin uint64, n int) (_ *block, ok bool) {
	if b == nil || !b.cross {
		return b, true
	}
	phys2, _, ok := c.fetch(c.after(lin, uint64(n)))
	if ok && phys2 != b.phys2 {
		c.removeBlock(b)
		b = nil
	}
	return b, ok
}

// build decodes the block at phys and adds it.
func (c *CPU) build(key, phys, lin uint64, code []byte) (*block, status) {
	if c.blocks.held > c.blocks.max {
		c.clearBlocks()
	}
	b := &block{off: uint16(phys % pageSize), key: key, page: c.holdPage(phys)}
	t := translator{c: c, b: b, flat: c.flatCode(), mode: c.Mode, pos: b.off}
	whole := len(code)
	code = c.debug.uncut(lin, code)
	if t.run(code) == again { // the first instruction crosses the page
		if len(code) < whole {
			c.releaseEmpty(b.page)
			return nil, c.step()
		}
		if st := c.buildCrossing(&t, lin, code); st != next {
			c.releaseEmpty(b.page)
			return nil, st
		}
	}
	b.first = &b.ops[0]
	from, to := b.bytesIn(b.page.phys)
	b.page.add(b, from, to-from)
	c.blocks.byKey[key] = b
	c.blocks.held += b.weight()
	return b, next
}

// buildCrossing decodes one instruction that continues in the next linear page.
func (c *CPU) buildCrossing(t *translator, lin uint64, code []byte) status {
	phys2, more, st := c.codeAt(c.after(lin, uint64(len(code))))
	if st != next {
		return st
	}
	second := c.holdPage(phys2)
	var p [decode.MaxLen]byte
	n := copy(p[:], code)
	n += copy(p[n:], more)
	t.b.cross, t.b.phys2 = true, phys2
	t.run(p[:n])
	if t.b.end <= pageSize { // undefined within the first page after all
		t.b.end = pageSize + 1
	}
	if second != t.b.page { // else build adds it, once
		second.add(t.b, 0, uint64(t.b.end)-pageSize)
	}
	return next
}

// holdPage returns the codePage of phys. For a new one, all vCPUs' stores to the
// page come through invalidateCode by the time it returns, and may be read.
func (c *CPU) holdPage(phys uint64) *codePage {
	p := c.blocks.pages[phys/pageSize]
	if p == nil {
		p = &codePage{phys: phys &^ (pageSize - 1)}
		c.blocks.pages[phys/pageSize] = p
		flags := c.cfg.Memory.Flags(phys)
		if guestmem.HoldCode(flags) {
			c.revokeWrites(func(page uint64) bool { return page == p.phys })
			c.group.endDirect(c, p.phys)
			guestmem.EndDirect(flags)
		}
	}
	return p
}

// releasePage lets stores to a page go straight to memory again.
func (c *CPU) releasePage(p *codePage) {
	delete(c.blocks.pages, p.phys/pageSize)
	guestmem.ReleaseCode(c.cfg.Memory.Flags(p.phys))
}

func (c *CPU) releaseEmpty(p *codePage) {
	if len(p.blocks) == 0 {
		c.releasePage(p)
	}
}

// add notes that b has code in n bytes at off.
func (p *codePage) add(b *block, off, n uint64) {
	p.blocks = append(p.blocks, b)
	p.granule |= granules(off, n)
}

// granules returns the bits of the 64-byte pieces of a page that n bytes at off touch.
func granules(off, n uint64) uint64 {
	first, last := off/64, (min(off+max(n, 1), pageSize)-1)/64
	return ^uint64(0) >> (63 - last) &^ (1<<first - 1)
}

// removeBlock takes b out of the cache.
func (c *CPU) removeBlock(b *block) {
	delete(c.blocks.byKey, b.key)
	c.kill(b)
	if b.unit != nil {
		c.tier1.stats.Removed++
	}
	c.blocks.held -= b.weight()
	c.blocks.changed = true
	c.takeFromPage(b.page, b)
	if b.cross {
		if p := c.blocks.pages[b.phys2/pageSize]; p != nil {
			c.takeFromPage(p, b)
		}
	}
}

// takeFromPage removes b from p and all links to it; an empty page is writable again.
func (c *CPU) takeFromPage(p *codePage, b *block) {
	kept := p.blocks[:0]
	for _, o := range p.blocks {
		if o == b {
			continue
		}
		kept = append(kept, o)
		if o.taken == b {
			o.taken = nil
		}
		if o.fall == b {
			o.fall = nil
		}
		for i := range o.exits {
			if o.exits[i].to == b {
				o.exits[i].to = nil
			}
		}
	}
	clear(p.blocks[len(kept):])
	p.blocks = kept
	c.releaseEmpty(p)
}

// bytesIn returns which of page's bytes b was decoded from. Where a page follows
// itself in the linear addresses, a crossing instruction has bytes at both its
// ends: all of it counts.
func (b *block) bytesIn(page uint64) (from, to uint64) {
	if b.cross && b.page.phys == b.phys2&pageMask {
		return 0, pageSize
	}
	if b.page.phys == page {
		return uint64(b.off), min(uint64(b.end), pageSize)
	}
	return 0, uint64(b.end) - pageSize
}

// invalidateCode is told of this vCPU's store to [gpa, gpa+n), within one page
// whose FlagCode is set, after the store. Other vCPUs with code of the page hear
// of it as of a device's write.
func (c *CPU) invalidateCode(gpa, n uint64) {
	c.dropCode(gpa, n)
	others := atomic.LoadUint32(c.cfg.Memory.Flags(gpa)) / guestmem.FlagHolder
	if c.blocks.pages[gpa/pageSize] != nil {
		others--
	}
	if others > 0 {
		c.cfg.Memory.MarkWritten(gpa, n)
	}
}

// dropCode removes the blocks that have bytes in [gpa, gpa+n), within one page.
func (c *CPU) dropCode(gpa, n uint64) {
	p := c.blocks.pages[gpa/pageSize]
	if p == nil {
		return
	}
	off := gpa % pageSize
	if p.granule&granules(off, n) == 0 {
		return
	}
	var hit []*block
	for _, b := range p.blocks {
		if from, to := b.bytesIn(p.phys); from < off+n && off < to {
			hit = append(hit, b)
		}
	}
	for _, b := range hit {
		c.removeBlock(b)
	}
	p.granule = 0
	for _, b := range p.blocks {
		from, to := b.bytesIn(p.phys)
		p.granule |= granules(from, to-from)
	}
}

// CodeWritten notes that someone else wrote the page of gpa, whose FlagCode is
// set: the vCPU forgets its code before the next block. Safe for concurrent
// use; a guestmem.CodeWatcher passes the news to every vCPU.
func (c *CPU) CodeWritten(gpa uint64) {
	c.blocks.mu.Lock()
	if n := &c.blocks.news; !n.allWritten {
		n.written, n.allWritten = note(n.written, gpa)
	}
	c.blocks.mu.Unlock()
	c.postQuietly(pendCode)
}

// codeHeld notes that another vCPU holds code of the page of gpa: this one gives
// up direct stores to it before its next block. It has done so once gaveUp
// reports the ticket; away: it will not store anything before. Any thread.
func (c *CPU) codeHeld(gpa uint64) (ticket uint64, away bool) {
	c.blocks.mu.Lock()
	n := &c.blocks.news
	if !n.allHeld {
		n.held, n.allHeld = note(n.held, gpa)
	}
	n.asked++
	ticket = n.asked
	c.blocks.mu.Unlock()
	return ticket, c.postQuietly(pendCode)
}

// gaveUp reports that what a ticket asks for is done, or will be before the vCPU
// executes anything. Any thread.
func (c *CPU) gaveUp(ticket uint64) bool { return c.away() || c.blocks.given.Load() >= ticket }

// dropWritten acts on what CodeWritten and codeHeld noted, between two blocks.
func (c *CPU) dropWritten() {
	c.take(pendCode)
	c.blocks.mu.Lock()
	n := &c.blocks.news
	written, all := n.written, n.allWritten
	n.written, n.allWritten = nil, false
	c.blocks.mu.Unlock()
	if all {
		c.clearBlocks()
	}
	for _, gpa := range written {
		c.dropCode(gpa, pageSize)
	}
	c.giveUp()
}

// giveUp ends direct stores to the pages that others hold code of. It leaves this
// vCPU's blocks alone, so it may be called while one is being decoded.
func (c *CPU) giveUp() {
	c.blocks.mu.Lock()
	n := &c.blocks.news
	held, all, asked := n.held, n.allHeld, n.asked
	n.held, n.allHeld = nil, false
	c.blocks.mu.Unlock()
	if all || len(held) > 0 {
		c.revokeWrites(func(page uint64) bool { return all || slices.Contains(held, page) })
	}
	c.blocks.given.Store(asked)
}
