// Package fp does the CPU's floating-point and packed arithmetic as pure functions that give the same bits on every host.
package fp

import (
	"berth/x86"
	"berth/x86/optab"
)

// Flags are exception flags, at their places in MXCSR and in the x87 status
// word (Intel SDM vol. 1 §4.9, figures 8-4 and 10-3).
type Flags uint8

// The exception flags.
const (
	IE Flags = 1 << iota // invalid operation
	DE                   // denormal operand
	ZE                   // division by zero
	OE                   // overflow
	UE                   // underflow
	PE                   // inexact result

	// PreFlags are found before the operation is done: unmasked, they stop it.
	PreFlags = IE | DE | ZE
	AllFlags = IE | DE | ZE | OE | UE | PE
)

// Status word bits that X87 returns beside Flags.
const (
	C0 = 1 << 8
	C1 = 1 << 9
	C2 = 1 << 10
	C3 = 1 << 14
)

// MXCSR's fields (Intel SDM vol. 1 §10.2.3).
const (
	csrDAZ     = 1 << 6
	csrMasks   = 0x3f << 7
	csrOM      = 1 << 10
	csrUM      = 1 << 11
	csrRC      = 3 << csrRCShift
	csrRCShift = 13
	csrFTZ     = 1 << 15
)

// Masked returns which exceptions MXCSR masks.
func Masked(mxcsr uint32) Flags { return Flags(mxcsr>>7) & AllFlags }

// Arith says where arithmetic is done. Both ways give the same bits, but for
// the x87's transcendental operations (Soft: within 1 ulp) and RCPPS, RSQRTPS
// and their scalar forms (Soft: rounded to 12 bits), which differ between CPUs.
type Arith bool

// The two ways.
const (
	Native Arith = false // by the host CPU where it is an x86, else as Soft
	Soft   Arith = true  // in software
)

func (a Arith) native() bool { return a == Native && hasNative() }

// Int does dst = dst op src for a packed-integer or bitwise operation of two XMM
// operands without an immediate. Shifts take their count from src's low
// quadword. It reports whether op is such an operation.
func (a Arith) Int(op optab.Op, dst, src *[2]uint64) bool {
	if a.native() && nativeInt(uintptr(op-optab.FirstSSE), dst, src) {
		return true
	}
	return softInt(op, dst, src)
}

// Float does dst = dst op src for an SSE floating-point operation under MXCSR
// and returns the flags it raises. If one of them is unmasked dst is undefined
// and only the flags that the CPU then sets are returned. Scalar operations
// leave the rest of dst. It is not for the operations of ToInt, FromInt and Compare.
func (a Arith) Float(op optab.Op, dst, src *[2]uint64, imm uint8, mxcsr uint32) Flags {
	if a.native() && (op == optab.DPPS || op == optab.DPPD) {
		return nativeDot(op, dst, src, imm, mxcsr)
	}
	// What overflow and underflow do when unmasked the host can only tell by a signal.
	if a.native() && (mxcsr&(csrOM|csrUM) == csrOM|csrUM || estimates(op)) {
		stub, csr := floatStub(op, imm, mxcsr)
		if after, ok := nativeFloat(stub, dst, src, csr&^uint32(AllFlags)|csrMasks); ok {
			return visible(Flags(after)&AllFlags, mxcsr)
		}
	}
	return softFloat(op, dst, src, imm, mxcsr)
}

// nativeDot is DPPS and DPPD by the host, which chooses among NaNs in its own way
// (SDM vol. 2, DPPS). Its stubs take all elements: what imm's high half leaves out is
// made 0 before, what the low half leaves out after. Flags are the host's only if
// all exceptions are masked: an unmasked one stops between the steps.
func nativeDot(op optab.Op, dst, src *[2]uint64, imm uint8, mxcsr uint32) Flags {
	l := ps
	if op == optab.DPPD {
		l = pd
	}
	pick := func(v [2]uint64, which uint8) [2]uint64 {
		for i := range l.n {
			if which>>i&1 == 0 {
				l.put(&v, i, num{})
			}
		}
		return v
	}
	d, s := pick(*dst, imm>>4), pick(*src, imm>>4)
	after, _ := nativeFloat(uintptr(op-optab.FirstSSE), &d, &s, mxcsr&^uint32(AllFlags)|csrMasks)
	f := Flags(after) & AllFlags
	if mxcsr&csrMasks != csrMasks {
		f = softFloat(op, dst, src, imm, mxcsr)
	}
	*dst = pick(d, imm)
	return f
}

// estimates reports the operations that raise nothing and differ between CPUs.
func estimates(op optab.Op) bool {
	return op == optab.RCPPS || op == optab.RCPSS || op == optab.RSQRTPS || op == optab.RSQRTSS
}

// visible drops the flags found after the operation if one found before it is unmasked.
func visible(f Flags, mxcsr uint32) Flags {
	if f&PreFlags&^Masked(mxcsr) != 0 {
		return f & PreFlags
	}
	return f
}

// ToInt converts the low element v of an XMM register or memory to a 32- or
// 64-bit (wide) integer: CVTSS2SI, CVTTSS2SI, CVTSD2SI, CVTTSD2SI. A 32-bit
// result is zero-extended.
func (a Arith) ToInt(op optab.Op, v uint64, wide bool, mxcsr uint32) (uint64, Flags) {
	if a.native() {
		var dst [2]uint64
		src := [2]uint64{v}
		if after, ok := nativeFloat(intStub(op, wide), &dst, &src, mxcsr&^uint32(AllFlags)|csrMasks); ok {
			if !wide {
				dst[0] = uint64(uint32(dst[0]))
			}
			return dst[0], Flags(after) & AllFlags
		}
	}
	return softToInt(op, v, wide, mxcsr)
}

// FromInt converts a 32- or 64-bit (wide) integer into the low element of dst: CVTSI2SS, CVTSI2SD.
func (a Arith) FromInt(op optab.Op, dst *[2]uint64, v uint64, wide bool, mxcsr uint32) Flags {
	if a.native() {
		src := [2]uint64{v}
		if after, ok := nativeFloat(intStub(op, wide), dst, &src, mxcsr&^uint32(AllFlags)|csrMasks); ok {
			return Flags(after) & AllFlags
		}
	}
	return softFromInt(op, dst, v, wide, mxcsr)
}

// intStub returns the stub of a conversion from or to an integer register.
func intStub(op optab.Op, wide bool) uintptr {
	if !wide {
		return uintptr(op - optab.FirstSSE)
	}
	switch op {
	case optab.CVTSI2SS:
		return stubWide
	case optab.CVTSI2SD:
		return stubWide + 1
	case optab.CVTSS2SI:
		return stubWide + 2
	case optab.CVTSD2SI:
		return stubWide + 3
	case optab.CVTTSS2SI:
		return stubWide + 4
	}
	return stubWide + 5
}

// X87 does an arithmetic or transcendental x87 operation on r, which is ST0 and
// ST1 before. After it r[0] is the result: of FSINCOS, FPTAN and FXTRACT what
// takes ST0's place, with r[1] the value they push; otherwise r[1] is undefined.
// FYL2X, FYL2XP1 and FPATAN leave ST1's new value in r[0]. FSUB and FDIV are
// ST0 op ST1, FSUBR and FDIVR the reverse. Trigonometric operands are below
// 2^63. cw is the control word. The result is the flags, C1 and, of FPREM and
// FPREM1, C0, C2 and C3, at their places in the status word (C0 and C3 are
// undefined if r[0] is a NaN).
//
// With overflow or underflow unmasked the result is scaled as a stack register
// gets it (Intel SDM vol. 1 §8.5.4, §8.5.5).
func (a Arith) X87(op optab.Op, r *[2]x86.F80, cw uint16) uint16 {
	if a.native() && (cw&uint16(OE|UE) == uint16(OE|UE) || transcendental(op)) {
		masks := AllFlags
		if transcendental(op) {
			masks &^= OE | UE // its stub clears the exception before the next instruction would report it
		}
		sw := nativeX87(uintptr(op-optab.FirstX87), r, cw|uint16(masks)|0x40)
		return visible87(sw&(C0|C1|C2|C3|uint16(AllFlags)), cw)
	}
	return visible87(softX87(op, r, cw), cw)
}

// visible87 is visible for the status word.
func visible87(sw, cw uint16) uint16 {
	if sw&uint16(PreFlags)&^cw != 0 {
		return sw & uint16(PreFlags)
	}
	return sw
}

func transcendental(op optab.Op) bool {
	switch op {
	case optab.F2XM1, optab.FYL2X, optab.FYL2XP1, optab.FPTAN, optab.FPATAN, optab.FSIN, optab.FCOS, optab.FSINCOS:
		return true
	}
	return false
}
