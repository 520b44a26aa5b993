package jit

import (
	"unsafe"

	"berth/x86"
	"berth/x86/mmu"
)

// unsafe here: sizes of fields only.

var zero Frame

// Offsets in Frame.
var (
	offFlagA    = unsafe.Offsetof(zero.FlagA)
	offFlagB    = unsafe.Offsetof(zero.FlagB)
	offFlagKind = unsafe.Offsetof(zero.FlagKind)
	offExit     = unsafe.Offsetof(zero.Exit)
	offFlagC    = unsafe.Offsetof(zero.FlagC)
	offVA       = unsafe.Offsetof(zero.VA)
	offTags     = unsafe.Offsetof(zero.Tags)
	offJumps    = unsafe.Offsetof(zero.Jumps)
	offScratch  = unsafe.Offsetof(zero.Scratch)
	offHosts    = unsafe.Offsetof(zero.Hosts)
	offXMM      = unsafe.Offsetof(zero.XMM)
	offYMMH     = unsafe.Offsetof(zero.YMMH)
	offMXCSR    = unsafe.Offsetof(zero.MXCSR)
	offFPLoaded = unsafe.Offsetof(zero.FPLoaded)
	offFPUsable = unsafe.Offsetof(zero.FPUsable)
	offX87      = unsafe.Offsetof(zero.X87)
	offX87Image = unsafe.Offsetof(zero.X87Image)
	offFIP      = unsafe.Offsetof(zero.FIP)
	offFDP      = unsafe.Offsetof(zero.FDP)
	offFOP      = unsafe.Offsetof(zero.FOP)

	offKernelGSBase = unsafe.Offsetof(zero.KernelGSBase)
	offSTAR         = unsafe.Offsetof(zero.STAR)
	offLSTAR        = unsafe.Offsetof(zero.LSTAR)
	offFMASK        = unsafe.Offsetof(zero.FMASK)
	offTSCHost      = unsafe.Offsetof(zero.TSCHost)
	offTSCLimit     = unsafe.Offsetof(zero.TSCLimit)
	offTSCRate      = unsafe.Offsetof(zero.TSCRate)
	offTSCBase      = unsafe.Offsetof(zero.TSCBase)
	offTSCAux       = unsafe.Offsetof(zero.TSCAux)
	offPauses       = unsafe.Offsetof(zero.Pauses)
	offKernelIndex  = unsafe.Offsetof(zero.KernelIndex)
	offBlocked      = unsafe.Offsetof(zero.Blocked)
)

// Offsets in a segment register.
const (
	offSelector = unsafe.Offsetof(x86.Segment{}.Selector)
	offSegAttr  = unsafe.Offsetof(x86.Segment{}.Attr)
	offSegLimit = unsafe.Offsetof(x86.Segment{}.Limit)
	offSegBase  = unsafe.Offsetof(x86.Segment{}.Base)
)

const jumpBytes = unsafe.Sizeof(Jump{})

// The software TLB as translated code sees it.
const (
	tlbBytes = unsafe.Sizeof(mmu.TLB{})
	tlbShift = 5
	tagRead  = unsafe.Offsetof(mmu.Entry{}.Read)
	tagWrite = unsafe.Offsetof(mmu.Entry{}.Write)
	tagHost  = unsafe.Offsetof(mmu.Entry{}.Host)
)

var _ = [1]byte{}[unsafe.Sizeof(mmu.Entry{})-1<<tlbShift]
