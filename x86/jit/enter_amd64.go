package jit

import "golang.org/x/sys/cpu"

// Available reports that this host runs translated code: every instruction of
// x86-64-v2 may be in it.
func Available() bool {
	x := &cpu.X86
	return x.HasSSE42 && x.HasSSE41 && x.HasSSSE3 && x.HasSSE3 && x.HasPOPCNT && x.HasCX16
}

// enter runs translated code until it returns.
//
//go:noescape
func enter(frame *Frame, regs *[18]uint64, code uintptr)

// AVX reports that the host runs every instruction of x86-64-v3, and its system
// keeps YMM registers (Intel SDM vol. 1 §14.3, vol. 2 CPUID).
func AVX() bool {
	const (
		feat1  = 1<<12 | 1<<22 | 1<<27 | 1<<28 | 1<<29 // ECX: FMA, MOVBE, OSXSAVE, AVX, F16C
		feat7  = 1<<3 | 1<<5 | 1<<8                    // EBX: BMI1, AVX2, BMI2
		featEx = 1 << 5                                // ECX: LZCNT
	)
	if !Available() || !cpu.X86.HasAVX2 { // which says that the system keeps them
		return false
	}
	_, _, c1, _ := cpuid(1, 0)
	_, b7, _, _ := cpuid(7, 0)
	_, _, cx, _ := cpuid(0x80000001, 0)
	return c1&feat1 == feat1 && b7&feat7 == feat7 && cx&featEx == featEx
}

// SteadyTSC reports that the host's TSC runs at one rate whatever its CPUs do (Intel SDM vol. 3B §18.17.1).
func SteadyTSC() bool {
	const leaf, invariant = 0x80000007, 1 << 8
	if last, _, _, _ := cpuid(0x80000000, 0); last < leaf {
		return false
	}
	_, _, _, d := cpuid(leaf, 0)
	return d&invariant != 0
}

// HostTSC reads it, after what comes before.
func HostTSC() uint64

func cpuid(leaf, sub uint32) (a, b, c, d uint32)

// runSingle calls the code of one instruction.
//
//go:noescape
func runSingle(code uintptr, o *Operands)
