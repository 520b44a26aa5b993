package lapic

import (
	"encoding/binary"

	"berth/x86"
)

// The base register, IA32_APIC_BASE (SDM §11.4.4, §11.12.1).
const (
	DefaultBase  = 0xfee00000
	Size         = 0x1000
	baseBSP      = 1 << 8
	baseX2       = 1 << 10
	baseEnable   = 1 << 11
	baseReserved = 0xfff<<52 | 0x2ff
)

// get reads a register; not ok where there is none.
func (l *LAPIC) get(reg int) (v uint32, ok bool) {
	l.mu.Lock()
	defer l.leave()
	switch {
	case reg == regPPR:
		return uint32(l.ppr()), true
	case reg == regCurrent:
		return l.current(l.set.clock.Now()), true
	case reg == regID || reg == regVersion || reg >= regTPR && reg <= regESR ||
		reg >= regICR && reg <= regInitial || reg == regDivide:
		return l.r[reg], true
	}
	l.fail(errRegister)
	return 0, false
}

// put writes a register. Read-only ones ignore it.
func (l *LAPIC) put(reg int, v uint32) {
	switch reg {
	case regEOI:
		l.endOfInterrupt()
		return
	case regICR:
		l.mu.Lock()
		l.r[regICR] = v & icrKept
		dest := l.r[regICRHigh] >> 24
		l.mu.Unlock()
		l.send(v, dest, dest == broadcast8)
		return
	}
	l.mu.Lock()
	defer l.leave()
	l.set32(reg, v)
}

// set32 writes a register that has effect on this APIC only.
func (l *LAPIC) set32(reg int, v uint32) {
	switch reg {
	case regTPR:
		l.r[reg] = v & 0xff
	case regLDR:
		l.r[reg] = v & 0xff000000
		l.publish()
	case regDFR:
		l.r[reg] = v | 0x0fffffff
		l.publish()
	case regSVR:
		l.setSVR(v & 0x3ff)
	case regESR:
		l.r[reg], l.errors = l.errors, 0
	case regICRHigh:
		l.r[reg] = v & 0xff000000
	case regLVTTimer:
		l.setLVTTimer(v & 0x710ff &^ (1 << 12))
	case regThermal, regPerf:
		l.setLVT(reg, v&0x107ff)
	case regLINT0, regLINT1:
		l.setLVT(reg, v&0x1a7ff)
	case regLVTError:
		l.setLVT(reg, v&0x100ff)
	case regInitial:
		l.setInitial(v)
	case regDivide:
		l.setDivide(v & 0xb)
	case regID, regVersion, regAPR, regPPR, regRRD, regCurrent:
	default:
		if reg < regISR || reg > regESR {
			l.fail(errRegister)
		}
	}
}

// setSVR: while software has the APIC disabled all LVT entries are masked (SDM §11.4.7.2).
func (l *LAPIC) setSVR(v uint32) {
	l.r[regSVR] = v
	if v&svrEnable == 0 {
		for reg := regLVTTimer; reg <= regLVTError; reg++ {
			l.r[reg] |= lvtMasked
		}
	}
}

func (l *LAPIC) setLVT(reg int, v uint32) {
	if l.r[regSVR]&svrEnable == 0 {
		v |= lvtMasked
	}
	l.r[reg] = v
}

// Read implements bus.Handler for the xAPIC page. What lies within an aligned
// register's 32 bits can be read, the rest is 0.
func (l *LAPIC) Read(off uint64, p []byte) {
	var b [16]byte
	if within := off & 15; within < 4 {
		v, _ := l.get(int(off >> 4 & 0xff))
		binary.LittleEndian.PutUint32(b[:], v)
		copy(p, b[within:])
		return
	}
	copy(p, b[:])
}

// Write implements bus.Handler for the xAPIC page. Only aligned writes of 32 bits
// and more reach a register (SDM §11.4.1).
func (l *LAPIC) Write(off uint64, p []byte) {
	if off&15 == 0 && len(p) >= 4 {
		l.put(int(off>>4&0xff), binary.LittleEndian.Uint32(p))
	}
}

// ReadMSR serves IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC's registers;
// not ok is #GP(0).
func (l *LAPIC) ReadMSR(index uint32) (value uint64, ok bool) {
	switch {
	case index == x86.MSRAPICBase:
		return l.base.Load(), true
	case index == x86.MSRTSCDeadline:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.tscDue, true
	case !l.x2(index):
		return 0, false
	}
	switch reg := int(index - x86.MSRX2APIC); reg {
	case regAPR, regEOI, regRRD, regDFR, regICRHigh, regSelfIPI:
		return 0, false
	case regICR:
		l.mu.Lock()
		defer l.mu.Unlock()
		return uint64(l.r[regICRHigh])<<32 | uint64(l.r[regICR]), true
	default:
		if !readable(reg) {
			return 0, false
		}
		v, _ := l.get(reg)
		return uint64(v), true
	}
}

// x2 reports whether index is an x2APIC register that is there in the present mode.
func (l *LAPIC) x2(index uint32) bool {
	const on = baseEnable | baseX2
	return index >= x86.MSRX2APIC && index < x86.MSRX2APIC+0x40 && l.base.Load()&on == on
}

// readable reports whether the x2APIC has reg (SDM table 11-6), ICR and
// write-only ones apart.
func readable(reg int) bool {
	return reg == regID || reg == regVersion || reg == regTPR || reg == regPPR || reg == regLDR ||
		reg >= regSVR && reg <= regESR || reg >= regLVTTimer && reg <= regCurrent || reg == regDivide
}

// WriteMSR is ReadMSR's counterpart; not ok is #GP(0).
func (l *LAPIC) WriteMSR(index uint32, value uint64) (ok bool) {
	switch {
	case index == x86.MSRAPICBase:
		return l.setBase(value)
	case index == x86.MSRTSCDeadline:
		l.mu.Lock()
		defer l.leave()
		l.setTSCDeadline(value)
		return true
	case !l.x2(index):
		return false
	}
	return l.writeX2(int(index-x86.MSRX2APIC), value)
}

// writeX2: reserved bits are #GP(0) (SDM §11.12.1.3).
func (l *LAPIC) writeX2(reg int, value uint64) bool {
	var allowed uint64
	switch reg {
	case regICR:
		if value&^(icrKept|icrStatus|0xffffffff<<32) != 0 {
			return false
		}
		dest := uint32(value >> 32)
		l.mu.Lock()
		l.r[regICR], l.r[regICRHigh] = uint32(value)&icrKept, dest
		l.mu.Unlock()
		l.send(uint32(value), dest, dest == broadcast32)
		return true
	case regSelfIPI:
		if value > 0xff {
			return false
		}
		l.send(uint32(value)|shortSelf<<18, 0, false)
		return true
	case regEOI, regESR:
	case regTPR:
		allowed = 0xff
	case regSVR:
		allowed = 0x3ff
	case regLVTTimer:
		allowed = 0x710ff
	case regThermal, regPerf:
		allowed = 0x117ff
	case regLINT0, regLINT1:
		allowed = 0x1f7ff
	case regLVTError:
		allowed = 0x110ff
	case regInitial:
		allowed = 0xffffffff
	case regDivide:
		allowed = 0xb
	default:
		return false
	}
	if value&^allowed != 0 {
		return false
	}
	l.put(reg, uint32(value))
	return true
}

// setBase moves between disabled, xAPIC and x2APIC mode along the ways that
// exist (SDM §11.12.5, figure 11-27). The BSP flag stays as it is.
func (l *LAPIC) setBase(v uint64) bool {
	l.mu.Lock()
	defer l.leave()
	old := l.base.Load()
	const mode = baseEnable | baseX2
	from, to := old&mode, v&mode
	switch {
	case v&baseReserved != 0, to == baseX2:
		return false
	case to != from && to == mode && from == 0, to == baseEnable && from == mode:
		return false
	}
	l.base.Store(v&^baseBSP | old&baseBSP)
	switch to {
	case from:
	case 0:
		l.reset()
	default:
		l.r[regICRHigh] = 0
		l.setID()
	}
	return true
}

// Space is an address space to lay the page over.
type Space interface {
	Read(addr uint64, p []byte)
	Write(addr uint64, p []byte)
}

// Overlay is guest-physical I/O space as one vCPU sees it: its own local APIC's
// page, while in xAPIC mode, over what all share.
type Overlay struct {
	APIC *LAPIC
	Next Space
}

func (o Overlay) mine(addr uint64) bool {
	base := o.APIC.base.Load()
	return addr-base&^(Size-1) < Size && base&(baseEnable|baseX2) == baseEnable
}

// Read implements Space. p does not cross a page.
func (o Overlay) Read(addr uint64, p []byte) {
	if o.mine(addr) {
		o.APIC.Read(addr&(Size-1), p)
		return
	}
	o.Next.Read(addr, p)
}

// Write implements Space. p does not cross a page.
func (o Overlay) Write(addr uint64, p []byte) {
	if o.mine(addr) {
		o.APIC.Write(addr&(Size-1), p)
		return
	}
	o.Next.Write(addr, p)
}
