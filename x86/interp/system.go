package interp

import (
	"encoding/binary"
	"sync/atomic"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// systemState is what the operating system's side of the CPU needs beyond Core.
type systemState struct {
	mem        memState
	alignCheck bool // CPL 3 with CR0.AM and AC: see aligned
	flat32     bool // see isFlat32
	msrs       msrState
	hostTSC    hostTSC

	mp        x86.MPState
	sipi      atomic.Uint32 // the last start-up vector
	nmi       bool          // one waits while nmiMasked
	nmiMasked bool          // from an NMI's delivery to the next IRET
	held      event         // see pendHeld
	ignne     atomic.Bool   // the IGNNE# pin

	shadow    shadowKind
	shadowRIP uint64 // the instruction that the shadow covers

	stepping bool   // instructions run one at a time: see needStep
	tf       bool   // TF was set when the instruction that is being stepped began
	noStep   bool   // it went through the IDT or SYSCALL: no single-step trap
	dr6      uint64 // causes of a debug trap that is due: see trapped
	heldDR6  uint64 // those that were before the instruction being stepped
}

// shadowKind is what blocks interrupts for one instruction.
type shadowKind uint8

const (
	shadowNone shadowKind = iota
	shadowSTI
	shadowMovSS
)

// execSystem runs one instruction of the system family.
func (c *CPU) execSystem(in *decode.Inst) status {
	switch in.Op {
	case optab.MONITOR, optab.MWAIT, optab.RSM, optab.VMCALL, optab.VMMCALL:
		return c.raise(x86.UD) // as CPUID says
	case optab.CLAC, optab.STAC:
		return c.setAC(in)
	case optab.SYSCALL:
		return c.syscall(in)
	case optab.SYSRET:
		return c.sysret(in)
	case optab.LLDT, optab.LTR, optab.SLDT, optab.STR, optab.LAR, optab.LSL, optab.VERR, optab.VERW:
		if !c.protected() {
			return c.raise(x86.UD)
		}
	}
	if in.Row.Flags&optab.Privileged != 0 && c.CPL != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	if serialising(in.Op) {
		c.fence()
	}
	if in.Op >= optab.RDMSR {
		return c.execSystem2(in)
	}
	switch in.Op {
	case optab.CLI, optab.STI:
		return c.setIF(in)
	case optab.HLT:
		c.sys.mp = x86.MPHalted
		c.post(pendHalt)
		return next
	case optab.MOVCR:
		return c.movCR(in)
	case optab.MOVDR:
		return c.movDR(in)
	case optab.MOVSEG:
		return c.movSeg(in)
	case optab.LGDT, optab.LIDT:
		return c.loadTable(in)
	case optab.SGDT, optab.SIDT:
		return c.storeTable(in)
	case optab.LLDT, optab.LTR:
		return c.loadSystemSeg(in)
	case optab.SLDT, optab.STR, optab.SMSW:
		return c.storeSystem(in)
	case optab.LMSW:
		v, ok := c.read(in, 0)
		if !ok {
			return faulted
		}
		return c.setCR0(c.CR0&^(x86.CR0MP|x86.CR0EM|x86.CR0TS) | v&(x86.CR0PE|x86.CR0MP|x86.CR0EM|x86.CR0TS))
	case optab.CLTS:
		c.CR0 &^= x86.CR0TS
		return next
	case optab.LAR, optab.LSL:
		return c.inspect(in)
	case optab.VERR, optab.VERW:
		return c.verify(in)
	case optab.INVD, optab.WBINVD:
		return next
	case optab.INVLPG:
		if va := c.ea(in); c.canonical(va) {
			c.flushPage(va)
		}
		return next
	case optab.INVPCID:
		return c.invpcid(in)
	}
	return c.unimplemented(in)
}

// serialising instructions drain the store buffer (Intel SDM vol. 3A §8.3).
func serialising(op optab.Op) bool {
	switch op {
	case optab.MOVCR, optab.MOVDR, optab.WRMSR, optab.LGDT, optab.LIDT, optab.LLDT, optab.LTR,
		optab.INVLPG, optab.INVPCID, optab.INVD, optab.WBINVD:
		return true
	}
	return false
}

func (c *CPU) execSystem2(in *decode.Inst) status {
	switch in.Op {
	case optab.RDMSR:
		v, ok := c.readMSR(uint32(c.R[x86.RCX]))
		if !ok {
			return c.raiseErr(x86.GP, 0)
		}
		c.setEDXEAX(v)
		return next
	case optab.WRMSR:
		if !c.writeMSR(uint32(c.R[x86.RCX]), c.edxeax()) {
			return c.raiseErr(x86.GP, 0)
		}
		return next
	case optab.RDPMC:
		return c.raiseErr(x86.GP, 0) // there are no counters
	case optab.SYSENTER:
		return c.sysenter()
	case optab.SYSEXIT:
		return c.sysexit(in)
	case optab.SWAPGS:
		gs := &c.Seg[x86.GS]
		gs.Base, c.Frame.KernelGSBase = c.Frame.KernelGSBase, gs.Base
		c.SegBase[x86.GS] = gs.Base
		return next
	case optab.RDFSBASE, optab.RDGSBASE, optab.WRFSBASE, optab.WRGSBASE:
		return c.segmentBase(in)
	case optab.XGETBV, optab.XSETBV:
		return c.xcr(in)
	}
	return c.unimplemented(in)
}

func (c *CPU) edxeax() uint64 {
	return c.R[x86.RDX]<<32 | c.R[x86.RAX]&0xffffffff
}

func (c *CPU) setEDXEAX(v uint64) {
	c.R[x86.RAX], c.R[x86.RDX] = v&0xffffffff, v>>32
}

// setIF is CLI and STI. STI begins a shadow of one instruction if IF was clear.
func (c *CPU) setIF(in *decode.Inst) status {
	if c.CR0&x86.CR0PE != 0 && c.CPL > c.iopl() {
		return c.setVIF(in)
	}
	if in.Op == optab.CLI {
		c.Flags &^= x86.FlagIF
		return next
	}
	if c.Flags&x86.FlagIF == 0 {
		c.Flags |= x86.FlagIF
		c.setShadow(shadowSTI, in)
		if c.Frame.Blocked {
			c.post(pendIntr)
		}
	}
	return next
}

// setShadow blocks interrupts until the instruction after in has ended.
func (c *CPU) setShadow(k shadowKind, in *decode.Inst) {
	c.sys.shadow, c.sys.shadowRIP = k, c.nextRIP(in)
}

// inShadow reports whether the instruction at RIP stands in a shadow.
func (c *CPU) inShadow() shadowKind {
	if c.sys.shadowRIP != c.RIP {
		return shadowNone
	}
	return c.sys.shadow
}

// setAC is CLAC and STAC.
func (c *CPU) setAC(in *decode.Inst) status {
	if c.CPL != 0 || c.CR0&x86.CR0PE == 0 {
		return c.raise(x86.UD)
	}
	if in.Op == optab.STAC {
		c.Flags |= x86.FlagAC
	} else {
		c.Flags &^= x86.FlagAC
	}
	c.updateMMUIndex()
	return next
}

// movSeg is MOV to and from a segment register.
func (c *CPU) movSeg(in *decode.Inst) status {
	if in.Reg > x86.GS {
		return c.raise(x86.UD)
	}
	if in.Row.Args[0] != optab.Sw {
		return done(c.write(in, 0, c.sel(in.Reg)))
	}
	if in.Reg == x86.CS {
		return c.raise(x86.UD)
	}
	v, ok := c.read(in, 1)
	if !ok || !c.loadSeg(in.Reg, uint16(v)) {
		return faulted
	}
	if in.Reg == x86.SS {
		c.setShadow(shadowMovSS, in)
	}
	return next
}

// loadTable is LGDT and LIDT.
func (c *CPU) loadTable(in *decode.Inst) status {
	n := uint8(6)
	if c.Mode == decode.Mode64 {
		n = 10
	}
	va, ok := c.memAddr(in, n, false)
	if !ok {
		return faulted
	}
	var p [10]byte
	if !c.ldBytes(va, p[:n]) {
		return faulted
	}
	t := x86.Table{Limit: binary.LittleEndian.Uint16(p[:]), Base: binary.LittleEndian.Uint64(p[2:])}
	if n == 6 && in.OpSize == 2 {
		t.Base &= 0xffffff
	}
	if !c.canonical(t.Base) {
		return c.raiseErr(x86.GP, 0)
	}
	if in.Op == optab.LGDT {
		c.GDT = t
	} else {
		c.IDT = t
	}
	return next
}

// umip reports that an instruction which only leaks system state is refused here.
func (c *CPU) umip() bool { return c.CR4&x86.CR4UMIP != 0 && c.CPL != 0 }

// storeTable is SGDT and SIDT.
func (c *CPU) storeTable(in *decode.Inst) status {
	if c.umip() {
		return c.raiseErr(x86.GP, 0)
	}
	t := c.GDT
	if in.Op == optab.SIDT {
		t = c.IDT
	}
	n := uint8(6)
	if c.Mode == decode.Mode64 {
		n = 10
	}
	va, ok := c.memAddr(in, n, true)
	if !ok {
		return faulted
	}
	var p [10]byte
	binary.LittleEndian.PutUint16(p[:], t.Limit)
	binary.LittleEndian.PutUint64(p[2:], t.Base)
	// A word and the base behind it (Intel SDM vol. 3A §3.5.1).
	ok = c.probeWrite(va, uint64(n)) && c.alignedTo(va, 2) && c.alignedTo(c.after(va, 2), uint64(n-2)&^3)
	return done(ok && c.stBytes(va, p[:n]))
}

// storeSystem is SLDT, STR and SMSW.
func (c *CPU) storeSystem(in *decode.Inst) status {
	if c.umip() {
		return c.raiseErr(x86.GP, 0)
	}
	v := c.CR0
	switch in.Op {
	case optab.SLDT:
		v = c.sel(x86.LDTR)
	case optab.STR:
		v = c.sel(x86.TR)
	}
	return done(c.write(in, 0, v))
}

// loadSystemSeg is LLDT and LTR.
func (c *CPU) loadSystemSeg(in *decode.Inst) status {
	v, ok := c.read(in, 0)
	if !ok {
		return faulted
	}
	sel := uint16(v)
	if sel&^3 == 0 && in.Op == optab.LLDT {
		c.Seg[x86.LDTR] = nullSegment(sel)
		return next
	}
	if sel&^3 == 0 {
		return c.raiseErr(x86.GP, 0)
	}
	size := uint64(8)
	if c.longMode() {
		size = 16
	}
	va, ok := c.findDesc(sel, size)
	if sel&4 != 0 || !ok {
		return c.raiseErr(x86.GP, errSel(sel))
	}
	raw, ok := c.sys64(va)
	high := uint64(0)
	if ok && size == 16 {
		high, ok = c.sys64(va + 8)
	}
	if !ok {
		return faulted
	}
	return c.setSystemSeg(in.Op, sel, descriptor(raw), high, va)
}

func (c *CPU) setSystemSeg(op optab.Op, sel uint16, d descriptor, high, va uint64) status {
	a := d.attr()
	tss := a.Type() == typeTSS || a.Type() == typeTSS16 && !c.longMode()
	s := d.segment(sel)
	s.Base |= high << 32
	switch {
	case a&x86.AttrS != 0, op == optab.LLDT && a.Type() != typeLDT, op == optab.LTR && !tss, high>>40&0x1f != 0:
		return c.raiseErr(x86.GP, errSel(sel))
	case a&x86.AttrP == 0:
		return c.raiseErr(x86.NP, errSel(sel))
	case !c.canonical(s.Base):
		return c.raiseErr(x86.GP, 0)
	}
	if op == optab.LLDT {
		c.Seg[x86.LDTR] = s
		return next
	}
	s.Attr |= x86.AttrRW // busy
	if !c.lockedSys8(va+5, func(v uint64) uint64 { return v | 2 }) {
		return faulted
	}
	c.Seg[x86.TR] = s
	return next
}

// inspect is LAR and LSL: ZF tells whether the descriptor may be looked at.
func (c *CPU) inspect(in *decode.Inst) status {
	v, ok := c.read(in, 1)
	if !ok {
		return faulted
	}
	sel := uint16(v)
	flags := c.rflags() &^ x86.FlagZF
	d, visible, ok := c.visible(sel)
	if !ok {
		return faulted
	}
	a := d.attr()
	if visible && a&x86.AttrS == 0 {
		visible = c.inspectable(a.Type(), in.Op == optab.LAR)
	}
	if visible {
		flags |= x86.FlagZF
		out := uint64(d>>32) & 0xffff00
		if in.Op == optab.LSL {
			out = uint64(d.limit())
		} else {
			out &= 0xf0ff00
		}
		c.setReg(in, in.Reg, in.OpSize, out)
	}
	c.setStatus(flags)
	return next
}

// inspectable says which system descriptors LAR and LSL accept (SDM vol. 2, tables 3-53 and 3-55).
func (c *CPU) inspectable(t uint8, lar bool) bool {
	switch t {
	case typeLDT, typeTSS, typeTSSBusy:
		return true
	case typeTSS16, typeTSS16Busy:
		return !c.longMode()
	case typeCall:
		return lar
	case typeCall16, typeTask:
		return lar && !c.longMode()
	}
	return false
}

// visible loads a descriptor that the current privilege and the selector's RPL may
// see; ok is false if memory faulted.
func (c *CPU) visible(sel uint16) (d descriptor, visible, ok bool) {
	if sel&^3 == 0 {
		return 0, false, true
	}
	va, in := c.findDesc(sel, 8)
	if !in {
		return 0, false, true
	}
	v, ok := c.sys64(va)
	d = descriptor(v)
	a := d.attr()
	return d, isConforming(a) || a.DPL() >= max(c.CPL, uint8(sel&3)), ok
}

// verify is VERR and VERW.
func (c *CPU) verify(in *decode.Inst) status {
	v, ok := c.read(in, 0)
	if !ok {
		return faulted
	}
	d, visible, ok := c.visible(uint16(v))
	if !ok {
		return faulted
	}
	a := d.attr()
	if in.Op == optab.VERR {
		visible = visible && isReadable(a)
	} else {
		visible = visible && isWritableData(a)
	}
	c.setStatus(c.rflags()&^x86.FlagZF | b2u(visible)<<6)
	return next
}

// invpcid is INVPCID (SDM vol. 2). The TLB holds the current PCID's and global
// translations only; of others there are ages.
func (c *CPU) invpcid(in *decode.Inst) status {
	va, ok := c.memAddr(in, 16, false)
	if !ok {
		return faulted
	}
	desc, ok := c.ld128(va)
	if !ok {
		return faulted
	}
	kind := c.R[in.Reg&15]
	if c.Mode != decode.Mode64 {
		kind &= 0xffffffff
	}
	pcid, addr := desc[0], desc[1]
	switch {
	case kind > 3, pcid>>12 != 0,
		kind < 2 && pcid != 0 && c.CR4&x86.CR4PCIDE == 0,
		kind == 0 && !c.canonical(addr):
		return c.raiseErr(x86.GP, 0)
	}
	switch m := &c.sys.mem; {
	case kind == 0 && pcid == c.pcid():
		c.flushPage(addr)
	case kind == 1 && pcid == c.pcid():
		c.flushTLB(true)
	case kind <= 1:
		m.ages.forgetSpace(pcid)
	case kind == 2:
		c.flushTLB(false)
	case kind == 3:
		m.ages.forgetSpaces()
		c.emptyTLB(true)
	}
	return next
}

// segmentBase is RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE.
func (c *CPU) segmentBase(in *decode.Inst) status {
	if c.CR4&x86.CR4FSGSBASE == 0 {
		return c.raise(x86.UD)
	}
	seg := uint8(x86.FS)
	if in.Op == optab.RDGSBASE || in.Op == optab.WRGSBASE {
		seg = x86.GS
	}
	if in.Op == optab.RDFSBASE || in.Op == optab.RDGSBASE {
		c.setReg(in, in.RM, in.OpSize, c.Seg[seg].Base)
		return next
	}
	v := c.reg(in, in.RM, in.OpSize)
	if !c.canonical(v) {
		return c.raiseErr(x86.GP, 0)
	}
	c.setBase(seg, v)
	return next
}

func (c *CPU) setBase(seg uint8, base uint64) {
	c.Seg[seg].Base = base
	c.SegBase[seg] = base
}

// xcr is XGETBV and XSETBV.
func (c *CPU) xcr(in *decode.Inst) status {
	if c.CR4&x86.CR4OSXSAVE == 0 {
		return c.raise(x86.UD)
	}
	if uint32(c.R[x86.RCX]) != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	if in.Op == optab.XGETBV {
		c.setEDXEAX(c.XCR0)
		return next
	}
	v := c.edxeax()
	if v&1 == 0 || v&^c.xcr0Supported() != 0 || v&(xcr0SSE|xcr0AVX) == xcr0AVX {
		return c.raiseErr(x86.GP, 0)
	}
	c.XCR0 = v
	return next
}

// xcr0Supported are the state components of XSAVE: x87, SSE and, where there is AVX, that.
func (c *CPU) xcr0Supported() uint64 {
	if c.single != nil {
		return xcr0X87 | xcr0SSE | xcr0AVX
	}
	return xcr0X87 | xcr0SSE
}

// unimplemented stops the VM and names the instruction: it is never a silent #UD.
func (c *CPU) unimplemented(in *decode.Inst) status {
	return c.unimplementedText("instruction " + in.Op.String())
}

func (c *CPU) unimplementedText(what string) status {
	c.exit = Exit{Reason: Internal, Detail: "not implemented: " + what}
	return stopped
}
