package interp

import (
	"slices"
	"sync/atomic"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/jit"
)

// tier1 is what a vCPU has for translated code, beside the blocks that it shares
// with the interpreter.
type tier1 struct {
	cache  *jit.Cache
	jumps  *jumpTable
	recent [recentUnits]*block // found lately, by key

	alone bool              // the next unit is to be one whose accesses are checked each for itself
	met   *[metUnits]uint32 // what blocks were looked for, by the hash of their keys
	cold  uint64            // where the instructions that stepCold ran go on; noKey: elsewhere

	fresh []unitBlock // for newBlock

	stats Translation
}

const (
	recentUnits = 1 << 12
	metUnits    = 1 << metBits
	metBits     = 15
	noKey       = ^uint64(0)
	aloneKey    = 1 << 63 // of a key: the unit that Split exits lead to
	// Bytes of translated code: all vCPUs of a machine share the group's, one has at
	// most and at least so much.
	groupCode = 128 << 20
	maxCode   = 32 << 20
	minCode   = 8 << 20
	// jitSlice is how many instructions run before Pending is looked at: some 10 µs.
	jitSlice = 1 << 14
)

// codeFor is how much code each of n vCPUs may hold.
func codeFor(n int) int { return min(maxCode, max(minCode, groupCode/max(n, 1)&^0xffff)) }

// kill has nobody reach b's code any more. It may be running.
func (t *tier1) kill(b *block) {
	t.cache.Kill(b.unit)
	b.key = noKey // nor by recent
	for _, x := range b.in {
		t.cache.Unlink(x)
	}
	b.in = nil
}

// clear forgets all code, none of which runs.
func (t *tier1) clear() {
	if t == nil {
		return
	}
	t.stats.Clears++
	t.cache.Clear()
	*t.jumps = jumpTable{}
	clear(t.recent[:])
}

// release is clear that gives memory back to the host; if the host does not take it, it stays.
func (t *tier1) release() {
	t.clear()
	_ = t.cache.Release()
}

// noLink is the number of no exit.
const noLink = ^uint32(0)

// runTranslated runs code that translates until the run loop has something to decide.
func (c *CPU) runTranslated() status {
	link := noLink
	c.tier1.alone = false
	for {
		code, ok, st := c.nextCode(link)
		if !ok {
			return st
		}
		c.blocks.changed = false
		link, st = c.enterUnit(code)
		if c.tier1.alone { // no instruction has run
			continue
		}
		if st != next && st != jumped || !c.straightOn() {
			return st
		}
		if c.Instructions > c.TurnEnd {
			c.endTurn()
		}
	}
}

// straightOn reports that the run loop, between two instructions, would go on with
// translated code.
func (c *CPU) straightOn() bool {
	const both = x86.FlagVIF | x86.FlagVIP // see virtualPending
	return atomic.LoadUint32(&c.Pending) == 0 && c.sys.shadow == shadowNone && c.sys.dr6 == 0 &&
		c.translates() && c.Flags&both != both
}

// nextCode is where to enter for the code at RIP; exit link is to lead there. not ok: see findUnit.
func (c *CPU) nextCode(link uint32) (code jit.Entry, ok bool, st status) {
	if link == noLink {
		if j := c.tier1.jumps.find(c.RIP); j != nil && j.Tag == c.unitTag(c.RIP>>63 != 0) {
			c.R[decode.RIP] = c.RIP & pageMask
			return c.tier1.cache.EntryAt(j.Code), true, next
		}
	}
	clears, page := c.tier1.stats.Clears, c.R[decode.RIP]
	b, st := c.findUnit()
	if b == nil {
		return 0, false, st
	}
	if link != noLink && clears == c.tier1.stats.Clears {
		c.linkUnit(link, b, page)
	}
	return b.unit.Entry, true, next
}

// enterUnit runs translated code from a unit's start on. jumped: go on at RIP, whose
// unit exit link is to lead to.
func (c *CPU) enterUnit(code jit.Entry) (link uint32, st status) {
	f := &c.Frame
	c.loadFrame()
	misses := 0
	for {
		slice := min(jitSlice, c.TurnEnd-c.Instructions)
		if c.TurnEnd < c.Instructions {
			slice = 0
		}
		f.Budget = int64(slice)
		n, x := c.tier1.cache.Run(f, &c.R, code)
		done := slice - uint64(f.Budget)
		c.Instructions += done
		c.tier1.stats.Ran += done
		if done != 0 {
			misses = 0
		}
		kind := x.Kind
		if kind == jit.Edge && f.Budget < 0 {
			kind = jit.Spent
		}
		c.tier1.stats.Exits[kind]++
		switch kind {
		case jit.Miss:
			if misses++; misses <= maxMisses && c.hostPtr(f.VA, uint64(x.Size), x.Write) != nil {
				code = x.Retry
				continue
			}
			return noLink, c.leaveUnit(x)
		case jit.Step:
			if st := c.leaveUnit(x); st != next || x.Retry == 0 || !c.sameUnit() {
				return noLink, st
			}
			code = x.Retry
			continue
		case jit.Lazy:
			c.rawFlags()
			code = x.Retry
			continue
		case jit.Load:
			if c.lendX87() {
				code = x.Retry
				continue
			}
			return noLink, c.leaveUnit(x)
		case jit.Edge:
			c.RIP = c.R[decode.RIP] + uint64(x.Target)
			link = n
		case jit.Spent:
			c.RIP = c.R[decode.RIP] + uint64(x.Target)
			link = noLink
		case jit.Split:
			c.RIP = c.R[decode.RIP] + uint64(x.Target)
			link = n
			c.tier1.alone = true
		case jit.Far:
			link = n
		case jit.Indirect:
			link = noLink
			if !c.canonical(c.RIP) {
				c.R[x86.RSP] -= uint64(x.Target)
				c.RIP = c.R[decode.RIP] + uint64(x.Off)
				c.Instructions--
				c.settleFlags()
				c.fpu.mxcsr = f.MXCSR
				return noLink, c.raiseErr(x86.GP, 0)
			}
		case jit.Dead:
			c.RIP = c.R[decode.RIP] + uint64(x.Off)
			if j := c.tier1.jumps.find(c.RIP); j != nil {
				*j = jit.Jump{}
			}
			link = noLink
		}
		c.settleFlags()
		c.fpu.mxcsr = f.MXCSR
		return link, jumped
	}
}

// loadFrame gives translated code what it needs to know besides registers and flags.
func (c *CPU) loadFrame() {
	f := &c.Frame
	f.Tags = [2]uint64{c.unitTag(false), c.unitTag(true)}
	f.MXCSR = c.fpu.mxcsr
	f.FPUsable = c.vectorsUsable()
	f.X87 = c.x87Home()
}

// sameUnit reports that the unit which was left for one instruction goes on behind
// that, and prepares it: the code, its translation and the privilege are the same.
func (c *CPU) sameUnit() bool {
	tags := c.Frame.Tags
	c.loadFrame()
	return tags == c.Frame.Tags && !c.blocks.changed && c.straightOn()
}

// maxMisses is how often one instruction's accesses may miss in the TLB before it
// is run by its definition: two of them may want the same entry.
const maxMisses = 4

// leaveUnit runs the instruction that translated code left at.
func (c *CPU) leaveUnit(x *jit.Exit) status {
	c.tier1.stats.Stepped++
	c.settleFlags()
	c.fpu.mxcsr = c.Frame.MXCSR
	c.RIP = c.R[decode.RIP] + uint64(x.Off)
	c.Instructions += uint64(x.Count)
	c.tier1.stats.Ran += uint64(x.Count)
	if in := c.tier1.cache.Inst(x); in != nil {
		return c.finish(in, c.exec(in))
	}
	return c.step()
}

// xmmUsable reports that XMM instructions run as on the host: none faults, and no
// floating-point exception is unmasked.
func (c *CPU) xmmUsable() bool {
	return c.CR0&(x86.CR0TS|x86.CR0EM) == 0 && c.CR4&x86.CR4OSFXSR != 0 && c.fpu.mxcsr&0x1f80 == 0x1f80
}

// vectorsUsable is Frame.FPUsable: whether XMM and YMM instructions run as on the host.
func (c *CPU) vectorsUsable() uint8 {
	switch {
	case !c.xmmUsable():
		return 0
	case c.single == nil || c.CR4&x86.CR4OSXSAVE == 0 || c.XCR0&(xcr0SSE|xcr0AVX) != xcr0SSE|xcr0AVX:
		return 1
	}
	return 2
}

// unitTag is what an entry of the table of jumps must have been made under to hold
// now: the same translations, privilege and mode.
func (c *CPU) unitTag(global bool) uint64 {
	return c.sys.mem.ages.of(global)<<3 | b2u(c.Mode == decode.Mode64)<<2 | uint64(c.MMUIndex) + 1
}

// add puts j where look-ups go first; what is there moves to where they go then.
func (t *jumpTable) add(j jit.Jump) {
	i := jit.JumpIndex(j.RIP)
	if t[i].RIP != j.RIP {
		t[i^1] = t[i]
	}
	t[i] = j
}

// find returns the entry for rip, or nil; whether it holds now its tag says.
func (t *jumpTable) find(rip uint64) *jit.Jump {
	i := jit.JumpIndex(rip)
	if t[i].RIP != rip {
		i ^= 1
	}
	if t[i].RIP != rip {
		return nil
	}
	return &t[i]
}

// findUnit is find for translated code.
func (c *CPU) findUnit() (*block, status) {
	c.sys.mem.ages.limit()
	lin := c.RIP
	if c.Mode != decode.Mode64 && lin>>32 != 0 {
		return nil, c.raiseErr(x86.GP, 0)
	}
	if c.debug.cut(lin) {
		return nil, next
	}
	if lin == c.tier1.cold {
		return nil, c.stepCold()
	}
	phys, code, st := c.codeAt(lin)
	if st != next {
		return nil, st
	}
	key := c.blockKey(phys)
	alone := c.tier1.alone
	if c.tier1.alone = false; alone {
		key |= aloneKey
	}
	recent := &c.tier1.recent[(key>>5^key>>3&3<<10)%recentUnits]
	c.tier1.stats.Lookups++
	b := *recent
	if b == nil || b.key != key {
		b = c.blocks.byKey[key]
	} else {
		c.tier1.stats.Recent++
	}
	b, ok := c.confirm(b, lin, len(code))
	if !ok {
		return nil, faulted
	}
	if b == nil {
		if c.cfg.Lazy && !alone && c.tier1.isNew(key) {
			return nil, c.stepCold()
		}
		if b, st = c.translateUnit(key, phys, lin, code); b == nil {
			return nil, st
		}
	}
	*recent = b
	c.R[decode.RIP] = c.RIP - uint64(b.off)
	if alone {
		return b, next
	}
	if c.tagged(b) {
		c.tier1.jumps.add(jit.Jump{
			RIP: c.RIP, Tag: c.unitTag(c.RIP>>63 != 0), Code: c.tier1.cache.Address(b.unit.Entry), Page: c.RIP &^ (pageSize - 1),
		})
	}
	return b, next
}

// tagged reports that b is what RIP leads to for as long as Frame.Tags says so.
func (c *CPU) tagged(b *block) bool {
	return c.RIP>>63 == 0 || c.fetchedGlobal(c.RIP) && (!b.cross || c.fetchedGlobal(c.RIP+pageSize))
}

// linkUnit leads an exit of a unit whose page was at page to b, which is at RIP.
func (c *CPU) linkUnit(x uint32, b *block, page uint64) {
	cache := c.tier1.cache
	if cache.IsFar(x) {
		high := c.RIP >> 63
		if !c.tagged(b) || !cache.LinkFar(x, b.unit.Entry, page, c.unitTag(high != 0), int(high)) {
			return
		}
	} else {
		cache.Link(x, b.unit.Entry)
	}
	b.in = append(b.in, x)
	if n := len(b.in); n >= 64 && n&(n-1) == 0 { // a far exit may have led here before
		slices.Sort(b.in)
		b.in = slices.Compact(b.in)
	}
}

// isNew reports that the block was not met before, as far as is remembered.
func (t *tier1) isNew(key uint64) bool {
	hash := key * 0x9e3779b97f4a7c15 // 2^64 / golden ratio
	slot, tag := &t.met[hash>>(64-metBits)], uint32(hash>>16)|1
	met := *slot == tag
	*slot = tag
	return !met
}

// stepCold runs instructions of a block that is not worth its translation yet: half
// of the blocks of a kernel's boot run once.
func (c *CPU) stepCold() status {
	c.tier1.cold = noKey
	for n := 0; ; n++ {
		rip := c.RIP
		if st := c.step(); st != next || c.RIP-rip-1 >= decode.MaxLen {
			return st
		}
		if n == maxInstructions || !c.straightOn() || c.debug.cut(c.here()) {
			c.tier1.cold = c.RIP
			return next
		}
	}
}

// translateUnit translates the block at phys and adds it.
func (c *CPU) translateUnit(key, phys, lin uint64, code []byte) (*block, status) {
	if c.tier1.cache.Full() {
		c.clearBlocks()
	}
	defer c.tier1.stats.timed()()
	b := c.tier1.newBlock()
	b.off, b.key, b.page = uint16(phys%pageSize), key, c.holdPage(phys)
	part := c.debug.uncut(lin, code)
	u, ok := c.tier1.cache.Translate(part, b.off, c.MMUIndex, c.Mode, false, key&aloneKey != 0)
	switch {
	case !ok && len(part) < len(code): // a cut is in the middle of it
		c.releaseEmpty(b.page)
		return nil, c.step()
	case !ok: // the first instruction crosses the page
		phys2, more, st := c.codeAt(c.after(lin, uint64(len(code))))
		if st != next {
			c.releaseEmpty(b.page)
			return nil, st
		}
		second := c.holdPage(phys2)
		var p [decode.MaxLen]byte
		n := copy(p[:], code)
		n += copy(p[n:], more)
		b.cross, b.phys2 = true, phys2
		c.tier1.stats.Crossing++
		u, _ = c.tier1.cache.Translate(p[:n], b.off, c.MMUIndex, c.Mode, true, key&aloneKey != 0)
		u.End = max(u.End, pageSize+1) // undefined within the first page after all
		if second != b.page {
			second.add(b, 0, uint64(u.End)-pageSize)
		}
	}
	*b.unit, b.end, b.n = u, u.End, uint8(u.Count)
	from, to := b.bytesIn(b.page.phys)
	b.page.add(b, from, to-from)
	c.tier1.stats.Blocks++
	c.tier1.stats.Instructions += uint64(u.Count)
	c.blocks.byKey[key] = b
	c.blocks.held += b.weight()
	return b, next
}

// unitBlock is a block of translated code.
type unitBlock struct {
	block
	jit.Unit
}

// newBlock returns one that is empty. They are made by the dozen.
func (t *tier1) newBlock() *block {
	if len(t.fresh) == 0 {
		t.fresh = make([]unitBlock, sampled*2-1) // odd, so that timed does not meet it more often than others
	}
	b := &t.fresh[0]
	t.fresh = t.fresh[1:]
	b.block.unit = &b.Unit
	return &b.block
}

// settleFlags has Core's lazy flags say what translated code left in its frame.
func (k *Core) settleFlags() {
	f := &k.Frame
	kind := f.FlagKind
	f.FlagKind = jit.FlagsCore
	w := uint8(kind & jit.FlagsWidth >> 8)
	sh := uint(64 - 8<<w)
	switch kind & jit.FlagsKind {
	case jit.FlagsRaw:
		k.setStatus(f.FlagA>>8&0xff | f.FlagA&1<<11)
	case jit.FlagsLogic:
		k.Res, k.CC = f.FlagA<<sh, ccLogic|w
	case jit.FlagsAdd:
		k.Res, k.Src, k.CC = f.FlagA<<sh, f.FlagB<<sh, ccAdd|w
	case jit.FlagsSub:
		k.Res, k.Src, k.CC = f.FlagA<<sh, f.FlagB<<sh, ccSub|w
	case jit.FlagsCmp:
		k.Res, k.Src, k.CC = (f.FlagA-f.FlagB)<<sh, f.FlagB<<sh, ccSub|w
	case jit.FlagsTest:
		k.Res, k.CC = (f.FlagA&f.FlagB)<<sh, ccLogic|w
	}
	step := ccInc
	switch {
	case kind&jit.FlagsDec != 0:
		step = ccDec
	case kind&jit.FlagsInc == 0:
		return
	}
	w = uint8(kind >> jit.FlagsStepWidth & 3)
	k.Src, k.Res, k.CC = b2u(k.cf()), f.FlagC<<(64-8<<w), step|w
}

// rawFlags has the frame hold the flags as FlagsRaw.
func (k *Core) rawFlags() {
	k.settleFlags()
	s := k.status()
	k.Frame.FlagA = s&0xff<<8 | s>>11&1
	k.Frame.FlagKind = jit.FlagsRaw
}
