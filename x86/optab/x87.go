package optab

// Sources: Intel SDM vol. 2 appendix A.5 (escape opcodes); AMD APM vol. 3
// appendix A for the aliases of the 8087 that both vendors still execute.
// FLDENV, FNSTENV, FRSTOR and FNSAVE take their layout's width from OpSize.

func x87Rows() []Row {
	return join(x87MemRows(), x87StackRows(), x87FixedRows(), []Row{row(FWAIT, 0x9b)})
}

// x87MemRows is D8-DF with a memory operand.
func x87MemRows() []Row {
	arith := []Op{FADD, FMUL, FCOM, FCOMP, FSUB, FSUBR, FDIV, FDIVR}
	intArith := []Op{FIADD, FIMUL, FICOM, FICOMP, FISUB, FISUBR, FIDIV, FIDIVR}
	var rows []Row
	for i := range 8 {
		rows = append(rows,
			row(arith[i], 0xd8, Md).digit(i), row(arith[i], 0xdc, Mq).digit(i),
			row(intArith[i], 0xda, Md).digit(i), row(intArith[i], 0xde, Mw).digit(i))
	}
	return append(rows,
		row(FLD, 0xd9, Md).digit(0), row(FST, 0xd9, Md).digit(2), row(FSTP, 0xd9, Md).digit(3),
		row(FLDENV, 0xd9, M).digit(4), row(FLDCW, 0xd9, Mw).digit(5),
		row(FNSTENV, 0xd9, M).digit(6), row(FNSTCW, 0xd9, Mw).digit(7),
		row(FILD, 0xdb, Md).digit(0), row(FISTTP, 0xdb, Md).digit(1), row(FIST, 0xdb, Md).digit(2),
		row(FISTP, 0xdb, Md).digit(3), row(FLD, 0xdb, Mt).digit(5), row(FSTP, 0xdb, Mt).digit(7),
		row(FLD, 0xdd, Mq).digit(0), row(FISTTP, 0xdd, Mq).digit(1), row(FST, 0xdd, Mq).digit(2),
		row(FSTP, 0xdd, Mq).digit(3), row(FRSTOR, 0xdd, M).digit(4), row(FNSAVE, 0xdd, M).digit(6),
		row(FNSTSW, 0xdd, Mw).digit(7),
		row(FILD, 0xdf, Mw).digit(0), row(FISTTP, 0xdf, Mw).digit(1), row(FIST, 0xdf, Mw).digit(2),
		row(FISTP, 0xdf, Mw).digit(3), row(FBLD, 0xdf, Mt).digit(4), row(FILD, 0xdf, Mq).digit(5),
		row(FBSTP, 0xdf, Mt).digit(6), row(FISTP, 0xdf, Mq).digit(7))
}

// x87StackRows is D8-DF with a stack register in ModRM.rm. FCMOVCC's condition
// is the opcode's bit 0 (1: not) and ModRM.reg: 0 B, 1 E, 2 BE, 3 U.
func x87StackRows() []Row {
	st := func(op Op, opcode, digit int, args ...Arg) Row { return row(op, opcode, args...).digit(digit).reg() }
	var rows []Row
	for i, op := range []Op{FADD, FMUL, FCOM, FCOMP, FSUB, FSUBR, FDIV, FDIVR} {
		rows = append(rows, st(op, 0xd8, i, ST0, STi))
	}
	for i, op := range []Op{FADD, FMUL, FCOM, FCOMP, FSUBR, FSUB, FDIVR, FDIV} {
		if op == FCOM || op == FCOMP {
			rows = append(rows, st(op, 0xdc, i, ST0, STi)) // aliases
			continue
		}
		rows = append(rows, st(op, 0xdc, i, STi, ST0))
	}
	for d := range 4 {
		rows = append(rows, st(FCMOVCC, 0xda, d, ST0, STi), st(FCMOVCC, 0xdb, d, ST0, STi))
	}
	return append(rows,
		st(FLD, 0xd9, 0, STi), st(FXCH, 0xd9, 1, ST0, STi), st(FSTP, 0xd9, 3, STi), // D9 D8: alias
		st(FUCOMI, 0xdb, 5, ST0, STi), st(FCOMI, 0xdb, 6, ST0, STi),
		st(FFREE, 0xdd, 0, STi), st(FXCH, 0xdd, 1, ST0, STi), // DD C8: alias
		st(FST, 0xdd, 2, STi), st(FSTP, 0xdd, 3, STi), st(FUCOM, 0xdd, 4, ST0, STi), st(FUCOMP, 0xdd, 5, ST0, STi),
		st(FADDP, 0xde, 0, STi, ST0), st(FMULP, 0xde, 1, STi, ST0), st(FCOMP, 0xde, 2, ST0, STi), // DE D0: alias
		st(FSUBRP, 0xde, 4, STi, ST0), st(FSUBP, 0xde, 5, STi, ST0),
		st(FDIVRP, 0xde, 6, STi, ST0), st(FDIVP, 0xde, 7, STi, ST0),
		st(FFREEP, 0xdf, 0, STi),
		st(FXCH, 0xdf, 1, ST0, STi), st(FSTP, 0xdf, 2, STi), st(FSTP, 0xdf, 3, STi), // DF C8, D0, D8: aliases
		st(FUCOMIP, 0xdf, 5, ST0, STi), st(FCOMIP, 0xdf, 6, ST0, STi))
}

// x87FixedRows is the escapes that ModRM selects whole.
func x87FixedRows() []Row {
	rows := []Row{
		row(FNOP, 0xd9).fixed(2, 0),
		row(FUCOMPP, 0xda).fixed(5, 1), row(FCOMPP, 0xde).fixed(3, 1),
		row(FNENI, 0xdb).fixed(4, 0), row(FNDISI, 0xdb).fixed(4, 1), row(FNCLEX, 0xdb).fixed(4, 2),
		row(FNINIT, 0xdb).fixed(4, 3), row(FNSETPM, 0xdb).fixed(4, 4),
		row(FNSTSWAX, 0xdf).fixed(4, 0),
	}
	d9 := [4][8]Op{
		{FCHS, FABS, Invalid, Invalid, FTST, FXAM, Invalid, Invalid},
		{FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ, Invalid},
		{F2XM1, FYL2X, FPTAN, FPATAN, FXTRACT, FPREM1, FDECSTP, FINCSTP},
		{FPREM, FYL2XP1, FSQRT, FSINCOS, FRNDINT, FSCALE, FSIN, FCOS},
	}
	for d, ops := range d9 {
		for rm, op := range ops {
			if op != Invalid {
				rows = append(rows, row(op, 0xd9).fixed(4+d, rm))
			}
		}
	}
	return rows
}
