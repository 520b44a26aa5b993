// Package optab is the one table of x86 instructions: the decoder, both engines and the tests are driven by it.
package optab

// Op names what an instruction does, apart from its encoding and operand width.
// The string instructions have one Op each, without the width letter; the SSE
// instructions MOVSD and CMPSD end in X to tell them from those.
type Op uint16

// The operations, by family. Families are contiguous: see the First and Last constants.
const (
	Invalid Op = iota

	// Integer and control transfer.
	ADD
	OR
	ADC
	SBB
	AND
	SUB
	XOR
	CMP
	TEST
	INC
	DEC
	NEG
	NOT
	MUL
	IMUL
	DIV
	IDIV
	ROL
	ROR
	RCL
	RCR
	SHL
	SHR
	SAR
	SHLD
	SHRD
	BT
	BTS
	BTR
	BTC
	BSF
	BSR
	TZCNT
	LZCNT
	POPCNT
	BSWAP
	MOV
	MOVZX
	MOVSX
	MOVSXD
	MOVBE
	LEA
	XCHG
	XADD
	CMPXCHG
	CMPXCHG8B
	CMPXCHG16B
	PUSH
	POP
	PUSHA
	POPA
	PUSHF
	POPF
	PUSHSEG
	POPSEG
	CBW
	CWD
	LAHF
	SAHF
	CLC
	STC
	CMC
	CLD
	STD
	JCC
	SETCC
	CMOVCC
	JMP
	CALL
	RET
	JCXZ
	LOOP
	LOOPE
	LOOPNE
	JMPFAR
	CALLFAR
	RETFAR
	ENTER
	LEAVE
	XLAT
	AAA
	AAS
	AAD
	AAM
	DAA
	DAS
	SALC
	BOUND
	ARPL
	MOVS
	CMPS
	STOS
	LODS
	SCAS
	INS
	OUTS
	NOP
	PAUSE
	PREFETCH
	PREFETCHW
	LFENCE
	SFENCE
	MFENCE
	CLFLUSH
	CLFLUSHOPT
	MOVNTI
	CRC32
	ADCX
	ADOX
	LDS
	LES
	LFS
	LGS
	LSS
	IN
	OUT
	INT
	INT3
	INTO
	INT1
	IRET
	UD0
	UD1
	UD2
	CPUID
	RDTSC
	RDTSCP
	RDPID
	RDRAND
	RDSEED

	// Privileged and system.
	CLI
	STI
	HLT
	MOVCR
	MOVDR
	MOVSEG
	LGDT
	LIDT
	SGDT
	SIDT
	LLDT
	LTR
	SLDT
	STR
	LMSW
	SMSW
	CLTS
	LAR
	LSL
	VERR
	VERW
	INVD
	WBINVD
	INVLPG
	INVPCID
	RDMSR
	WRMSR
	RDPMC
	SYSCALL
	SYSRET
	SYSENTER
	SYSEXIT
	SWAPGS
	CLAC
	STAC
	RDFSBASE
	RDGSBASE
	WRFSBASE
	WRGSBASE
	XGETBV
	XSETBV
	MONITOR
	MWAIT
	RSM
	VMCALL
	VMMCALL

	// X87 floating point.
	FADD
	FMUL
	FCOM
	FCOMP
	FSUB
	FSUBR
	FDIV
	FDIVR
	FADDP
	FMULP
	FSUBP
	FSUBRP
	FDIVP
	FDIVRP
	FCOMPP
	FUCOM
	FUCOMP
	FUCOMPP
	FCOMI
	FCOMIP
	FUCOMI
	FUCOMIP
	FIADD
	FIMUL
	FICOM
	FICOMP
	FISUB
	FISUBR
	FIDIV
	FIDIVR
	FLD
	FST
	FSTP
	FILD
	FIST
	FISTP
	FISTTP
	FBLD
	FBSTP
	FXCH
	FCMOVCC
	FCHS
	FABS
	FTST
	FXAM
	FLD1
	FLDL2T
	FLDL2E
	FLDPI
	FLDLG2
	FLDLN2
	FLDZ
	F2XM1
	FYL2X
	FPTAN
	FPATAN
	FXTRACT
	FPREM1
	FPREM
	FDECSTP
	FINCSTP
	FYL2XP1
	FSQRT
	FSINCOS
	FRNDINT
	FSCALE
	FSIN
	FCOS
	FNOP
	FNCLEX
	FNINIT
	FNSTCW
	FLDCW
	FNSTSW
	FNSTSWAX
	FLDENV
	FNSTENV
	FRSTOR
	FNSAVE
	FFREE
	FFREEP
	FWAIT
	FNENI
	FNDISI
	FNSETPM

	// MMX, SSE to SSE4.2 and the state-saving instructions.
	EMMS
	MOVD
	MOVQ
	PACKSSWB
	PACKSSDW
	PACKUSWB
	PADDB
	PADDW
	PADDD
	PADDQ
	PADDSB
	PADDSW
	PADDUSB
	PADDUSW
	PAND
	PANDN
	POR
	PXOR
	PCMPEQB
	PCMPEQW
	PCMPEQD
	PCMPGTB
	PCMPGTW
	PCMPGTD
	PMADDWD
	PMULHW
	PMULLW
	PSLLW
	PSLLD
	PSLLQ
	PSRLW
	PSRLD
	PSRLQ
	PSRAW
	PSRAD
	PSUBB
	PSUBW
	PSUBD
	PSUBQ
	PSUBSB
	PSUBSW
	PSUBUSB
	PSUBUSW
	PUNPCKHBW
	PUNPCKHWD
	PUNPCKHDQ
	PUNPCKLBW
	PUNPCKLWD
	PUNPCKLDQ
	PAVGB
	PAVGW
	PEXTRW
	PINSRW
	PMAXSW
	PMAXUB
	PMINSW
	PMINUB
	PMOVMSKB
	PMULHUW
	PSADBW
	PSHUFW
	MASKMOVQ
	MOVNTQ
	ADDPS
	ADDSS
	ANDPS
	ANDNPS
	CMPPS
	CMPSS
	COMISS
	CVTPI2PS
	CVTPS2PI
	CVTSI2SS
	CVTSS2SI
	CVTTPS2PI
	CVTTSS2SI
	DIVPS
	DIVSS
	LDMXCSR
	STMXCSR
	MAXPS
	MAXSS
	MINPS
	MINSS
	MOVAPS
	MOVHLPS
	MOVHPS
	MOVLHPS
	MOVLPS
	MOVMSKPS
	MOVNTPS
	MOVSS
	MOVUPS
	MULPS
	MULSS
	ORPS
	RCPPS
	RCPSS
	RSQRTPS
	RSQRTSS
	SHUFPS
	SQRTPS
	SQRTSS
	SUBPS
	SUBSS
	UCOMISS
	UNPCKHPS
	UNPCKLPS
	XORPS
	ADDPD
	ADDSD
	ANDPD
	ANDNPD
	CMPPD
	CMPSDX
	COMISD
	CVTDQ2PD
	CVTDQ2PS
	CVTPD2DQ
	CVTPD2PI
	CVTPD2PS
	CVTPI2PD
	CVTPS2DQ
	CVTPS2PD
	CVTSD2SI
	CVTSD2SS
	CVTSI2SD
	CVTSS2SD
	CVTTPD2DQ
	CVTTPD2PI
	CVTTPS2DQ
	CVTTSD2SI
	DIVPD
	DIVSD
	MASKMOVDQU
	MAXPD
	MAXSD
	MINPD
	MINSD
	MOVAPD
	MOVDQA
	MOVDQU
	MOVDQ2Q
	MOVHPD
	MOVLPD
	MOVMSKPD
	MOVNTDQ
	MOVNTPD
	MOVQ2DQ
	MOVSDX
	MOVUPD
	MULPD
	MULSD
	ORPD
	PMULUDQ
	PSHUFD
	PSHUFHW
	PSHUFLW
	PSLLDQ
	PSRLDQ
	PUNPCKHQDQ
	PUNPCKLQDQ
	SHUFPD
	SQRTPD
	SQRTSD
	SUBPD
	SUBSD
	UCOMISD
	UNPCKHPD
	UNPCKLPD
	XORPD
	ADDSUBPD
	ADDSUBPS
	HADDPD
	HADDPS
	HSUBPD
	HSUBPS
	LDDQU
	MOVDDUP
	MOVSHDUP
	MOVSLDUP
	PABSB
	PABSW
	PABSD
	PALIGNR
	PHADDW
	PHADDD
	PHADDSW
	PHSUBW
	PHSUBD
	PHSUBSW
	PMADDUBSW
	PMULHRSW
	PSHUFB
	PSIGNB
	PSIGNW
	PSIGND
	BLENDPD
	BLENDPS
	BLENDVPD
	BLENDVPS
	DPPD
	DPPS
	EXTRACTPS
	INSERTPS
	MOVNTDQA
	MPSADBW
	PACKUSDW
	PBLENDVB
	PBLENDW
	PCMPEQQ
	PEXTRB
	PEXTRD
	PEXTRQ
	PHMINPOSUW
	PINSRB
	PINSRD
	PINSRQ
	PMAXSB
	PMAXSD
	PMAXUD
	PMAXUW
	PMINSB
	PMINSD
	PMINUD
	PMINUW
	PMOVSXBW
	PMOVSXBD
	PMOVSXBQ
	PMOVSXWD
	PMOVSXWQ
	PMOVSXDQ
	PMOVZXBW
	PMOVZXBD
	PMOVZXBQ
	PMOVZXWD
	PMOVZXWQ
	PMOVZXDQ
	PMULDQ
	PMULLD
	PTEST
	ROUNDPD
	ROUNDPS
	ROUNDSD
	ROUNDSS
	PCMPESTRI
	PCMPESTRM
	PCMPISTRI
	PCMPISTRM
	PCMPGTQ
	PCLMULQDQ
	AESENC
	AESENCLAST
	AESDEC
	AESDECLAST
	AESIMC
	AESKEYGENASSIST
	FXSAVE
	FXRSTOR
	XSAVE
	XSAVEOPT
	XSAVEC
	XSAVES
	XRSTOR
	XRSTORS

	numOps
)

// Bounds of the families.
const (
	FirstInteger, LastInteger = ADD, RDSEED
	FirstSystem, LastSystem   = CLI, VMMCALL
	FirstX87, LastX87         = FADD, FNSETPM
	FirstSSE, LastSSE         = EMMS, XRSTORS
	NumOps                    = int(numOps)
)

// String returns the mnemonic.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "Op?"
}

var opNames = [...]string{
	Invalid:         "Invalid",
	ADD:             "ADD",
	OR:              "OR",
	ADC:             "ADC",
	SBB:             "SBB",
	AND:             "AND",
	SUB:             "SUB",
	XOR:             "XOR",
	CMP:             "CMP",
	TEST:            "TEST",
	INC:             "INC",
	DEC:             "DEC",
	NEG:             "NEG",
	NOT:             "NOT",
	MUL:             "MUL",
	IMUL:            "IMUL",
	DIV:             "DIV",
	IDIV:            "IDIV",
	ROL:             "ROL",
	ROR:             "ROR",
	RCL:             "RCL",
	RCR:             "RCR",
	SHL:             "SHL",
	SHR:             "SHR",
	SAR:             "SAR",
	SHLD:            "SHLD",
	SHRD:            "SHRD",
	BT:              "BT",
	BTS:             "BTS",
	BTR:             "BTR",
	BTC:             "BTC",
	BSF:             "BSF",
	BSR:             "BSR",
	TZCNT:           "TZCNT",
	LZCNT:           "LZCNT",
	POPCNT:          "POPCNT",
	BSWAP:           "BSWAP",
	MOV:             "MOV",
	MOVZX:           "MOVZX",
	MOVSX:           "MOVSX",
	MOVSXD:          "MOVSXD",
	MOVBE:           "MOVBE",
	LEA:             "LEA",
	XCHG:            "XCHG",
	XADD:            "XADD",
	CMPXCHG:         "CMPXCHG",
	CMPXCHG8B:       "CMPXCHG8B",
	CMPXCHG16B:      "CMPXCHG16B",
	PUSH:            "PUSH",
	POP:             "POP",
	PUSHA:           "PUSHA",
	POPA:            "POPA",
	PUSHF:           "PUSHF",
	POPF:            "POPF",
	PUSHSEG:         "PUSHSEG",
	POPSEG:          "POPSEG",
	CBW:             "CBW",
	CWD:             "CWD",
	LAHF:            "LAHF",
	SAHF:            "SAHF",
	CLC:             "CLC",
	STC:             "STC",
	CMC:             "CMC",
	CLD:             "CLD",
	STD:             "STD",
	JCC:             "JCC",
	SETCC:           "SETCC",
	CMOVCC:          "CMOVCC",
	JMP:             "JMP",
	CALL:            "CALL",
	RET:             "RET",
	JCXZ:            "JCXZ",
	LOOP:            "LOOP",
	LOOPE:           "LOOPE",
	LOOPNE:          "LOOPNE",
	JMPFAR:          "JMPFAR",
	CALLFAR:         "CALLFAR",
	RETFAR:          "RETFAR",
	ENTER:           "ENTER",
	LEAVE:           "LEAVE",
	XLAT:            "XLAT",
	AAA:             "AAA",
	AAS:             "AAS",
	AAD:             "AAD",
	AAM:             "AAM",
	DAA:             "DAA",
	DAS:             "DAS",
	SALC:            "SALC",
	BOUND:           "BOUND",
	ARPL:            "ARPL",
	MOVS:            "MOVS",
	CMPS:            "CMPS",
	STOS:            "STOS",
	LODS:            "LODS",
	SCAS:            "SCAS",
	INS:             "INS",
	OUTS:            "OUTS",
	NOP:             "NOP",
	PAUSE:           "PAUSE",
	PREFETCH:        "PREFETCH",
	PREFETCHW:       "PREFETCHW",
	LFENCE:          "LFENCE",
	SFENCE:          "SFENCE",
	MFENCE:          "MFENCE",
	CLFLUSH:         "CLFLUSH",
	CLFLUSHOPT:      "CLFLUSHOPT",
	MOVNTI:          "MOVNTI",
	CRC32:           "CRC32",
	ADCX:            "ADCX",
	ADOX:            "ADOX",
	LDS:             "LDS",
	LES:             "LES",
	LFS:             "LFS",
	LGS:             "LGS",
	LSS:             "LSS",
	IN:              "IN",
	OUT:             "OUT",
	INT:             "INT",
	INT3:            "INT3",
	INTO:            "INTO",
	INT1:            "INT1",
	IRET:            "IRET",
	UD0:             "UD0",
	UD1:             "UD1",
	UD2:             "UD2",
	CPUID:           "CPUID",
	RDTSC:           "RDTSC",
	RDTSCP:          "RDTSCP",
	RDPID:           "RDPID",
	RDRAND:          "RDRAND",
	RDSEED:          "RDSEED",
	CLI:             "CLI",
	STI:             "STI",
	HLT:             "HLT",
	MOVCR:           "MOVCR",
	MOVDR:           "MOVDR",
	MOVSEG:          "MOVSEG",
	LGDT:            "LGDT",
	LIDT:            "LIDT",
	SGDT:            "SGDT",
	SIDT:            "SIDT",
	LLDT:            "LLDT",
	LTR:             "LTR",
	SLDT:            "SLDT",
	STR:             "STR",
	LMSW:            "LMSW",
	SMSW:            "SMSW",
	CLTS:            "CLTS",
	LAR:             "LAR",
	LSL:             "LSL",
	VERR:            "VERR",
	VERW:            "VERW",
	INVD:            "INVD",
	WBINVD:          "WBINVD",
	INVLPG:          "INVLPG",
	INVPCID:         "INVPCID",
	RDMSR:           "RDMSR",
	WRMSR:           "WRMSR",
	RDPMC:           "RDPMC",
	SYSCALL:         "SYSCALL",
	SYSRET:          "SYSRET",
	SYSENTER:        "SYSENTER",
	SYSEXIT:         "SYSEXIT",
	SWAPGS:          "SWAPGS",
	CLAC:            "CLAC",
	STAC:            "STAC",
	RDFSBASE:        "RDFSBASE",
	RDGSBASE:        "RDGSBASE",
	WRFSBASE:        "WRFSBASE",
	WRGSBASE:        "WRGSBASE",
	XGETBV:          "XGETBV",
	XSETBV:          "XSETBV",
	MONITOR:         "MONITOR",
	MWAIT:           "MWAIT",
	RSM:             "RSM",
	VMCALL:          "VMCALL",
	VMMCALL:         "VMMCALL",
	FADD:            "FADD",
	FMUL:            "FMUL",
	FCOM:            "FCOM",
	FCOMP:           "FCOMP",
	FSUB:            "FSUB",
	FSUBR:           "FSUBR",
	FDIV:            "FDIV",
	FDIVR:           "FDIVR",
	FADDP:           "FADDP",
	FMULP:           "FMULP",
	FSUBP:           "FSUBP",
	FSUBRP:          "FSUBRP",
	FDIVP:           "FDIVP",
	FDIVRP:          "FDIVRP",
	FCOMPP:          "FCOMPP",
	FUCOM:           "FUCOM",
	FUCOMP:          "FUCOMP",
	FUCOMPP:         "FUCOMPP",
	FCOMI:           "FCOMI",
	FCOMIP:          "FCOMIP",
	FUCOMI:          "FUCOMI",
	FUCOMIP:         "FUCOMIP",
	FIADD:           "FIADD",
	FIMUL:           "FIMUL",
	FICOM:           "FICOM",
	FICOMP:          "FICOMP",
	FISUB:           "FISUB",
	FISUBR:          "FISUBR",
	FIDIV:           "FIDIV",
	FIDIVR:          "FIDIVR",
	FLD:             "FLD",
	FST:             "FST",
	FSTP:            "FSTP",
	FILD:            "FILD",
	FIST:            "FIST",
	FISTP:           "FISTP",
	FISTTP:          "FISTTP",
	FBLD:            "FBLD",
	FBSTP:           "FBSTP",
	FXCH:            "FXCH",
	FCMOVCC:         "FCMOVCC",
	FCHS:            "FCHS",
	FABS:            "FABS",
	FTST:            "FTST",
	FXAM:            "FXAM",
	FLD1:            "FLD1",
	FLDL2T:          "FLDL2T",
	FLDL2E:          "FLDL2E",
	FLDPI:           "FLDPI",
	FLDLG2:          "FLDLG2",
	FLDLN2:          "FLDLN2",
	FLDZ:            "FLDZ",
	F2XM1:           "F2XM1",
	FYL2X:           "FYL2X",
	FPTAN:           "FPTAN",
	FPATAN:          "FPATAN",
	FXTRACT:         "FXTRACT",
	FPREM1:          "FPREM1",
	FPREM:           "FPREM",
	FDECSTP:         "FDECSTP",
	FINCSTP:         "FINCSTP",
	FYL2XP1:         "FYL2XP1",
	FSQRT:           "FSQRT",
	FSINCOS:         "FSINCOS",
	FRNDINT:         "FRNDINT",
	FSCALE:          "FSCALE",
	FSIN:            "FSIN",
	FCOS:            "FCOS",
	FNOP:            "FNOP",
	FNCLEX:          "FNCLEX",
	FNINIT:          "FNINIT",
	FNSTCW:          "FNSTCW",
	FLDCW:           "FLDCW",
	FNSTSW:          "FNSTSW",
	FNSTSWAX:        "FNSTSWAX",
	FLDENV:          "FLDENV",
	FNSTENV:         "FNSTENV",
	FRSTOR:          "FRSTOR",
	FNSAVE:          "FNSAVE",
	FFREE:           "FFREE",
	FFREEP:          "FFREEP",
	FWAIT:           "FWAIT",
	FNENI:           "FNENI",
	FNDISI:          "FNDISI",
	FNSETPM:         "FNSETPM",
	EMMS:            "EMMS",
	MOVD:            "MOVD",
	MOVQ:            "MOVQ",
	PACKSSWB:        "PACKSSWB",
	PACKSSDW:        "PACKSSDW",
	PACKUSWB:        "PACKUSWB",
	PADDB:           "PADDB",
	PADDW:           "PADDW",
	PADDD:           "PADDD",
	PADDQ:           "PADDQ",
	PADDSB:          "PADDSB",
	PADDSW:          "PADDSW",
	PADDUSB:         "PADDUSB",
	PADDUSW:         "PADDUSW",
	PAND:            "PAND",
	PANDN:           "PANDN",
	POR:             "POR",
	PXOR:            "PXOR",
	PCMPEQB:         "PCMPEQB",
	PCMPEQW:         "PCMPEQW",
	PCMPEQD:         "PCMPEQD",
	PCMPGTB:         "PCMPGTB",
	PCMPGTW:         "PCMPGTW",
	PCMPGTD:         "PCMPGTD",
	PMADDWD:         "PMADDWD",
	PMULHW:          "PMULHW",
	PMULLW:          "PMULLW",
	PSLLW:           "PSLLW",
	PSLLD:           "PSLLD",
	PSLLQ:           "PSLLQ",
	PSRLW:           "PSRLW",
	PSRLD:           "PSRLD",
	PSRLQ:           "PSRLQ",
	PSRAW:           "PSRAW",
	PSRAD:           "PSRAD",
	PSUBB:           "PSUBB",
	PSUBW:           "PSUBW",
	PSUBD:           "PSUBD",
	PSUBQ:           "PSUBQ",
	PSUBSB:          "PSUBSB",
	PSUBSW:          "PSUBSW",
	PSUBUSB:         "PSUBUSB",
	PSUBUSW:         "PSUBUSW",
	PUNPCKHBW:       "PUNPCKHBW",
	PUNPCKHWD:       "PUNPCKHWD",
	PUNPCKHDQ:       "PUNPCKHDQ",
	PUNPCKLBW:       "PUNPCKLBW",
	PUNPCKLWD:       "PUNPCKLWD",
	PUNPCKLDQ:       "PUNPCKLDQ",
	PAVGB:           "PAVGB",
	PAVGW:           "PAVGW",
	PEXTRW:          "PEXTRW",
	PINSRW:          "PINSRW",
	PMAXSW:          "PMAXSW",
	PMAXUB:          "PMAXUB",
	PMINSW:          "PMINSW",
	PMINUB:          "PMINUB",
	PMOVMSKB:        "PMOVMSKB",
	PMULHUW:         "PMULHUW",
	PSADBW:          "PSADBW",
	PSHUFW:          "PSHUFW",
	MASKMOVQ:        "MASKMOVQ",
	MOVNTQ:          "MOVNTQ",
	ADDPS:           "ADDPS",
	ADDSS:           "ADDSS",
	ANDPS:           "ANDPS",
	ANDNPS:          "ANDNPS",
	CMPPS:           "CMPPS",
	CMPSS:           "CMPSS",
	COMISS:          "COMISS",
	CVTPI2PS:        "CVTPI2PS",
	CVTPS2PI:        "CVTPS2PI",
	CVTSI2SS:        "CVTSI2SS",
	CVTSS2SI:        "CVTSS2SI",
	CVTTPS2PI:       "CVTTPS2PI",
	CVTTSS2SI:       "CVTTSS2SI",
	DIVPS:           "DIVPS",
	DIVSS:           "DIVSS",
	LDMXCSR:         "LDMXCSR",
	STMXCSR:         "STMXCSR",
	MAXPS:           "MAXPS",
	MAXSS:           "MAXSS",
	MINPS:           "MINPS",
	MINSS:           "MINSS",
	MOVAPS:          "MOVAPS",
	MOVHLPS:         "MOVHLPS",
	MOVHPS:          "MOVHPS",
	MOVLHPS:         "MOVLHPS",
	MOVLPS:          "MOVLPS",
	MOVMSKPS:        "MOVMSKPS",
	MOVNTPS:         "MOVNTPS",
	MOVSS:           "MOVSS",
	MOVUPS:          "MOVUPS",
	MULPS:           "MULPS",
	MULSS:           "MULSS",
	ORPS:            "ORPS",
	RCPPS:           "RCPPS",
	RCPSS:           "RCPSS",
	RSQRTPS:         "RSQRTPS",
	RSQRTSS:         "RSQRTSS",
	SHUFPS:          "SHUFPS",
	SQRTPS:          "SQRTPS",
	SQRTSS:          "SQRTSS",
	SUBPS:           "SUBPS",
	SUBSS:           "SUBSS",
	UCOMISS:         "UCOMISS",
	UNPCKHPS:        "UNPCKHPS",
	UNPCKLPS:        "UNPCKLPS",
	XORPS:           "XORPS",
	ADDPD:           "ADDPD",
	ADDSD:           "ADDSD",
	ANDPD:           "ANDPD",
	ANDNPD:          "ANDNPD",
	CMPPD:           "CMPPD",
	CMPSDX:          "CMPSDX",
	COMISD:          "COMISD",
	CVTDQ2PD:        "CVTDQ2PD",
	CVTDQ2PS:        "CVTDQ2PS",
	CVTPD2DQ:        "CVTPD2DQ",
	CVTPD2PI:        "CVTPD2PI",
	CVTPD2PS:        "CVTPD2PS",
	CVTPI2PD:        "CVTPI2PD",
	CVTPS2DQ:        "CVTPS2DQ",
	CVTPS2PD:        "CVTPS2PD",
	CVTSD2SI:        "CVTSD2SI",
	CVTSD2SS:        "CVTSD2SS",
	CVTSI2SD:        "CVTSI2SD",
	CVTSS2SD:        "CVTSS2SD",
	CVTTPD2DQ:       "CVTTPD2DQ",
	CVTTPD2PI:       "CVTTPD2PI",
	CVTTPS2DQ:       "CVTTPS2DQ",
	CVTTSD2SI:       "CVTTSD2SI",
	DIVPD:           "DIVPD",
	DIVSD:           "DIVSD",
	MASKMOVDQU:      "MASKMOVDQU",
	MAXPD:           "MAXPD",
	MAXSD:           "MAXSD",
	MINPD:           "MINPD",
	MINSD:           "MINSD",
	MOVAPD:          "MOVAPD",
	MOVDQA:          "MOVDQA",
	MOVDQU:          "MOVDQU",
	MOVDQ2Q:         "MOVDQ2Q",
	MOVHPD:          "MOVHPD",
	MOVLPD:          "MOVLPD",
	MOVMSKPD:        "MOVMSKPD",
	MOVNTDQ:         "MOVNTDQ",
	MOVNTPD:         "MOVNTPD",
	MOVQ2DQ:         "MOVQ2DQ",
	MOVSDX:          "MOVSDX",
	MOVUPD:          "MOVUPD",
	MULPD:           "MULPD",
	MULSD:           "MULSD",
	ORPD:            "ORPD",
	PMULUDQ:         "PMULUDQ",
	PSHUFD:          "PSHUFD",
	PSHUFHW:         "PSHUFHW",
	PSHUFLW:         "PSHUFLW",
	PSLLDQ:          "PSLLDQ",
	PSRLDQ:          "PSRLDQ",
	PUNPCKHQDQ:      "PUNPCKHQDQ",
	PUNPCKLQDQ:      "PUNPCKLQDQ",
	SHUFPD:          "SHUFPD",
	SQRTPD:          "SQRTPD",
	SQRTSD:          "SQRTSD",
	SUBPD:           "SUBPD",
	SUBSD:           "SUBSD",
	UCOMISD:         "UCOMISD",
	UNPCKHPD:        "UNPCKHPD",
	UNPCKLPD:        "UNPCKLPD",
	XORPD:           "XORPD",
	ADDSUBPD:        "ADDSUBPD",
	ADDSUBPS:        "ADDSUBPS",
	HADDPD:          "HADDPD",
	HADDPS:          "HADDPS",
	HSUBPD:          "HSUBPD",
	HSUBPS:          "HSUBPS",
	LDDQU:           "LDDQU",
	MOVDDUP:         "MOVDDUP",
	MOVSHDUP:        "MOVSHDUP",
	MOVSLDUP:        "MOVSLDUP",
	PABSB:           "PABSB",
	PABSW:           "PABSW",
	PABSD:           "PABSD",
	PALIGNR:         "PALIGNR",
	PHADDW:          "PHADDW",
	PHADDD:          "PHADDD",
	PHADDSW:         "PHADDSW",
	PHSUBW:          "PHSUBW",
	PHSUBD:          "PHSUBD",
	PHSUBSW:         "PHSUBSW",
	PMADDUBSW:       "PMADDUBSW",
	PMULHRSW:        "PMULHRSW",
	PSHUFB:          "PSHUFB",
	PSIGNB:          "PSIGNB",
	PSIGNW:          "PSIGNW",
	PSIGND:          "PSIGND",
	BLENDPD:         "BLENDPD",
	BLENDPS:         "BLENDPS",
	BLENDVPD:        "BLENDVPD",
	BLENDVPS:        "BLENDVPS",
	DPPD:            "DPPD",
	DPPS:            "DPPS",
	EXTRACTPS:       "EXTRACTPS",
	INSERTPS:        "INSERTPS",
	MOVNTDQA:        "MOVNTDQA",
	MPSADBW:         "MPSADBW",
	PACKUSDW:        "PACKUSDW",
	PBLENDVB:        "PBLENDVB",
	PBLENDW:         "PBLENDW",
	PCMPEQQ:         "PCMPEQQ",
	PEXTRB:          "PEXTRB",
	PEXTRD:          "PEXTRD",
	PEXTRQ:          "PEXTRQ",
	PHMINPOSUW:      "PHMINPOSUW",
	PINSRB:          "PINSRB",
	PINSRD:          "PINSRD",
	PINSRQ:          "PINSRQ",
	PMAXSB:          "PMAXSB",
	PMAXSD:          "PMAXSD",
	PMAXUD:          "PMAXUD",
	PMAXUW:          "PMAXUW",
	PMINSB:          "PMINSB",
	PMINSD:          "PMINSD",
	PMINUD:          "PMINUD",
	PMINUW:          "PMINUW",
	PMOVSXBW:        "PMOVSXBW",
	PMOVSXBD:        "PMOVSXBD",
	PMOVSXBQ:        "PMOVSXBQ",
	PMOVSXWD:        "PMOVSXWD",
	PMOVSXWQ:        "PMOVSXWQ",
	PMOVSXDQ:        "PMOVSXDQ",
	PMOVZXBW:        "PMOVZXBW",
	PMOVZXBD:        "PMOVZXBD",
	PMOVZXBQ:        "PMOVZXBQ",
	PMOVZXWD:        "PMOVZXWD",
	PMOVZXWQ:        "PMOVZXWQ",
	PMOVZXDQ:        "PMOVZXDQ",
	PMULDQ:          "PMULDQ",
	PMULLD:          "PMULLD",
	PTEST:           "PTEST",
	ROUNDPD:         "ROUNDPD",
	ROUNDPS:         "ROUNDPS",
	ROUNDSD:         "ROUNDSD",
	ROUNDSS:         "ROUNDSS",
	PCMPESTRI:       "PCMPESTRI",
	PCMPESTRM:       "PCMPESTRM",
	PCMPISTRI:       "PCMPISTRI",
	PCMPISTRM:       "PCMPISTRM",
	PCMPGTQ:         "PCMPGTQ",
	PCLMULQDQ:       "PCLMULQDQ",
	AESENC:          "AESENC",
	AESENCLAST:      "AESENCLAST",
	AESDEC:          "AESDEC",
	AESDECLAST:      "AESDECLAST",
	AESIMC:          "AESIMC",
	AESKEYGENASSIST: "AESKEYGENASSIST",
	FXSAVE:          "FXSAVE",
	FXRSTOR:         "FXRSTOR",
	XSAVE:           "XSAVE",
	XSAVEOPT:        "XSAVEOPT",
	XSAVEC:          "XSAVEC",
	XSAVES:          "XSAVES",
	XRSTOR:          "XRSTOR",
	XRSTORS:         "XRSTORS",
}
