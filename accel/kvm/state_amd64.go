package kvm

import (
	"fmt"

	"berth/kvmapi"
	"berth/x86"
)

// stateVersion is x86.State's.
const stateVersion = 1

// GetState reads the vCPU. The caller is the thread that runs it, between two
// Runs: no I/O exit is half done then (see Run).
func (c *vcpu) GetState(s *x86.State) error {
	*s = x86.State{Version: stateVersion}
	var regs kvmapi.Regs
	var sregs kvmapi.Sregs
	var xsave kvmapi.XSave
	var xcrs kvmapi.XCRs
	var events kvmapi.VCPUEvents
	var mp kvmapi.MPState
	var debug kvmapi.DebugRegs
	// KVM_GET_MP_STATE first: it lets a waiting INIT or SIPI take effect.
	_, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_MP_STATE, &mp)
	next := func(f func() (int, error)) {
		if err == nil {
			_, err = f()
		}
	}
	next(func() (int, error) { return kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_REGS, &regs) })
	next(func() (int, error) { return kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_SREGS, &sregs) })
	next(func() (int, error) { return kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_XSAVE, &xsave) })
	next(func() (int, error) { return kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_XCRS, &xcrs) })
	next(func() (int, error) { return kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_VCPU_EVENTS, &events) })
	next(func() (int, error) { return kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_DEBUGREGS, &debug) })
	next(func() (int, error) { s.MSRs, err = c.readMSRs(c.vm.msrs.stateList()); return 0, err })
	if err != nil {
		return fmt.Errorf("kvm: vCPU %d: reading its state: %w", c.id, err)
	}
	getRegs(&regs, s)
	getSregs(&sregs, s)
	getXSave(&xsave, s, c.vm.acc.xstateLayout())
	for _, x := range xcrs.XCRs[:min(xcrs.NrXCRs, kvmapi.KVM_MAX_XCRS)] {
		if x.XCR == 0 {
			s.XCR0 = x.Value
		}
	}
	getEvents(&events, s)
	s.MP = getMP(mp.MPState)
	s.DR = [8]uint64{debug.DB[0], debug.DB[1], debug.DB[2], debug.DB[3], 0, 0, debug.DR6, debug.DR7}
	c.stoppedTSC(s)
	return nil
}

// SetState writes the vCPU; the caller is as for GetState. LoadChip comes after it.
//
// The order, and what each place depends on:
//
//  1. KVM_SET_SREGS: paging, EFER and segments, which decide how the rest is
//     checked. It would also wake a vCPU it takes for freshly reset, so the MP
//     state comes later. The APIC base and with it the LAPIC stay as they are.
//  2. KVM_SET_REGS: it forgets a pending exception, so events come later.
//  3. KVM_SET_XSAVE, then KVM_SET_XCRS: the first is checked against the host's
//     features only.
//  4. KVM_SET_MSRS: some exist only under the CR4 and EFER of 1. TSC is first
//     among them, since kvmclock's registers start from it.
//  5. KVM_SET_DEBUGREGS.
//  6. KVM_SET_VCPU_EVENTS: after all that may raise or forget one.
//  7. KVM_SET_MP_STATE last: from here on the vCPU may be woken.
func (c *vcpu) SetState(s *x86.State) error {
	if s.Version != stateVersion {
		return fmt.Errorf("kvm: vCPU state of version %d, want %d", s.Version, stateVersion)
	}
	if err := c.setState(s); err != nil {
		return fmt.Errorf("kvm: vCPU %d: writing its state: %w", c.id, err)
	}
	return nil
}

func (c *vcpu) setState(s *x86.State) error {
	xsave, err := makeXSave(s, c.vm.acc.xstateLayout())
	if err != nil {
		return err
	}
	var sregs kvmapi.Sregs
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_SREGS, &sregs); err != nil {
		return err
	}
	sregs = makeSregs(s, sregs.APICBase)
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_SREGS, &sregs); err != nil {
		return err
	}
	regs := makeRegs(s)
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_REGS, &regs); err != nil {
		return err
	}
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_XSAVE, xsave); err != nil {
		return err
	}
	xcrs := kvmapi.XCRs{NrXCRs: 1}
	xcrs.XCRs[0].Value = s.XCR0
	if s.XCR0 != 0 {
		if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_XCRS, &xcrs); err != nil {
			return err
		}
	}
	if err := c.writeMSRs(c.changedMSRs(s.MSRs)); err != nil {
		return err
	}
	debug := kvmapi.DebugRegs{DB: [4]uint64(s.DR[:4]), DR6: s.DR[6], DR7: s.DR[7]}
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_DEBUGREGS, &debug); err != nil {
		return err
	}
	events := makeEvents(s)
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_VCPU_EVENTS, &events); err != nil {
		return err
	}
	state := s.MP
	if state == x86.MPHalted && (s.Events.Exception.Valid || s.Events.Interrupt.Valid) {
		state = x86.MPRunnable // KVM does not wake a vCPU for what is half delivered
	}
	mp := kvmapi.MPState{MPState: makeMP(state)}
	_, err = kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_MP_STATE, &mp)
	return err
}

func getRegs(k *kvmapi.Regs, s *x86.State) {
	s.GPR = [16]uint64{k.RAX, k.RCX, k.RDX, k.RBX, k.RSP, k.RBP, k.RSI, k.RDI, k.R8, k.R9, k.R10, k.R11, k.R12, k.R13, k.R14, k.R15}
	s.RIP, s.RFLAGS = k.RIP, k.RFLAGS
}

func makeRegs(s *x86.State) kvmapi.Regs {
	g := &s.GPR
	return kvmapi.Regs{
		RAX: g[x86.RAX], RCX: g[x86.RCX], RDX: g[x86.RDX], RBX: g[x86.RBX],
		RSP: g[x86.RSP], RBP: g[x86.RBP], RSI: g[x86.RSI], RDI: g[x86.RDI],
		R8: g[8], R9: g[9], R10: g[10], R11: g[11], R12: g[12], R13: g[13], R14: g[14], R15: g[15],
		RIP: s.RIP, RFLAGS: s.RFLAGS | x86.FlagR1,
	}
}

// segments pairs KVM's segments with x86's order.
func segments(k *kvmapi.Sregs) [8]*kvmapi.Segment {
	return [8]*kvmapi.Segment{
		x86.ES: &k.ES, x86.CS: &k.CS, x86.SS: &k.SS, x86.DS: &k.DS,
		x86.FS: &k.FS, x86.GS: &k.GS, x86.LDTR: &k.LDT, x86.TR: &k.TR,
	}
}

func getSregs(k *kvmapi.Sregs, s *x86.State) {
	for i, seg := range segments(k) {
		s.Seg[i] = getSegment(seg)
	}
	s.GDT = x86.Table{Base: k.GDT.Base, Limit: k.GDT.Limit}
	s.IDT = x86.Table{Base: k.IDT.Base, Limit: k.IDT.Limit}
	s.CR0, s.CR2, s.CR3, s.CR4, s.CR8, s.EFER = k.CR0, k.CR2, k.CR3, k.CR4, k.CR8, k.EFER
}

func makeSregs(s *x86.State, apicBase uint64) kvmapi.Sregs {
	k := kvmapi.Sregs{
		GDT: kvmapi.DTable{Base: s.GDT.Base, Limit: s.GDT.Limit},
		IDT: kvmapi.DTable{Base: s.IDT.Base, Limit: s.IDT.Limit},
		CR0: s.CR0, CR2: s.CR2, CR3: s.CR3, CR4: s.CR4, CR8: s.CR8, EFER: s.EFER, APICBase: apicBase,
	}
	for i, seg := range segments(&k) {
		*seg = makeSegment(s.Seg[i])
	}
	// VMX takes only a busy task, a 64-bit one in IA-32e mode. AMD CPUs show a
	// 16-bit one until TR is loaded.
	k.TR.Type |= 2
	if s.EFER&x86.EFERLMA != 0 {
		k.TR.Type = 11
	}
	return k
}

func getSegment(k *kvmapi.Segment) x86.Segment {
	a := x86.Attr(k.Type)&x86.AttrTypeMask | x86.Attr(k.DPL&3)<<5
	for _, f := range []struct {
		on  uint8
		bit x86.Attr
	}{{k.S, x86.AttrS}, {k.Present, x86.AttrP}, {k.AVL, x86.AttrAVL}, {k.L, x86.AttrL}, {k.DB, x86.AttrDB}, {k.G, x86.AttrG}, {k.Unusable, x86.AttrUnusable}} {
		if f.on != 0 {
			a |= f.bit
		}
	}
	return x86.Segment{Selector: k.Selector, Attr: a, Limit: k.Limit, Base: k.Base}
}

// makeSegment gives KVM a descriptor cache in the one form that both vendors'
// entry checks accept: a usable code or data segment is accessed, as loading it
// made it; a segment that is not present is unusable; G agrees with the limit.
func makeSegment(s x86.Segment) kvmapi.Segment {
	a := s.Attr
	if a&x86.AttrP == 0 {
		a |= x86.AttrUnusable
	}
	if a&x86.AttrUnusable != 0 {
		a &^= x86.AttrP
	} else if a&x86.AttrS != 0 {
		a |= x86.AttrAccessed
	}
	switch {
	case s.Limit>>20 != 0:
		a |= x86.AttrG
	case s.Limit&0xfff != 0xfff:
		a &^= x86.AttrG
	}
	has := func(f x86.Attr) uint8 { return bit(a&f != 0) }
	return kvmapi.Segment{
		Base: s.Base, Limit: s.Limit, Selector: s.Selector, Type: a.Type(), DPL: a.DPL(),
		Present: has(x86.AttrP), DB: has(x86.AttrDB), S: has(x86.AttrS), L: has(x86.AttrL),
		G: has(x86.AttrG), AVL: has(x86.AttrAVL), Unusable: has(x86.AttrUnusable),
	}
}

// getEvents reads what is on its way. AMD CPUs have one interrupt shadow, which
// KVM shows as both; STI's needs IF. An NMI that is being injected has blocked
// NMIs already, but must be delivered again: it counts as pending and not blocked.
func getEvents(k *kvmapi.VCPUEvents, s *x86.State) {
	s.Events = x86.Events{
		Exception: x86.Pending{
			Valid: k.Exception.Injected != 0, Vector: k.Exception.Nr,
			HasError: k.Exception.HasErrorCode != 0, Error: k.Exception.ErrorCode,
		},
		Interrupt:   x86.Pending{Valid: k.Interrupt.Injected != 0, Vector: k.Interrupt.Nr, Soft: k.Interrupt.Soft != 0},
		NMIPending:  k.NMI.Pending != 0 || k.NMI.Injected != 0,
		NMIMasked:   k.NMI.Masked != 0 && k.NMI.Injected == 0,
		ShadowSTI:   k.Interrupt.Shadow&kvmapi.KVM_X86_SHADOW_INT_STI != 0,
		ShadowMovSS: k.Interrupt.Shadow&kvmapi.KVM_X86_SHADOW_INT_MOV_SS != 0,
		SIPIVector:  uint8(k.SIPIVector),
	}
	if s.Events.ShadowSTI && s.Events.ShadowMovSS {
		s.Events.ShadowSTI = s.RFLAGS&x86.FlagIF != 0
		s.Events.ShadowMovSS = !s.Events.ShadowSTI
	}
	if !s.Events.Exception.Valid {
		s.Events.Exception = x86.Pending{}
	}
	if !s.Events.Interrupt.Valid {
		s.Events.Interrupt = x86.Pending{}
	}
}

func makeEvents(s *x86.State) kvmapi.VCPUEvents {
	e := &s.Events
	k := kvmapi.VCPUEvents{
		SIPIVector: uint32(e.SIPIVector),
		Flags: kvmapi.KVM_VCPUEVENT_VALID_NMI_PENDING | kvmapi.KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			kvmapi.KVM_VCPUEVENT_VALID_SHADOW,
	}
	k.Exception.Injected, k.Exception.Nr = bit(e.Exception.Valid), e.Exception.Vector
	k.Exception.HasErrorCode, k.Exception.ErrorCode = bit(e.Exception.HasError), e.Exception.Error
	k.Interrupt.Injected, k.Interrupt.Nr, k.Interrupt.Soft = bit(e.Interrupt.Valid), e.Interrupt.Vector, bit(e.Interrupt.Soft)
	if e.ShadowSTI {
		k.Interrupt.Shadow |= kvmapi.KVM_X86_SHADOW_INT_STI
	}
	if e.ShadowMovSS {
		k.Interrupt.Shadow |= kvmapi.KVM_X86_SHADOW_INT_MOV_SS
	}
	k.NMI.Pending, k.NMI.Masked = bit(e.NMIPending), bit(e.NMIMasked)
	return k
}

// mpStates pairs x86's MP states with KVM's, by x86's number.
func mpStates() [5]uint32 {
	return [5]uint32{
		x86.MPRunnable: kvmapi.KVM_MP_STATE_RUNNABLE, x86.MPHalted: kvmapi.KVM_MP_STATE_HALTED,
		x86.MPWaitSIPI: kvmapi.KVM_MP_STATE_INIT_RECEIVED, x86.MPSIPI: kvmapi.KVM_MP_STATE_SIPI_RECEIVED,
		x86.MPUninitialized: kvmapi.KVM_MP_STATE_UNINITIALIZED,
	}
}

func getMP(k uint32) x86.MPState {
	for s, n := range mpStates() {
		if n == k {
			return x86.MPState(s)
		}
	}
	return x86.MPRunnable
}

func makeMP(s x86.MPState) uint32 {
	if all := mpStates(); int(s) < len(all) {
		return all[s]
	}
	return kvmapi.KVM_MP_STATE_RUNNABLE
}
