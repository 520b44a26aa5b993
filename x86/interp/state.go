package interp

import (
	"fmt"

	"berth/x86"
)

// stateVersion is the x86.State that this package reads and writes.
const stateVersion = 1

// Reset gives the CPU its power-on state (Intel SDM vol. 3A §9.1.1): vCPU 0 runs
// at the reset vector, the others wait for a start-up IPI.
func (c *CPU) Reset() {
	mp := x86.MPRunnable
	if c.cfg.ID != 0 {
		mp = x86.MPWaitSIPI
	}
	c.sys.msrs.reset()
	c.Frame.STAR, c.Frame.LSTAR, c.Frame.FMASK, c.Frame.KernelGSBase, c.Frame.TSCAux = 0, 0, 0, 0, 0
	c.XCR0 = 1
	c.loadFPU(&x86.FPU{FCW: 0x40, FTW: 0xff, MXCSR: mxcsrReset})
	c.CR0 = x86.CR0CD | x86.CR0NW
	c.resetCore(mp)
}

// initReset is what an INIT message does: registers as at reset, but for the
// caches' bits of CR0, the FPU and the MSRs.
func (c *CPU) initReset() {
	mp := x86.MPRunnable
	if c.cfg.ID != 0 {
		mp = x86.MPWaitSIPI
	}
	c.resetCore(mp)
}

func (c *CPU) resetCore(mp x86.MPState) {
	clear(c.R[:])
	c.R[x86.RDX] = signature
	c.RIP = 0xfff0
	c.CR0 = c.CR0&(x86.CR0CD|x86.CR0NW) | x86.CR0ET
	c.CR2, c.CR3, c.CR4, c.EFER = 0, 0, 0, 0
	c.DR = [8]uint64{6: dr6Reset, 7: dr7Reset}
	data := x86.Segment{Limit: 0xffff, Attr: x86.AttrP | x86.AttrS | x86.AttrRW | x86.AttrAccessed}
	for s := range c.Seg {
		c.Seg[s] = data
	}
	c.Seg[x86.CS] = x86.Segment{Selector: 0xf000, Base: 0xffff0000, Limit: 0xffff, Attr: data.Attr | x86.AttrCode}
	c.Seg[x86.LDTR].Attr = x86.AttrP | typeLDT
	c.Seg[x86.TR].Attr = x86.AttrP | typeTSSBusy
	c.GDT, c.IDT = x86.Table{Limit: 0xffff}, x86.Table{Limit: 0xffff}
	c.CPL = 0
	s := &c.sys
	s.nmi, s.nmiMasked, s.shadow, s.dr6 = false, false, shadowNone, 0
	c.Frame.Blocked = true
	c.setMP(mp)
	c.exit = Exit{}
	c.stateChanged(x86.FlagR1)
}

// stateChanged recomputes everything derived after registers were replaced.
func (c *CPU) stateChanged(flags uint64) {
	c.setRFlags(flags)
	c.pagingChanged()
	c.initTLB()
	c.modeChanged()
	c.post(pendIntr)
}

func (c *CPU) setMP(mp x86.MPState) {
	c.sys.mp = mp
	if mp != x86.MPRunnable {
		c.post(pendHalt)
	}
}

// startUp begins execution at a start-up IPI's page (Intel SDM vol. 3A §8.4.4).
func (c *CPU) startUp(vector uint8) {
	c.Seg[x86.CS].Selector = uint16(vector) << 8
	c.Seg[x86.CS].Base = uint64(vector) << 12
	c.RIP = 0
	c.sys.mp = x86.MPRunnable
	c.modeChanged()
}

// GetState copies the architectural state out. Only the vCPU's thread, outside Run.
func (c *CPU) GetState(s *x86.State) {
	*s = x86.State{
		Version: stateVersion,
		GPR:     [16]uint64(c.R[:16]),
		RIP:     c.RIP,
		RFLAGS:  c.rflags(),
		Seg:     c.Seg,
		GDT:     c.GDT,
		IDT:     c.IDT,
		CR0:     c.CR0,
		CR2:     c.CR2,
		CR3:     c.CR3,
		CR4:     c.CR4,
		CR8:     uint64(c.cfg.APIC.TPR()),
		EFER:    c.EFER,
		DR:      c.DR,
		XCR0:    c.XCR0,
		MSRs:    c.saveMSRs(),
		MP:      c.sys.mp,
		Events: x86.Events{
			NMIPending:  c.sys.nmi || c.Pending&pendNMI != 0,
			NMIMasked:   c.sys.nmiMasked,
			ShadowSTI:   c.inShadow() == shadowSTI,
			ShadowMovSS: c.inShadow() == shadowMovSS,
			SIPIVector:  uint8(c.sys.sipi.Load()),
		},
	}
	s.Events.Exception, s.Events.Interrupt = c.heldEvent()
	if c.trapped() && !s.Events.Exception.Valid {
		s.DR[6] = dr6With(s.DR[6], c.sys.dr6)
		s.Events.Exception = x86.Pending{Valid: true, Vector: x86.DB}
	}
	c.saveFPU(&s.FPU)
}

// SetState replaces the architectural state. Only the vCPU's thread, outside Run.
func (c *CPU) SetState(s *x86.State) error {
	if s.Version != stateVersion {
		return fmt.Errorf("interp: CPU state version %d, not %d", s.Version, stateVersion)
	}
	if s.XCR0&^c.xcr0Supported() != 0 {
		return fmt.Errorf("interp: CPU state with XCR0 0x%x: this CPU model has no such registers", s.XCR0)
	}
	copy(c.R[:16], s.GPR[:])
	c.RIP, c.Seg, c.GDT, c.IDT = s.RIP, s.Seg, s.GDT, s.IDT
	c.CR0, c.CR2, c.CR3, c.CR4, c.EFER = s.CR0|x86.CR0ET, s.CR2, s.CR3&^(1<<63), s.CR4, s.EFER
	c.DR, c.XCR0 = s.DR, s.XCR0|1
	c.loadFPU(&s.FPU)
	c.DR[6], c.DR[7] = s.DR[6]&dr6Bits|dr6Reset, s.DR[7]&dr7Bits|dr7Reset
	c.CPL = c.cplOf(s)
	c.loadMSRs(s.MSRs)
	c.cfg.APIC.SetTPR(uint8(s.CR8 & 15))
	c.setEvents(&s.Events)
	c.sys.dr6, c.exit = 0, Exit{}
	c.take(pendHalt | pendNMI | pendInit | pendSIPI | pendHeld | pendMC | pendShutdown)
	c.holdEvent(&s.Events)
	c.setMP(s.MP)
	if s.MP == x86.MPSIPI {
		c.setMP(x86.MPWaitSIPI)
		c.post(pendSIPI)
	}
	if s.Events.NMIPending {
		c.post(pendNMI)
	}
	c.stateChanged(s.RFLAGS)
	if !c.loadPDPTEs(c.CR0, c.CR3, c.CR4, c.EFER) {
		return fmt.Errorf("interp: CPU state with reserved bits in the PDPTEs at CR3 0x%x", c.CR3)
	}
	return nil
}

// cplOf derives the privilege level that a state means.
func (c *CPU) cplOf(s *x86.State) uint8 {
	switch {
	case s.CR0&x86.CR0PE == 0:
		return 0
	case s.RFLAGS&x86.FlagVM != 0:
		return 3
	case s.Seg[x86.SS].Attr&x86.AttrUnusable == 0:
		return s.Seg[x86.SS].Attr.DPL()
	}
	return uint8(s.Seg[x86.CS].Selector & 3)
}

// holdEvent takes what a state has half delivered, to deliver it before the next
// instruction. RIP and RFLAGS are the interrupted ones; an instruction that is an
// interrupt itself (INT n, INT3, INTO) is executed anew.
func (c *CPU) holdEvent(e *x86.Events) {
	p, from := &e.Exception, fromException
	if !p.Valid {
		p, from = &e.Interrupt, fromExternal
	}
	if !p.Valid || p.Soft || from == fromException && (p.Vector == x86.BP || p.Vector == x86.OF) {
		return
	}
	c.sys.held = event{vector: p.Vector, source: from, hasError: p.HasError, code: p.Error}
	c.post(pendHeld)
}

// heldEvent is holdEvent's counterpart.
func (c *CPU) heldEvent() (exception, interrupt x86.Pending) {
	h := &c.sys.held
	p := x86.Pending{Valid: true, Vector: h.vector, HasError: h.hasError, Error: h.code}
	switch {
	case c.Pending&pendHeld != 0 && h.source == fromExternal:
		interrupt = p
	case c.Pending&pendHeld != 0:
		exception = p
	case c.Pending&pendMC != 0:
		exception = x86.Pending{Valid: true, Vector: x86.MC}
	}
	return exception, interrupt
}

func (c *CPU) setEvents(e *x86.Events) {
	c.sys.nmi, c.sys.nmiMasked = false, e.NMIMasked
	c.sys.sipi.Store(uint32(e.SIPIVector))
	c.sys.shadow, c.sys.shadowRIP = shadowNone, c.RIP
	if e.ShadowSTI {
		c.sys.shadow = shadowSTI
	}
	if e.ShadowMovSS {
		c.sys.shadow = shadowMovSS
	}
	c.Frame.Blocked = true
}

// savedMSRs are those that a state carries besides the ones with fields of their own.
func savedMSRs() []uint32 {
	list := []uint32{
		x86.MSRTSCAdjust, x86.MSRTSC, x86.MSRSysenterCS, x86.MSRSysenterESP, x86.MSRSysenterEIP,
		x86.MSRMiscEnable, x86.MSRPAT, x86.MSRMTRRDefType, x86.MSRSTAR, x86.MSRLSTAR, x86.MSRCSTAR,
		x86.MSRFMASK, x86.MSRKernelGSBase, x86.MSRTSCAux, x86.MSRMTRRFix64K, 0x258, 0x259,
		x86.MSRMCGStatus, x86.MSRMCGCtl, x86.MSRDebugCtl,
	}
	for i := range uint32(4 * x86.MCBanks) {
		list = append(list, x86.MSRMC0Ctl+i)
	}
	for i := uint32(0x268); i <= 0x26f; i++ {
		list = append(list, i)
	}
	for i := range uint32(2 * mtrrVariable) {
		list = append(list, x86.MSRMTRRPhysBase0+i)
	}
	return list
}

func (c *CPU) saveMSRs() []x86.MSR {
	var out []x86.MSR
	for _, i := range savedMSRs() {
		v, _ := c.readMSR(i)
		out = append(out, x86.MSR{Index: i, Value: v})
	}
	return out
}

// loadMSRs sets the MSRs of a state; ones that this CPU does not have are left out.
// The TSC is taken as a value, whatever the clock's difference: TSC_ADJUST keeps its own.
func (c *CPU) loadMSRs(list []x86.MSR) {
	for _, m := range list {
		switch {
		case m.Index == x86.MSRTSC:
			c.sys.msrs.tscOffset += m.Value - c.tsc()
		case m.Index == x86.MSREFER, isAPICMSR(m.Index):
		case m.Index >= x86.MSRMC0Ctl && m.Index < x86.MSRMC0Ctl+4*x86.MCBanks:
			p, _ := c.sys.msrs.mc.register(m.Index)
			*p = m.Value
		default:
			c.writeMSR(m.Index, m.Value)
		}
	}
}

// TSC returns the guest's time-stamp counter.
func (c *CPU) TSC() uint64 { return c.tsc() }

// CodeBytes returns the instruction bytes at CS:RIP, up to 15, as far as they can
// be read. Only the vCPU's thread, outside Run.
func (c *CPU) CodeBytes() []byte {
	old := c.exc
	_, code, _ := c.fetch(c.SegBase[x86.CS] + c.RIP)
	c.exc = old
	return append([]byte(nil), code[:min(len(code), 15)]...)
}
