package hostcpu

import (
	"bytes"
	"slices"

	"berth/x86/decode"
	"berth/x86/jit"
	"berth/x86/optab"
)

// skips is the operations that no case contains, by reason.
var skips = map[string][]optab.Op{
	"results are the host's own": {
		optab.CPUID, optab.RDTSC, optab.RDTSCP, optab.RDPID, optab.RDRAND, optab.RDSEED, optab.RDPMC, optab.XGETBV,
	},
	"layout of the host's extended state (it has AVX)": {
		optab.XSAVE, optab.XSAVEC, optab.XSAVEOPT, optab.XSAVES, optab.XRSTOR, optab.XRSTORS,
	},
	"enters Linux": {
		optab.SYSCALL, optab.SYSENTER, optab.INT,
	},
	"enters the hypervisor": {
		optab.VMCALL, optab.VMMCALL,
	},
	"depends on Linux's descriptor tables": {
		optab.LAR, optab.LSL, optab.VERR, optab.VERW, optab.POPSEG, optab.LDS, optab.LES, optab.LFS, optab.LGS, optab.LSS,
		optab.JMPFAR, optab.CALLFAR, optab.RETFAR, optab.IRET,
	},
	"KVM's #DB intercept on AMD reports its own address, not the next": {
		optab.INT1,
	},
	"Linux emulates it for UMIP": {
		optab.SGDT, optab.SIDT, optab.SLDT, optab.STR, optab.SMSW,
	},
	"not in the interpreter's CPUID (host has it)": {
		optab.ADCX, optab.ADOX, optab.PCLMULQDQ, optab.AESENC, optab.AESENCLAST,
		optab.AESDEC, optab.AESDECLAST, optab.AESIMC, optab.AESKEYGENASSIST,
	},
}

var skipReason = func() map[optab.Op]string {
	m := map[optab.Op]string{}
	for reason, ops := range skips {
		for _, op := range ops {
			m[op] = reason
		}
	}
	return m
}()

// Skipped says why a row is in no case, or nothing.
func Skipped(r *optab.Row) string {
	if r.VEX() || r.Op == optab.MOVBE || r.Op == optab.TZCNT || r.Op == optab.LZCNT {
		if !jit.AVX() {
			return "the host is no x86-64-v3 CPU"
		}
	}
	if r.Op == optab.MOVSEG && r.Args[0] == optab.Sw {
		return "depends on Linux's descriptor tables"
	}
	if r.Op == optab.NOP && r.Map == optab.Map0F && r.Opcode == 0x0d && r.Mod == optab.ModReg {
		return "reserved NOP on Intel (SDM vol. 2 table A-3), #UD on AMD"
	}
	return skipReason[r.Op]
}

// vexW reports VEX.W: what stands before VEX is neither C4 nor C5.
func vexW(code []byte) bool {
	for i, b := range code {
		if b&^1 == 0xc4 {
			return b == 0xc4 && code[i+2]>>7 != 0
		}
	}
	return false
}

// vendorSpecific reports encodings that AMD and Intel define differently: the
// interpreter is an Intel processor (docs/decisions/0010-cpu-model.md).
func vendorSpecific(in *decode.Inst, code []byte) bool {
	if in.Op == optab.SYSRET && in.Mode != decode.Mode64 { // Intel: #UD there
		return true
	}
	// Intel ignores their VEX.W there (SDM vol. 2), AMD does not.
	if in.Mode != decode.Mode64 && in.Vex && vexW(code) {
		switch in.Op {
		case optab.PEXTRD, optab.PINSRD, optab.PCMPESTRI, optab.PCMPESTRM:
			return true
		}
	}
	if in.Op == optab.PAUSE && slices.ContainsFunc(code[:in.Len-1], func(b byte) bool { return b&0xf1 == 0x41 }) {
		return true // with REX.B it is XCHG on AMD
	}
	rep := bytes.IndexByte(code[:in.Len-1], 0xf2) >= 0 || bytes.IndexByte(code[:in.Len-1], 0xf3) >= 0
	if rep && (in.Op == optab.LOOPE || in.Op == optab.LOOPNE) { // AMD lets F2 and F3 change the condition
		return true
	}
	// Near branches with 66 in 64-bit mode: AMD truncates RIP (APM vol. 3 §1.2.2).
	return in.Row.Flags&optab.Force64 != 0 && in.Mode == decode.Mode64 && in.P66
}

const (
	cf     = 1 << 0
	pf     = 1 << 2
	af     = 1 << 4
	zf     = 1 << 6
	sf     = 1 << 7
	of     = 1 << 11
	status = cf | pf | af | zf | sf | of
)

// undefined is the flags an instruction leaves undefined (Intel SDM vol. 2,
// "Flags Affected" of each), given the state it starts in; known is false if
// that state is not what the instruction sees.
func undefined(in *decode.Inst, s *State, known bool) uint64 {
	switch in.Op {
	case optab.AND, optab.OR, optab.XOR, optab.TEST:
		return af
	case optab.MUL, optab.IMUL:
		return sf | zf | af | pf
	case optab.DIV, optab.IDIV:
		return status
	case optab.AAA, optab.AAS:
		return of | sf | zf | pf
	case optab.AAM, optab.AAD:
		return of | af | cf
	case optab.DAA, optab.DAS:
		return of
	case optab.BT, optab.BTS, optab.BTR, optab.BTC:
		return of | sf | af | pf
	case optab.BSF, optab.BSR:
		return cf | of | sf | af | pf
	case optab.TZCNT, optab.LZCNT:
		return of | sf | af | pf
	case optab.ANDN, optab.BLSI, optab.BLSMSK, optab.BLSR, optab.BZHI:
		return af | pf
	case optab.BEXTR:
		return sf | af | pf
	case optab.SHL, optab.SHR, optab.SAR, optab.ROL, optab.ROR, optab.RCL, optab.RCR, optab.SHLD, optab.SHRD:
		return undefinedShift(in, s, known)
	}
	return 0
}

func undefinedShift(in *decode.Inst, s *State, known bool) uint64 {
	count, size := uint64(1), uint64(in.OpSize)*8
	switch in.Row.Args[len(in.Row.Args)-1] {
	case optab.Ib:
		count = in.Imm
	case optab.CL:
		count = s.GPR[1] & 0xff
		if !known {
			return status
		}
	}
	if count &= 31; in.OpSize == 8 {
		count = in.Imm & 63
		if in.Row.Args[len(in.Row.Args)-1] == optab.CL {
			count = s.GPR[1] & 63
		} else if in.Row.Args[len(in.Row.Args)-1] == optab.One {
			count = 1
		}
	}
	if count == 0 {
		return 0
	}
	var u uint64
	if count != 1 {
		u |= of
	}
	switch in.Op {
	case optab.SHL, optab.SHR:
		u |= af
		if count >= size {
			u |= cf
		}
	case optab.SAR:
		u |= af
	case optab.SHLD, optab.SHRD:
		u |= af
		if count > size {
			u |= status
		}
	}
	return u
}

// endsSequence reports instructions that nothing may follow in a case: what they
// leave undefined would spread.
func endsSequence(in *decode.Inst) bool {
	if in.Op == optab.CMPXCHG && !in.Mem {
		return true // see differ.registers
	}
	if in.Op == optab.PUSHSEG && in.OpSize == 4 {
		return true // see differ.otherBytes
	}
	return savesPointers(in) || undefined(in, &State{}, false) != 0 || undefinedResult(in, &State{}, false)
}

// undefinedResult reports that the destination itself is undefined.
func undefinedResult(in *decode.Inst, s *State, known bool) bool {
	switch in.Op {
	case optab.BSWAP: // 16-bit (SDM vol. 2 BSWAP)
		return in.OpSize == 2
	case optab.SHLD, optab.SHRD: // 16-bit with a count over 16
		if !known {
			return true
		}
		count := in.Imm
		if in.Row.Args[2] == optab.CL {
			count = s.GPR[1]
		}
		return in.OpSize == 2 && count&31 > 16
	}
	return false
}
