package fp

import (
	"golang.org/x/sys/cpu"

	"berth/x86"
	"berth/x86/optab"
)

// After a change of optab the stubs are stale and the tests against the host fail.
//
//go:generate go run gen.go

// Stub numbers, which gen.go shares: an SSE operation's own number first, then
// compares by predicate, the 64-bit conversions, and roundings.
const (
	numSSE    = uintptr(optab.LastSSE-optab.FirstSSE) + 1
	stubCmp   = numSSE
	stubWide  = numSSE + 32
	stubRound = numSSE + 38
)

// nativeInt does dst = dst op src by the stub; false if there is none.
//
//go:noescape
func nativeInt(stub uintptr, dst, src *[2]uint64) bool

// nativeFloat is nativeInt under csr, which must mask every exception; it
// returns MXCSR after the operation.
//
//go:noescape
func nativeFloat(stub uintptr, dst, src *[2]uint64, csr uint32) (after uint32, ok bool)

// nativeX87 replaces r, which is ST0 and ST1, by the stub's results under the
// control word cw, which must mask every exception; it returns the status word.
//
//go:noescape
func nativeX87(stub uintptr, r *[2]x86.F80, cw uint16) uint16

func hasNative() bool { return cpu.X86.HasSSE42 }

// floatStub returns the stub of a floating-point operation with its immediate,
// and the rounding mode that the immediate asks for instead of mxcsr's.
func floatStub(op optab.Op, imm uint8, mxcsr uint32) (stub uintptr, csr uint32) {
	switch op {
	case optab.CMPPS:
		return stubCmp + uintptr(imm&7), mxcsr
	case optab.CMPPD:
		return stubCmp + 8 + uintptr(imm&7), mxcsr
	case optab.CMPSS:
		return stubCmp + 16 + uintptr(imm&7), mxcsr
	case optab.CMPSDX:
		return stubCmp + 24 + uintptr(imm&7), mxcsr
	case optab.ROUNDPS, optab.ROUNDPD, optab.ROUNDSS, optab.ROUNDSD:
		if imm&4 == 0 {
			mxcsr = mxcsr&^csrRC | uint32(imm&3)<<csrRCShift
		}
		return stubRound + 2*uintptr(op-optab.ROUNDPD) + uintptr(imm>>3&1), mxcsr
	}
	return uintptr(op - optab.FirstSSE), mxcsr
}
