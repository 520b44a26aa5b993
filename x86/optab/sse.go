package optab

// Source: Intel SDM vol. 2. Operand size in these rows is only REX.W: see
// decode.Inst.OpSize.

func sseRows() []Row {
	return join(mmxRows(), packedIntRows(), packedFloatRows(), sseMoveRows(), convertRows(),
		shuffleRows(), sse4Rows(), stateRows())
}

// mmxAnd is an opcode with an MMX form (no prefix) and an XMM form (66).
func mmxAnd(op Op, opcode int) []Row {
	return []Row{row(op, opcode, Pq, Qq).pfx(PNone), row(op, opcode, Vx, Wx).pfx(P66)}
}

// mmxRows is the packed-integer operations that MMX and XMM share.
func mmxRows() []Row {
	var rows []Row
	for _, e := range []struct {
		op     Op
		opcode int
	}{
		{PUNPCKHBW, 0x0f68}, {PUNPCKHWD, 0x0f69}, {PUNPCKHDQ, 0x0f6a},
		{PACKSSWB, 0x0f63}, {PACKSSDW, 0x0f6b}, {PACKUSWB, 0x0f67},
		{PCMPGTB, 0x0f64}, {PCMPGTW, 0x0f65}, {PCMPGTD, 0x0f66},
		{PCMPEQB, 0x0f74}, {PCMPEQW, 0x0f75}, {PCMPEQD, 0x0f76},
		{PSRLW, 0x0fd1}, {PSRLD, 0x0fd2}, {PSRLQ, 0x0fd3}, {PSRAW, 0x0fe1}, {PSRAD, 0x0fe2},
		{PSLLW, 0x0ff1}, {PSLLD, 0x0ff2}, {PSLLQ, 0x0ff3},
		{PADDB, 0x0ffc}, {PADDW, 0x0ffd}, {PADDD, 0x0ffe}, {PADDQ, 0x0fd4},
		{PADDUSB, 0x0fdc}, {PADDUSW, 0x0fdd}, {PADDSB, 0x0fec}, {PADDSW, 0x0fed},
		{PSUBB, 0x0ff8}, {PSUBW, 0x0ff9}, {PSUBD, 0x0ffa}, {PSUBQ, 0x0ffb},
		{PSUBUSB, 0x0fd8}, {PSUBUSW, 0x0fd9}, {PSUBSB, 0x0fe8}, {PSUBSW, 0x0fe9},
		{PMULLW, 0x0fd5}, {PMULHUW, 0x0fe4}, {PMULHW, 0x0fe5}, {PMULUDQ, 0x0ff4}, {PMADDWD, 0x0ff5},
		{PAND, 0x0fdb}, {PANDN, 0x0fdf}, {POR, 0x0feb}, {PXOR, 0x0fef},
		{PMINUB, 0x0fda}, {PMAXUB, 0x0fde}, {PMINSW, 0x0fea}, {PMAXSW, 0x0fee},
		{PAVGB, 0x0fe0}, {PAVGW, 0x0fe3}, {PSADBW, 0x0ff6},
		{PSHUFB, 0x0f3800}, {PHADDW, 0x0f3801}, {PHADDD, 0x0f3802}, {PHADDSW, 0x0f3803},
		{PMADDUBSW, 0x0f3804}, {PHSUBW, 0x0f3805}, {PHSUBD, 0x0f3806}, {PHSUBSW, 0x0f3807},
		{PSIGNB, 0x0f3808}, {PSIGNW, 0x0f3809}, {PSIGND, 0x0f380a}, {PMULHRSW, 0x0f380b},
		{PABSB, 0x0f381c}, {PABSW, 0x0f381d}, {PABSD, 0x0f381e},
	} {
		rows = append(rows, mmxAnd(e.op, e.opcode)...)
	}
	// Of the low unpacks the MMX forms read only 32 bits of memory.
	for i, op := range []Op{PUNPCKLBW, PUNPCKLWD, PUNPCKLDQ} {
		rows = append(rows, row(op, 0x0f60+i, Pq, Qd).pfx(PNone), row(op, 0x0f60+i, Vx, Wx).pfx(P66))
	}
	return append(rows, row(EMMS, 0x0f77).pfx(PNone))
}

// packedIntRows is immediate shifts and the XMM-only integer operations of SSE2.
func packedIntRows() []Row {
	var rows []Row
	for _, e := range []struct {
		op            Op
		opcode, digit int
	}{
		{PSRLW, 0x0f71, 2}, {PSRAW, 0x0f71, 4}, {PSLLW, 0x0f71, 6},
		{PSRLD, 0x0f72, 2}, {PSRAD, 0x0f72, 4}, {PSLLD, 0x0f72, 6},
		{PSRLQ, 0x0f73, 2}, {PSLLQ, 0x0f73, 6},
	} {
		rows = append(rows,
			row(e.op, e.opcode, Nq, Ib).digit(e.digit).pfx(PNone),
			row(e.op, e.opcode, Ux, Ib).digit(e.digit).pfx(P66))
	}
	return append(rows,
		row(PSRLDQ, 0x0f73, Ux, Ib).digit(3).pfx(P66), row(PSLLDQ, 0x0f73, Ux, Ib).digit(7).pfx(P66),
		row(PUNPCKLQDQ, 0x0f6c, Vx, Wx).pfx(P66), row(PUNPCKHQDQ, 0x0f6d, Vx, Wx).pfx(P66),
		row(PMOVMSKB, 0x0fd7, Gd, Nq).pfx(PNone), row(PMOVMSKB, 0x0fd7, Gd, Ux).pfx(P66),
		row(PEXTRW, 0x0fc5, Gd, Nq, Ib).pfx(PNone), row(PEXTRW, 0x0fc5, Gd, Ux, Ib).pfx(P66),
		row(PINSRW, 0x0fc4, Pq, Mw, Ib).pfx(PNone), row(PINSRW, 0x0fc4, Vx, Mw, Ib).pfx(P66),
		row(PINSRW, 0x0fc4, Pq, Ed, Ib).reg().pfx(PNone), row(PINSRW, 0x0fc4, Vx, Ed, Ib).reg().pfx(P66))
}

// packedFloatRows is the operations with a PS, PD, SS and SD form at one opcode.
func packedFloatRows() []Row {
	var rows []Row
	for _, e := range []struct {
		opcode         int
		ps, pd, ss, sd Op
	}{
		{0x0f51, SQRTPS, SQRTPD, SQRTSS, SQRTSD},
		{0x0f52, RSQRTPS, Invalid, RSQRTSS, Invalid},
		{0x0f53, RCPPS, Invalid, RCPSS, Invalid},
		{0x0f54, ANDPS, ANDPD, Invalid, Invalid},
		{0x0f55, ANDNPS, ANDNPD, Invalid, Invalid},
		{0x0f56, ORPS, ORPD, Invalid, Invalid},
		{0x0f57, XORPS, XORPD, Invalid, Invalid},
		{0x0f58, ADDPS, ADDPD, ADDSS, ADDSD},
		{0x0f59, MULPS, MULPD, MULSS, MULSD},
		{0x0f5c, SUBPS, SUBPD, SUBSS, SUBSD},
		{0x0f5d, MINPS, MINPD, MINSS, MINSD},
		{0x0f5e, DIVPS, DIVPD, DIVSS, DIVSD},
		{0x0f5f, MAXPS, MAXPD, MAXSS, MAXSD},
		{0x0f14, UNPCKLPS, UNPCKLPD, Invalid, Invalid},
		{0x0f15, UNPCKHPS, UNPCKHPD, Invalid, Invalid},
	} {
		for i, op := range []Op{e.ps, e.pd, e.ss, e.sd} {
			if op != Invalid {
				rows = append(rows, row(op, e.opcode, Vx, []Arg{Wx, Wx, Wd, Wq}[i]).pfx([]Prefix{PNone, P66, PF3, PF2}[i]))
			}
		}
	}
	return append(rows,
		row(CMPPS, 0x0fc2, Vx, Wx, Ib).pfx(PNone), row(CMPPD, 0x0fc2, Vx, Wx, Ib).pfx(P66),
		row(CMPSS, 0x0fc2, Vx, Wd, Ib).pfx(PF3), row(CMPSDX, 0x0fc2, Vx, Wq, Ib).pfx(PF2),
		row(SHUFPS, 0x0fc6, Vx, Wx, Ib).pfx(PNone), row(SHUFPD, 0x0fc6, Vx, Wx, Ib).pfx(P66),
		row(UCOMISS, 0x0f2e, Vx, Wd).pfx(PNone), row(UCOMISD, 0x0f2e, Vx, Wq).pfx(P66),
		row(COMISS, 0x0f2f, Vx, Wd).pfx(PNone), row(COMISD, 0x0f2f, Vx, Wq).pfx(P66),
		row(HADDPD, 0x0f7c, Vx, Wx).pfx(P66), row(HADDPS, 0x0f7c, Vx, Wx).pfx(PF2),
		row(HSUBPD, 0x0f7d, Vx, Wx).pfx(P66), row(HSUBPS, 0x0f7d, Vx, Wx).pfx(PF2),
		row(ADDSUBPD, 0x0fd0, Vx, Wx).pfx(P66), row(ADDSUBPS, 0x0fd0, Vx, Wx).pfx(PF2))
}

func sseMoveRows() []Row {
	return []Row{
		row(MOVD, 0x0f6e, Pq, Ey).pfx(PNone), row(MOVD, 0x0f6e, Vx, Ey).pfx(P66), // MOVQ when OpSize is 8
		row(MOVD, 0x0f7e, Ey, Pq).pfx(PNone), row(MOVD, 0x0f7e, Ey, Vx).pfx(P66),
		row(MOVQ, 0x0f6f, Pq, Qq).pfx(PNone), row(MOVQ, 0x0f7f, Qq, Pq).pfx(PNone),
		row(MOVQ, 0x0f7e, Vx, Wq).pfx(PF3), row(MOVQ, 0x0fd6, Wq, Vx).pfx(P66),
		row(MOVQ2DQ, 0x0fd6, Vx, Nq).pfx(PF3), row(MOVDQ2Q, 0x0fd6, Pq, Ux).pfx(PF2),
		row(MOVDQA, 0x0f6f, Vx, Wx).pfx(P66), row(MOVDQA, 0x0f7f, Wx, Vx).pfx(P66),
		row(MOVDQU, 0x0f6f, Vx, Wx).pfx(PF3), row(MOVDQU, 0x0f7f, Wx, Vx).pfx(PF3),
		row(MOVUPS, 0x0f10, Vx, Wx).pfx(PNone), row(MOVUPS, 0x0f11, Wx, Vx).pfx(PNone),
		row(MOVUPD, 0x0f10, Vx, Wx).pfx(P66), row(MOVUPD, 0x0f11, Wx, Vx).pfx(P66),
		row(MOVSS, 0x0f10, Vx, Wd).pfx(PF3), row(MOVSS, 0x0f11, Wd, Vx).pfx(PF3),
		row(MOVSDX, 0x0f10, Vx, Wq).pfx(PF2), row(MOVSDX, 0x0f11, Wq, Vx).pfx(PF2),
		row(MOVAPS, 0x0f28, Vx, Wx).pfx(PNone), row(MOVAPS, 0x0f29, Wx, Vx).pfx(PNone),
		row(MOVAPD, 0x0f28, Vx, Wx).pfx(P66), row(MOVAPD, 0x0f29, Wx, Vx).pfx(P66),
		row(MOVLPS, 0x0f12, Vx, Mq).pfx(PNone), row(MOVHLPS, 0x0f12, Vx, Ux).pfx(PNone),
		row(MOVLPD, 0x0f12, Vx, Mq).pfx(P66), row(MOVSLDUP, 0x0f12, Vx, Wx).pfx(PF3), row(MOVDDUP, 0x0f12, Vx, Wq).pfx(PF2),
		row(MOVLPS, 0x0f13, Mq, Vx).pfx(PNone), row(MOVLPD, 0x0f13, Mq, Vx).pfx(P66),
		row(MOVHPS, 0x0f16, Vx, Mq).pfx(PNone), row(MOVLHPS, 0x0f16, Vx, Ux).pfx(PNone),
		row(MOVHPD, 0x0f16, Vx, Mq).pfx(P66), row(MOVSHDUP, 0x0f16, Vx, Wx).pfx(PF3),
		row(MOVHPS, 0x0f17, Mq, Vx).pfx(PNone), row(MOVHPD, 0x0f17, Mq, Vx).pfx(P66),
		row(MOVMSKPS, 0x0f50, Gd, Ux).pfx(PNone), row(MOVMSKPD, 0x0f50, Gd, Ux).pfx(P66),
		row(MOVNTPS, 0x0f2b, Mdq, Vx).pfx(PNone), row(MOVNTPD, 0x0f2b, Mdq, Vx).pfx(P66),
		row(MOVNTQ, 0x0fe7, Mq, Pq).pfx(PNone), row(MOVNTDQ, 0x0fe7, Mdq, Vx).pfx(P66),
		row(LDDQU, 0x0ff0, Vx, Mdq).pfx(PF2), row(MOVNTDQA, 0x0f382a, Vx, Mdq).pfx(P66),
		row(MASKMOVQ, 0x0ff7, Pq, Nq).pfx(PNone), row(MASKMOVDQU, 0x0ff7, Vx, Ux).pfx(P66), // to Seg:rDI
	}
}

func convertRows() []Row {
	return []Row{
		row(CVTPI2PS, 0x0f2a, Vx, Qq).pfx(PNone), row(CVTPI2PD, 0x0f2a, Vx, Qq).pfx(P66),
		row(CVTSI2SS, 0x0f2a, Vx, Ey).pfx(PF3), row(CVTSI2SD, 0x0f2a, Vx, Ey).pfx(PF2),
		row(CVTTPS2PI, 0x0f2c, Pq, Wq).pfx(PNone), row(CVTTPD2PI, 0x0f2c, Pq, Wx).pfx(P66),
		row(CVTTSS2SI, 0x0f2c, Gy, Wd).pfx(PF3), row(CVTTSD2SI, 0x0f2c, Gy, Wq).pfx(PF2),
		row(CVTPS2PI, 0x0f2d, Pq, Wq).pfx(PNone), row(CVTPD2PI, 0x0f2d, Pq, Wx).pfx(P66),
		row(CVTSS2SI, 0x0f2d, Gy, Wd).pfx(PF3), row(CVTSD2SI, 0x0f2d, Gy, Wq).pfx(PF2),
		row(CVTPS2PD, 0x0f5a, Vx, Wq).pfx(PNone), row(CVTPD2PS, 0x0f5a, Vx, Wx).pfx(P66),
		row(CVTSS2SD, 0x0f5a, Vx, Wd).pfx(PF3), row(CVTSD2SS, 0x0f5a, Vx, Wq).pfx(PF2),
		row(CVTDQ2PS, 0x0f5b, Vx, Wx).pfx(PNone), row(CVTPS2DQ, 0x0f5b, Vx, Wx).pfx(P66),
		row(CVTTPS2DQ, 0x0f5b, Vx, Wx).pfx(PF3),
		row(CVTTPD2DQ, 0x0fe6, Vx, Wx).pfx(P66), row(CVTDQ2PD, 0x0fe6, Vx, Wq).pfx(PF3),
		row(CVTPD2DQ, 0x0fe6, Vx, Wx).pfx(PF2),
	}
}

func shuffleRows() []Row {
	return []Row{
		row(PSHUFW, 0x0f70, Pq, Qq, Ib).pfx(PNone), row(PSHUFD, 0x0f70, Vx, Wx, Ib).pfx(P66),
		row(PSHUFHW, 0x0f70, Vx, Wx, Ib).pfx(PF3), row(PSHUFLW, 0x0f70, Vx, Wx, Ib).pfx(PF2),
		row(PALIGNR, 0x0f3a0f, Pq, Qq, Ib).pfx(PNone), row(PALIGNR, 0x0f3a0f, Vx, Wx, Ib).pfx(P66),
	}
}

// sse4Rows is SSE4.1, SSE4.2, PCLMULQDQ and AES: all under 66.
func sse4Rows() []Row {
	rows := []Row{
		row(PBLENDVB, 0x0f3810, Vx, Wx, XMM0), row(BLENDVPS, 0x0f3814, Vx, Wx, XMM0),
		row(BLENDVPD, 0x0f3815, Vx, Wx, XMM0), row(PTEST, 0x0f3817, Vx, Wx),
		row(PMOVSXBW, 0x0f3820, Vx, Wq), row(PMOVSXBD, 0x0f3821, Vx, Wd), row(PMOVSXBQ, 0x0f3822, Vx, Ww),
		row(PMOVSXWD, 0x0f3823, Vx, Wq), row(PMOVSXWQ, 0x0f3824, Vx, Wd), row(PMOVSXDQ, 0x0f3825, Vx, Wq),
		row(PMOVZXBW, 0x0f3830, Vx, Wq), row(PMOVZXBD, 0x0f3831, Vx, Wd), row(PMOVZXBQ, 0x0f3832, Vx, Ww),
		row(PMOVZXWD, 0x0f3833, Vx, Wq), row(PMOVZXWQ, 0x0f3834, Vx, Wd), row(PMOVZXDQ, 0x0f3835, Vx, Wq),
		row(ROUNDPS, 0x0f3a08, Vx, Wx, Ib), row(ROUNDPD, 0x0f3a09, Vx, Wx, Ib),
		row(ROUNDSS, 0x0f3a0a, Vx, Wd, Ib), row(ROUNDSD, 0x0f3a0b, Vx, Wq, Ib),
		row(PEXTRB, 0x0f3a14, Mb, Vx, Ib), row(PEXTRB, 0x0f3a14, Ed, Vx, Ib).reg(),
		row(PEXTRW, 0x0f3a15, Mw, Vx, Ib), row(PEXTRW, 0x0f3a15, Ed, Vx, Ib).reg(),
		row(PEXTRD, 0x0f3a16, Ey, Vx, Ib), row(PEXTRQ, 0x0f3a16, Ey, Vx, Ib).with(RexW),
		row(EXTRACTPS, 0x0f3a17, Ed, Vx, Ib),
		row(PINSRB, 0x0f3a20, Vx, Mb, Ib), row(PINSRB, 0x0f3a20, Vx, Ed, Ib).reg(),
		row(INSERTPS, 0x0f3a21, Vx, Wd, Ib),
		row(PINSRD, 0x0f3a22, Vx, Ey, Ib), row(PINSRQ, 0x0f3a22, Vx, Ey, Ib).with(RexW),
	}
	for _, e := range []struct {
		op     Op
		opcode int
	}{
		{PMULDQ, 0x0f3828}, {PCMPEQQ, 0x0f3829}, {PACKUSDW, 0x0f382b}, {PCMPGTQ, 0x0f3837},
		{PMINSB, 0x0f3838}, {PMINSD, 0x0f3839}, {PMINUW, 0x0f383a}, {PMINUD, 0x0f383b},
		{PMAXSB, 0x0f383c}, {PMAXSD, 0x0f383d}, {PMAXUW, 0x0f383e}, {PMAXUD, 0x0f383f},
		{PMULLD, 0x0f3840}, {PHMINPOSUW, 0x0f3841}, {AESIMC, 0x0f38db}, {AESENC, 0x0f38dc},
		{AESENCLAST, 0x0f38dd}, {AESDEC, 0x0f38de}, {AESDECLAST, 0x0f38df},
	} {
		rows = append(rows, row(e.op, e.opcode, Vx, Wx))
	}
	for _, e := range []struct {
		op     Op
		opcode int
	}{
		{BLENDPS, 0x0f3a0c}, {BLENDPD, 0x0f3a0d}, {PBLENDW, 0x0f3a0e}, {DPPS, 0x0f3a40}, {DPPD, 0x0f3a41},
		{MPSADBW, 0x0f3a42}, {PCLMULQDQ, 0x0f3a44}, {PCMPESTRM, 0x0f3a60}, {PCMPESTRI, 0x0f3a61},
		{PCMPISTRM, 0x0f3a62}, {PCMPISTRI, 0x0f3a63}, {AESKEYGENASSIST, 0x0f3adf},
	} {
		rows = append(rows, row(e.op, e.opcode, Vx, Wx, Ib))
	}
	return each(rows, func(r Row) Row { return r.pfx(P66) })
}

// stateRows is the state-saving instructions, whose REX.W form is OpSize 8.
func stateRows() []Row {
	rows := []Row{
		row(FXSAVE, 0x0fae, M).digit(0), row(FXRSTOR, 0x0fae, M).digit(1),
		row(LDMXCSR, 0x0fae, Md).digit(2), row(STMXCSR, 0x0fae, Md).digit(3),
		row(XSAVE, 0x0fae, M).digit(4), row(XRSTOR, 0x0fae, M).digit(5), row(XSAVEOPT, 0x0fae, M).digit(6),
		row(XRSTORS, 0x0fc7, M).digit(3).with(Privileged), row(XSAVEC, 0x0fc7, M).digit(4),
		row(XSAVES, 0x0fc7, M).digit(5).with(Privileged),
	}
	return each(rows, func(r Row) Row { return r.pfx(PNone) })
}
