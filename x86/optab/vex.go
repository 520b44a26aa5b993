package optab

// Source: Intel SDM vol. 2, the VEX forms of each instruction. A row without Hx or
// By demands VEX.vvvv = 1111.

func vexRows() []Row {
	return join(vexIntRows(), vexFloatRows(), vexMoveRows(), vexConvertRows(), vexImmediateRows(), vexWideRows(), fmaRows())
}

// opAt is an operation and its opcode.
type opAt struct {
	op     Op
	opcode int
}

// vexIntRows is the packed-integer operations, all under 66.
func vexIntRows() []Row {
	var rows []Row
	for _, e := range []opAt{
		{PUNPCKLBW, 0x0f60}, {PUNPCKLWD, 0x0f61}, {PUNPCKLDQ, 0x0f62}, {PUNPCKHBW, 0x0f68}, {PUNPCKHWD, 0x0f69},
		{PUNPCKHDQ, 0x0f6a}, {PUNPCKLQDQ, 0x0f6c}, {PUNPCKHQDQ, 0x0f6d}, {PACKSSWB, 0x0f63}, {PACKSSDW, 0x0f6b},
		{PACKUSWB, 0x0f67}, {PCMPGTB, 0x0f64}, {PCMPGTW, 0x0f65}, {PCMPGTD, 0x0f66}, {PCMPEQB, 0x0f74},
		{PCMPEQW, 0x0f75}, {PCMPEQD, 0x0f76}, {PADDB, 0x0ffc}, {PADDW, 0x0ffd}, {PADDD, 0x0ffe}, {PADDQ, 0x0fd4},
		{PADDUSB, 0x0fdc}, {PADDUSW, 0x0fdd}, {PADDSB, 0x0fec}, {PADDSW, 0x0fed}, {PSUBB, 0x0ff8}, {PSUBW, 0x0ff9},
		{PSUBD, 0x0ffa}, {PSUBQ, 0x0ffb}, {PSUBUSB, 0x0fd8}, {PSUBUSW, 0x0fd9}, {PSUBSB, 0x0fe8}, {PSUBSW, 0x0fe9},
		{PMULLW, 0x0fd5}, {PMULHUW, 0x0fe4}, {PMULHW, 0x0fe5}, {PMULUDQ, 0x0ff4}, {PMADDWD, 0x0ff5}, {PAND, 0x0fdb},
		{PANDN, 0x0fdf}, {POR, 0x0feb}, {PXOR, 0x0fef}, {PMINUB, 0x0fda}, {PMAXUB, 0x0fde}, {PMINSW, 0x0fea},
		{PMAXSW, 0x0fee}, {PAVGB, 0x0fe0}, {PAVGW, 0x0fe3}, {PSADBW, 0x0ff6}, {PSHUFB, 0x0f3800}, {PHADDW, 0x0f3801},
		{PHADDD, 0x0f3802}, {PHADDSW, 0x0f3803}, {PMADDUBSW, 0x0f3804}, {PHSUBW, 0x0f3805}, {PHSUBD, 0x0f3806},
		{PHSUBSW, 0x0f3807}, {PSIGNB, 0x0f3808}, {PSIGNW, 0x0f3809}, {PSIGND, 0x0f380a}, {PMULHRSW, 0x0f380b},
		{PMULDQ, 0x0f3828}, {PCMPEQQ, 0x0f3829}, {PACKUSDW, 0x0f382b}, {PCMPGTQ, 0x0f3837}, {PMINSB, 0x0f3838},
		{PMINSD, 0x0f3839}, {PMINUW, 0x0f383a}, {PMINUD, 0x0f383b}, {PMAXSB, 0x0f383c}, {PMAXSD, 0x0f383d},
		{PMAXUW, 0x0f383e}, {PMAXUD, 0x0f383f}, {PMULLD, 0x0f3840},
	} {
		rows = append(rows, vex(e.op, e.opcode, Vx, Hx, Wx))
	}
	for _, e := range []opAt{
		{PSRLW, 0x0fd1}, {PSRLD, 0x0fd2}, {PSRLQ, 0x0fd3}, {PSRAW, 0x0fe1}, {PSRAD, 0x0fe2}, {PSLLW, 0x0ff1},
		{PSLLD, 0x0ff2}, {PSLLQ, 0x0ff3},
	} {
		rows = append(rows, vex(e.op, e.opcode, Vx, Hx, Wo))
	}
	for _, e := range []opAt{{PABSB, 0x0f381c}, {PABSW, 0x0f381d}, {PABSD, 0x0f381e}} {
		rows = append(rows, vex(e.op, e.opcode, Vx, Wx))
	}
	for _, e := range []struct {
		opAt
		digit int
	}{
		{opAt{PSRLW, 0x0f71}, 2}, {opAt{PSRAW, 0x0f71}, 4}, {opAt{PSLLW, 0x0f71}, 6}, {opAt{PSRLD, 0x0f72}, 2},
		{opAt{PSRAD, 0x0f72}, 4}, {opAt{PSLLD, 0x0f72}, 6}, {opAt{PSRLQ, 0x0f73}, 2}, {opAt{PSRLDQ, 0x0f73}, 3},
		{opAt{PSLLQ, 0x0f73}, 6}, {opAt{PSLLDQ, 0x0f73}, 7},
	} {
		rows = append(rows, vex(e.op, e.opcode, Hx, Ux, Ib).digit(e.digit))
	}
	for _, e := range []struct {
		opAt
		from Arg
	}{
		{opAt{PMOVSXBW, 0x0f3820}, Wh}, {opAt{PMOVSXBD, 0x0f3821}, Wf}, {opAt{PMOVSXBQ, 0x0f3822}, We},
		{opAt{PMOVSXWD, 0x0f3823}, Wh}, {opAt{PMOVSXWQ, 0x0f3824}, Wf}, {opAt{PMOVSXDQ, 0x0f3825}, Wh},
		{opAt{PMOVZXBW, 0x0f3830}, Wh}, {opAt{PMOVZXBD, 0x0f3831}, Wf}, {opAt{PMOVZXBQ, 0x0f3832}, We},
		{opAt{PMOVZXWD, 0x0f3833}, Wh}, {opAt{PMOVZXWQ, 0x0f3834}, Wf}, {opAt{PMOVZXDQ, 0x0f3835}, Wh},
	} {
		rows = append(rows, vex(e.op, e.opcode, Vx, e.from))
	}
	for _, e := range []opAt{
		{AESENC, 0x0f38dc}, {AESENCLAST, 0x0f38dd}, {AESDEC, 0x0f38de}, {AESDECLAST, 0x0f38df},
	} {
		rows = append(rows, vex(e.op, e.opcode, Vx, Hx, Wx).with(L0))
	}
	rows = append(rows,
		vex(PHMINPOSUW, 0x0f3841, Vx, Wx).with(L0), vex(AESIMC, 0x0f38db, Vx, Wx).with(L0),
		vex(PTEST, 0x0f3817, Vx, Wx), vex(VTESTPS, 0x0f380e, Vx, Wx).with(W0), vex(VTESTPD, 0x0f380f, Vx, Wx).with(W0),
		vex(PMOVMSKB, 0x0fd7, Gd, Ux), vex(MASKMOVDQU, 0x0ff7, Vx, Ux).with(L0))
	return each(rows, func(r Row) Row { return r.pfx(P66) })
}

// vexFloatRows is the operations with a PS, PD, SS and SD form at one opcode.
func vexFloatRows() []Row {
	var rows []Row
	add := func(r Row, form int) {
		if form >= 2 {
			r = r.with(LIG)
		}
		rows = append(rows, r.pfx([]Prefix{PNone, P66, PF3, PF2}[form]))
	}
	source := []Arg{Wx, Wx, Wd, Wq}
	for _, e := range []struct {
		opcode         int
		ps, pd, ss, sd Op
	}{
		{0x0f54, ANDPS, ANDPD, Invalid, Invalid}, {0x0f55, ANDNPS, ANDNPD, Invalid, Invalid},
		{0x0f56, ORPS, ORPD, Invalid, Invalid}, {0x0f57, XORPS, XORPD, Invalid, Invalid},
		{0x0f58, ADDPS, ADDPD, ADDSS, ADDSD}, {0x0f59, MULPS, MULPD, MULSS, MULSD},
		{0x0f5c, SUBPS, SUBPD, SUBSS, SUBSD}, {0x0f5d, MINPS, MINPD, MINSS, MINSD},
		{0x0f5e, DIVPS, DIVPD, DIVSS, DIVSD}, {0x0f5f, MAXPS, MAXPD, MAXSS, MAXSD},
		{0x0f14, UNPCKLPS, UNPCKLPD, Invalid, Invalid}, {0x0f15, UNPCKHPS, UNPCKHPD, Invalid, Invalid},
		{0x0f7c, Invalid, HADDPD, Invalid, Invalid}, {0x0f7d, Invalid, HSUBPD, Invalid, Invalid},
		{0x0fd0, Invalid, ADDSUBPD, Invalid, Invalid},
	} {
		for i, op := range []Op{e.ps, e.pd, e.ss, e.sd} {
			if op != Invalid {
				add(vex(op, e.opcode, Vx, Hx, source[i]), i)
			}
		}
	}
	for i, op := range []Op{CMPPS, CMPPD, CMPSS, CMPSDX} {
		add(vex(op, 0x0fc2, Vx, Hx, source[i], Ib), i)
	}
	add(vex(SQRTPS, 0x0f51, Vx, Wx), 0)
	add(vex(SQRTPD, 0x0f51, Vx, Wx), 1)
	add(vex(SQRTSS, 0x0f51, Vx, Hx, Wd), 2)
	add(vex(SQRTSD, 0x0f51, Vx, Hx, Wq), 3)
	add(vex(RSQRTPS, 0x0f52, Vx, Wx), 0)
	add(vex(RSQRTSS, 0x0f52, Vx, Hx, Wd), 2)
	add(vex(RCPPS, 0x0f53, Vx, Wx), 0)
	add(vex(RCPSS, 0x0f53, Vx, Hx, Wd), 2)
	add(vex(SHUFPS, 0x0fc6, Vx, Hx, Wx, Ib), 0)
	add(vex(SHUFPD, 0x0fc6, Vx, Hx, Wx, Ib), 1)
	return append(rows,
		vex(HADDPS, 0x0f7c, Vx, Hx, Wx).pfx(PF2), vex(HSUBPS, 0x0f7d, Vx, Hx, Wx).pfx(PF2),
		vex(ADDSUBPS, 0x0fd0, Vx, Hx, Wx).pfx(PF2),
		vex(UCOMISS, 0x0f2e, Vx, Wd).pfx(PNone).with(LIG), vex(UCOMISD, 0x0f2e, Vx, Wq).pfx(P66).with(LIG),
		vex(COMISS, 0x0f2f, Vx, Wd).pfx(PNone).with(LIG), vex(COMISD, 0x0f2f, Vx, Wq).pfx(P66).with(LIG))
}

func vexMoveRows() []Row {
	return []Row{
		vex(MOVD, 0x0f6e, Vx, Ey).pfx(P66).with(L0), vex(MOVD, 0x0f7e, Ey, Vx).pfx(P66).with(L0),
		vex(MOVQ, 0x0f7e, Vx, Wq).pfx(PF3).with(L0), vex(MOVQ, 0x0fd6, Wq, Vx).pfx(P66).with(L0),
		vex(MOVDQA, 0x0f6f, Vx, Wx).pfx(P66), vex(MOVDQA, 0x0f7f, Wx, Vx).pfx(P66),
		vex(MOVDQU, 0x0f6f, Vx, Wx).pfx(PF3), vex(MOVDQU, 0x0f7f, Wx, Vx).pfx(PF3),
		vex(MOVUPS, 0x0f10, Vx, Wx).pfx(PNone), vex(MOVUPS, 0x0f11, Wx, Vx).pfx(PNone),
		vex(MOVUPD, 0x0f10, Vx, Wx).pfx(P66), vex(MOVUPD, 0x0f11, Wx, Vx).pfx(P66),
		vex(MOVSS, 0x0f10, Vx, Md).pfx(PF3).with(LIG), vex(MOVSS, 0x0f10, Vx, Hx, Ux).pfx(PF3).with(LIG),
		vex(MOVSS, 0x0f11, Md, Vx).pfx(PF3).with(LIG), vex(MOVSS, 0x0f11, Ux, Hx, Vx).pfx(PF3).with(LIG),
		vex(MOVSDX, 0x0f10, Vx, Mq).pfx(PF2).with(LIG), vex(MOVSDX, 0x0f10, Vx, Hx, Ux).pfx(PF2).with(LIG),
		vex(MOVSDX, 0x0f11, Mq, Vx).pfx(PF2).with(LIG), vex(MOVSDX, 0x0f11, Ux, Hx, Vx).pfx(PF2).with(LIG),
		vex(MOVAPS, 0x0f28, Vx, Wx).pfx(PNone), vex(MOVAPS, 0x0f29, Wx, Vx).pfx(PNone),
		vex(MOVAPD, 0x0f28, Vx, Wx).pfx(P66), vex(MOVAPD, 0x0f29, Wx, Vx).pfx(P66),
		vex(MOVLPS, 0x0f12, Vx, Hx, Mq).pfx(PNone).with(L0), vex(MOVHLPS, 0x0f12, Vx, Hx, Ux).pfx(PNone).with(L0),
		vex(MOVLPD, 0x0f12, Vx, Hx, Mq).pfx(P66).with(L0),
		vex(MOVSLDUP, 0x0f12, Vx, Wx).pfx(PF3), vex(MOVDDUP, 0x0f12, Vx, Wdp).pfx(PF2),
		vex(MOVLPS, 0x0f13, Mq, Vx).pfx(PNone).with(L0), vex(MOVLPD, 0x0f13, Mq, Vx).pfx(P66).with(L0),
		vex(MOVHPS, 0x0f16, Vx, Hx, Mq).pfx(PNone).with(L0), vex(MOVLHPS, 0x0f16, Vx, Hx, Ux).pfx(PNone).with(L0),
		vex(MOVHPD, 0x0f16, Vx, Hx, Mq).pfx(P66).with(L0), vex(MOVSHDUP, 0x0f16, Vx, Wx).pfx(PF3),
		vex(MOVHPS, 0x0f17, Mq, Vx).pfx(PNone).with(L0), vex(MOVHPD, 0x0f17, Mq, Vx).pfx(P66).with(L0),
		vex(MOVMSKPS, 0x0f50, Gd, Ux).pfx(PNone), vex(MOVMSKPD, 0x0f50, Gd, Ux).pfx(P66),
		vex(MOVNTPS, 0x0f2b, Mx, Vx).pfx(PNone), vex(MOVNTPD, 0x0f2b, Mx, Vx).pfx(P66),
		vex(MOVNTDQ, 0x0fe7, Mx, Vx).pfx(P66), vex(LDDQU, 0x0ff0, Vx, Mx).pfx(PF2),
		vex(MOVNTDQA, 0x0f382a, Vx, Mx).pfx(P66),
		vex(LDMXCSR, 0x0fae, Md).digit(2).mem().pfx(PNone).with(L0), vex(STMXCSR, 0x0fae, Md).digit(3).mem().pfx(PNone).with(L0),
		vex(VZEROUPPER, 0x0f77).pfx(PNone),
	}
}

func vexConvertRows() []Row {
	return []Row{
		vex(CVTSI2SS, 0x0f2a, Vx, Hx, Ey).pfx(PF3).with(LIG), vex(CVTSI2SD, 0x0f2a, Vx, Hx, Ey).pfx(PF2).with(LIG),
		vex(CVTTSS2SI, 0x0f2c, Gy, Wd).pfx(PF3).with(LIG), vex(CVTTSD2SI, 0x0f2c, Gy, Wq).pfx(PF2).with(LIG),
		vex(CVTSS2SI, 0x0f2d, Gy, Wd).pfx(PF3).with(LIG), vex(CVTSD2SI, 0x0f2d, Gy, Wq).pfx(PF2).with(LIG),
		vex(CVTPS2PD, 0x0f5a, Vx, Wh).pfx(PNone), vex(CVTPD2PS, 0x0f5a, Vo, Wx).pfx(P66),
		vex(CVTSS2SD, 0x0f5a, Vx, Hx, Wd).pfx(PF3).with(LIG), vex(CVTSD2SS, 0x0f5a, Vx, Hx, Wq).pfx(PF2).with(LIG),
		vex(CVTDQ2PS, 0x0f5b, Vx, Wx).pfx(PNone), vex(CVTPS2DQ, 0x0f5b, Vx, Wx).pfx(P66),
		vex(CVTTPS2DQ, 0x0f5b, Vx, Wx).pfx(PF3), vex(CVTTPD2DQ, 0x0fe6, Vo, Wx).pfx(P66),
		vex(CVTDQ2PD, 0x0fe6, Vx, Wh).pfx(PF3), vex(CVTPD2DQ, 0x0fe6, Vo, Wx).pfx(PF2),
		vex(VCVTPH2PS, 0x0f3813, Vx, Wh).pfx(P66).with(W0), vex(VCVTPS2PH, 0x0f3a1d, Wh, Vx, Ib).pfx(P66).with(W0),
	}
}

// vexImmediateRows is what has an immediate byte and a form without VEX.
func vexImmediateRows() []Row {
	rows := []Row{
		vex(PSHUFHW, 0x0f70, Vx, Wx, Ib).pfx(PF3), vex(PSHUFLW, 0x0f70, Vx, Wx, Ib).pfx(PF2),
	}
	under66 := []Row{
		vex(PSHUFD, 0x0f70, Vx, Wx, Ib), vex(PALIGNR, 0x0f3a0f, Vx, Hx, Wx, Ib),
		vex(PINSRW, 0x0fc4, Vx, Hx, Mw, Ib).with(L0), vex(PINSRW, 0x0fc4, Vx, Hx, Ed, Ib).reg().with(L0),
		vex(PEXTRW, 0x0fc5, Gd, Ux, Ib).with(L0),
		vex(ROUNDPS, 0x0f3a08, Vx, Wx, Ib), vex(ROUNDPD, 0x0f3a09, Vx, Wx, Ib),
		vex(ROUNDSS, 0x0f3a0a, Vx, Hx, Wd, Ib).with(LIG), vex(ROUNDSD, 0x0f3a0b, Vx, Hx, Wq, Ib).with(LIG),
		vex(BLENDPS, 0x0f3a0c, Vx, Hx, Wx, Ib), vex(BLENDPD, 0x0f3a0d, Vx, Hx, Wx, Ib), vex(PBLENDW, 0x0f3a0e, Vx, Hx, Wx, Ib),
		vex(DPPS, 0x0f3a40, Vx, Hx, Wx, Ib), vex(DPPD, 0x0f3a41, Vx, Hx, Wx, Ib).with(L0),
		vex(MPSADBW, 0x0f3a42, Vx, Hx, Wx, Ib), vex(PCLMULQDQ, 0x0f3a44, Vx, Hx, Wx, Ib).with(L0),
		vex(BLENDVPS, 0x0f3a4a, Vx, Hx, Wx, Lx).with(W0), vex(BLENDVPD, 0x0f3a4b, Vx, Hx, Wx, Lx).with(W0),
		vex(PBLENDVB, 0x0f3a4c, Vx, Hx, Wx, Lx).with(W0),
		vex(PEXTRB, 0x0f3a14, Mb, Vx, Ib).with(L0), vex(PEXTRB, 0x0f3a14, Ed, Vx, Ib).reg().with(L0),
		vex(PEXTRW, 0x0f3a15, Mw, Vx, Ib).with(L0), vex(PEXTRW, 0x0f3a15, Ed, Vx, Ib).reg().with(L0),
		vex(PEXTRD, 0x0f3a16, Ey, Vx, Ib).with(L0), vex(PEXTRQ, 0x0f3a16, Ey, Vx, Ib).with(RexW | L0),
		vex(EXTRACTPS, 0x0f3a17, Ed, Vx, Ib).with(L0),
		vex(PINSRB, 0x0f3a20, Vx, Hx, Mb, Ib).with(L0), vex(PINSRB, 0x0f3a20, Vx, Hx, Ed, Ib).reg().with(L0),
		vex(INSERTPS, 0x0f3a21, Vx, Hx, Wd, Ib).with(L0),
		vex(PINSRD, 0x0f3a22, Vx, Hx, Ey, Ib).with(L0), vex(PINSRQ, 0x0f3a22, Vx, Hx, Ey, Ib).with(RexW | L0),
		vex(PCMPESTRM, 0x0f3a60, Vx, Wx, Ib).with(L0), vex(PCMPESTRI, 0x0f3a61, Vx, Wx, Ib).with(L0),
		vex(PCMPISTRM, 0x0f3a62, Vx, Wx, Ib).with(L0), vex(PCMPISTRI, 0x0f3a63, Vx, Wx, Ib).with(L0),
		vex(AESKEYGENASSIST, 0x0f3adf, Vx, Wx, Ib).with(L0),
	}
	return join(rows, each(under66, func(r Row) Row { return r.pfx(P66) }))
}

// vexWideRows is what AVX and AVX2 added, all under 66.
func vexWideRows() []Row {
	rows := []Row{
		vex(VBROADCASTSS, 0x0f3818, Vx, Wd).with(W0), vex(VBROADCASTSD, 0x0f3819, Vx, Wq).with(W0 | L1),
		vex(VBROADCASTF128, 0x0f381a, Vx, Mdq).with(W0 | L1), vex(VBROADCASTI128, 0x0f385a, Vx, Mdq).with(W0 | L1),
		vex(VPBROADCASTB, 0x0f3878, Vx, Wb).with(W0), vex(VPBROADCASTW, 0x0f3879, Vx, Ww).with(W0),
		vex(VPBROADCASTD, 0x0f3858, Vx, Wd).with(W0), vex(VPBROADCASTQ, 0x0f3859, Vx, Wq).with(W0),
		vex(VINSERTF128, 0x0f3a18, Vx, Hx, Wo, Ib).with(W0 | L1), vex(VINSERTI128, 0x0f3a38, Vx, Hx, Wo, Ib).with(W0 | L1),
		vex(VEXTRACTF128, 0x0f3a19, Wo, Vx, Ib).with(W0 | L1), vex(VEXTRACTI128, 0x0f3a39, Wo, Vx, Ib).with(W0 | L1),
		vex(VPERM2F128, 0x0f3a06, Vx, Hx, Wx, Ib).with(W0 | L1), vex(VPERM2I128, 0x0f3a46, Vx, Hx, Wx, Ib).with(W0 | L1),
		vex(VPERMILPS, 0x0f380c, Vx, Hx, Wx).with(W0), vex(VPERMILPS, 0x0f3a04, Vx, Wx, Ib).with(W0),
		vex(VPERMILPD, 0x0f380d, Vx, Hx, Wx).with(W0), vex(VPERMILPD, 0x0f3a05, Vx, Wx, Ib).with(W0),
		vex(VPERMD, 0x0f3836, Vx, Hx, Wx).with(W0 | L1), vex(VPERMPS, 0x0f3816, Vx, Hx, Wx).with(W0 | L1),
		vex(VPERMQ, 0x0f3a00, Vx, Wx, Ib).with(W1 | L1), vex(VPERMPD, 0x0f3a01, Vx, Wx, Ib).with(W1 | L1),
		vex(VPBLENDD, 0x0f3a02, Vx, Hx, Wx, Ib).with(W0),
		vex(VMASKMOVPS, 0x0f382c, Vx, Hx, Mx).with(W0), vex(VMASKMOVPS, 0x0f382e, Mx, Hx, Vx).with(W0),
		vex(VMASKMOVPD, 0x0f382d, Vx, Hx, Mx).with(W0), vex(VMASKMOVPD, 0x0f382f, Mx, Hx, Vx).with(W0),
		vex(VPMASKMOVD, 0x0f388c, Vx, Hx, Mx), vex(VPMASKMOVQ, 0x0f388c, Vx, Hx, Mx).with(RexW),
		vex(VPMASKMOVD, 0x0f388e, Mx, Hx, Vx), vex(VPMASKMOVQ, 0x0f388e, Mx, Hx, Vx).with(RexW),
		vex(VPSLLVD, 0x0f3847, Vx, Hx, Wx), vex(VPSLLVQ, 0x0f3847, Vx, Hx, Wx).with(RexW),
		vex(VPSRLVD, 0x0f3845, Vx, Hx, Wx), vex(VPSRLVQ, 0x0f3845, Vx, Hx, Wx).with(RexW),
		vex(VPSRAVD, 0x0f3846, Vx, Hx, Wx).with(W0),
		vex(VPGATHERDD, 0x0f3890, Vx, Mvd, Hx), vex(VPGATHERDQ, 0x0f3890, Vx, Mvd, Hx).with(RexW),
		vex(VPGATHERQD, 0x0f3891, Vx, Mvq, Hx), vex(VPGATHERQQ, 0x0f3891, Vx, Mvq, Hx).with(RexW),
		vex(VGATHERDPS, 0x0f3892, Vx, Mvd, Hx), vex(VGATHERDPD, 0x0f3892, Vx, Mvd, Hx).with(RexW),
		vex(VGATHERQPS, 0x0f3893, Vx, Mvq, Hx), vex(VGATHERQPD, 0x0f3893, Vx, Mvq, Hx).with(RexW),
	}
	return each(rows, func(r Row) Row { return r.pfx(P66) })
}

// fmaRows is FMA: the operand orders 132, 213 and 231 at 96, A6 and B6 on.
func fmaRows() []Row {
	var rows []Row
	for i, order := range []Op{VFMADDSUB132PS, VFMADDSUB213PS, VFMADDSUB231PS} {
		base := 0x0f3896 + i<<4
		for n := range 2 { // VFMADDSUB, VFMSUBADD
			op := order + Op(2*n)
			rows = append(rows, vex(op, base+n, Vx, Hx, Wx), vex(op+1, base+n, Vx, Hx, Wx).with(RexW))
		}
		for n := range 4 { // VFMADD, VFMSUB, VFNMADD, VFNMSUB
			op := order + 4 + Op(4*n)
			rows = append(rows,
				vex(op, base+2+2*n, Vx, Hx, Wx), vex(op+1, base+2+2*n, Vx, Hx, Wx).with(RexW),
				vex(op+2, base+3+2*n, Vx, Hx, Wd).with(LIG), vex(op+3, base+3+2*n, Vx, Hx, Wq).with(RexW|LIG))
		}
	}
	return each(rows, func(r Row) Row { return r.pfx(P66) })
}

// bmiRows is BMI1 and BMI2, but for TZCNT.
func bmiRows() []Row {
	rows := []Row{
		vex(ANDN, 0x0f38f2, Gy, By, Ey).pfx(PNone),
		vex(BLSR, 0x0f38f3, By, Ey).digit(1).pfx(PNone), vex(BLSMSK, 0x0f38f3, By, Ey).digit(2).pfx(PNone),
		vex(BLSI, 0x0f38f3, By, Ey).digit(3).pfx(PNone),
		vex(BZHI, 0x0f38f5, Gy, Ey, By).pfx(PNone), vex(PEXT, 0x0f38f5, Gy, By, Ey).pfx(PF3), vex(PDEP, 0x0f38f5, Gy, By, Ey).pfx(PF2),
		vex(MULX, 0x0f38f6, Gy, By, Ey).pfx(PF2),
		vex(BEXTR, 0x0f38f7, Gy, Ey, By).pfx(PNone), vex(SHLX, 0x0f38f7, Gy, Ey, By).pfx(P66),
		vex(SARX, 0x0f38f7, Gy, Ey, By).pfx(PF3), vex(SHRX, 0x0f38f7, Gy, Ey, By).pfx(PF2),
		vex(RORX, 0x0f3af0, Gy, Ey, Ib).pfx(PF2),
	}
	return each(rows, func(r Row) Row { return r.with(L0) })
}
