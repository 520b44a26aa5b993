package interp

import (
	"math/bits"

	"berth/x86"
)

// Kinds of lazy flags: Core.CC without its width bits.
const (
	ccFlags uint8 = iota << 2
	ccAux
	ccLogic
	ccAdd
	ccAdc // ccAdd with a carry in
	ccSub
	ccSbb // ccSub with a borrow in
	ccInc
	ccDec
	ccShl
	ccShr
	ccMul
)

// Widths in CC: log2 of bytes.
const (
	cc8 uint8 = iota
	cc16
	cc32
	cc64
)

const statusFlags = x86.FlagCF | x86.FlagPF | x86.FlagAF | x86.FlagZF | x86.FlagSF | x86.FlagOF

// ccShift is how far Res stands left of the result.
func (k *Core) ccShift() uint { return 64 - 8<<(k.CC&3) }

func (k *Core) zf() bool { return k.Res == 0 }

// operand returns the first operand of the addition or subtraction that CC
// names, shifted like Res.
func (k *Core) operand() uint64 {
	switch k.CC &^ 3 {
	case ccAdd:
		return k.Res - k.Src
	case ccAdc:
		return k.Res - k.Src - 1<<k.ccShift()
	case ccSub:
		return k.Res + k.Src
	default:
		return k.Res + k.Src + 1<<k.ccShift()
	}
}

func (k *Core) cf() bool {
	switch k.CC &^ 3 {
	case ccAdd:
		return k.Res < k.Src
	case ccAdc:
		return k.Res <= k.Src
	case ccSub:
		return k.Res+k.Src < k.Src
	case ccSbb:
		return k.operand() <= k.Src
	case ccLogic:
		return false
	case ccShl:
		return int64(k.Src) < 0
	case ccShr:
		return k.Src>>k.ccShift()&1 != 0
	case ccMul:
		return k.Src != uint64(int64(k.Res)>>63)
	default:
		return k.Src&x86.FlagCF != 0
	}
}

func (k *Core) of() bool {
	switch k.CC &^ 3 {
	case ccAdd, ccAdc:
		return int64((k.operand()^k.Res)&(k.Src^k.Res)) < 0
	case ccSub, ccSbb:
		a := k.operand()
		return int64((a^k.Src)&(a^k.Res)) < 0
	case ccInc:
		return k.Res == 1<<63
	case ccDec:
		return k.Res+1<<k.ccShift() == 1<<63
	case ccLogic:
		return false
	case ccShl, ccShr:
		return int64(k.Src^k.Res) < 0
	case ccMul:
		return k.Src != uint64(int64(k.Res)>>63)
	default:
		return k.Src&x86.FlagOF != 0
	}
}

func (k *Core) sf() bool {
	if k.CC&^3 == ccFlags {
		return k.Src&x86.FlagSF != 0
	}
	return int64(k.Res) < 0
}

func (k *Core) pf() bool {
	if k.CC&^3 == ccFlags {
		return k.Src&x86.FlagPF != 0
	}
	return bits.OnesCount8(uint8(k.Res>>k.ccShift()))&1 == 0
}

func (k *Core) af() bool {
	s := k.ccShift()
	switch k.CC &^ 3 {
	case ccAdd, ccAdc, ccSub, ccSbb:
		return (k.operand()^k.Src^k.Res)>>s&0x10 != 0
	case ccInc:
		return k.Res>>s&0xf == 0
	case ccDec:
		return k.Res>>s&0xf == 0xf
	case ccLogic, ccShl, ccShr, ccMul:
		return false
	default:
		return k.Src&x86.FlagAF != 0
	}
}

// cond evaluates a condition code: the low four bits of Jcc's opcode (Intel SDM
// vol. 1 appendix B).
func (k *Core) cond(cc uint8) bool {
	var v bool
	switch cc >> 1 & 7 {
	case 0:
		v = k.of()
	case 1:
		v = k.cf()
	case 2:
		v = k.zf()
	case 3:
		v = k.zf() || k.cf()
	case 4:
		v = k.sf()
	case 5:
		v = k.pf()
	case 6:
		v = k.sf() != k.of()
	default:
		v = k.zf() || k.sf() != k.of()
	}
	return v != (cc&1 != 0)
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// auxFlags returns CF, AF and OF at their places in RFLAGS.
func (k *Core) auxFlags() uint64 {
	return b2u(k.cf()) | b2u(k.af())<<4 | b2u(k.of())<<11
}

// status returns the six status flags at their places in RFLAGS.
func (k *Core) status() uint64 {
	if k.CC&^3 == ccFlags {
		return k.Src
	}
	return k.auxFlags() | b2u(k.pf())<<2 | b2u(k.zf())<<6 | b2u(k.sf())<<7
}

// setStatus sets the six status flags; other bits of v are ignored.
func (k *Core) setStatus(v uint64) {
	k.CC = ccFlags
	k.Src = v & statusFlags
	k.Res = ^v & x86.FlagZF
}

// setCompareFlags sets ZF, PF and CF as given and clears OF, SF and AF, as
// COMISS, FCOMI and PTEST do.
func (k *Core) setCompareFlags(zf, pf, cf bool) {
	k.setStatus(b2u(cf) | b2u(pf)<<2 | b2u(zf)<<6)
}

// setCarry changes CF alone.
func (k *Core) setCarry(cf bool) {
	if k.CC&^3 == ccFlags || k.CC&^3 == ccAux {
		k.Src = k.Src&^x86.FlagCF | b2u(cf)
		return
	}
	k.Src = k.auxFlags()&^x86.FlagCF | b2u(cf)
	k.CC = k.CC&3 | ccAux
}

// rflags returns RFLAGS with the lazy flags worked out.
func (c *CPU) rflags() uint64 { return c.Flags | c.status() }

// setRFlags replaces all of RFLAGS, with what follows from IF, TF, RF and AC;
// whoever changes VM also calls modeChanged.
func (c *CPU) setRFlags(v uint64) {
	c.setStatus(v)
	c.Flags = v&^statusFlags | x86.FlagR1
	c.updateMMUIndex()
	if c.Flags&x86.FlagIF != 0 && c.Frame.Blocked {
		c.post(pendIntr)
	}
	c.updateStepping()
}
