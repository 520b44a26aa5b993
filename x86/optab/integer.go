package optab

// Sources: Intel SDM vol. 2 (instruction reference and appendix A opcode maps);
// AMD APM vol. 3 appendix A for undocumented aliases (82, shift /6, TEST /1).

func integerRows() []Row {
	return join(arithRows(), groupRows(), bitRows(), moveRows(), stackRows(),
		branchRows(), stringRows(), miscRows())
}

// arithRows is 00-3F, 80-83: the eight two-operand operations.
func arithRows() []Row {
	var rows []Row
	for i, op := range []Op{ADD, OR, ADC, SBB, AND, SUB, XOR, CMP} {
		lock := Lockable
		if op == CMP {
			lock = 0
		}
		rows = append(rows,
			row(op, i<<3, Eb, Gb).with(lock),
			row(op, i<<3+1, Ev, Gv).with(lock),
			row(op, i<<3+2, Gb, Eb),
			row(op, i<<3+3, Gv, Ev),
			row(op, i<<3+4, AL, Ib),
			row(op, i<<3+5, RAXv, Iz),
			row(op, 0x80, Eb, Ib).digit(i).with(lock),
			row(op, 0x81, Ev, Iz).digit(i).with(lock),
			row(op, 0x82, Eb, Ib).digit(i).with(lock|No64),
			row(op, 0x83, Ev, IbS).digit(i).with(lock))
	}
	return rows
}

// groupRows is shift groups C0, C1, D0-D3, unary groups F6, F7, FE, FF and 40-4F.
func groupRows() []Row {
	var rows []Row
	for i, op := range []Op{ROL, ROR, RCL, RCR, SHL, SHR, SHL, SAR} {
		rows = append(rows,
			row(op, 0xc0, Eb, Ib).digit(i), row(op, 0xc1, Ev, Ib).digit(i),
			row(op, 0xd0, Eb, One).digit(i), row(op, 0xd1, Ev, One).digit(i),
			row(op, 0xd2, Eb, CL).digit(i), row(op, 0xd3, Ev, CL).digit(i))
	}
	for i, op := range []Op{TEST, TEST} {
		rows = append(rows, row(op, 0xf6, Eb, Ib).digit(i), row(op, 0xf7, Ev, Iz).digit(i))
	}
	for i, op := range []Op{NOT, NEG, MUL, IMUL, DIV, IDIV} {
		var lock Flags
		if op == NOT || op == NEG {
			lock = Lockable
		}
		rows = append(rows, row(op, 0xf6, Eb).digit(i+2).with(lock), row(op, 0xf7, Ev).digit(i+2).with(lock))
	}
	for i, op := range []Op{INC, DEC} {
		rows = append(rows,
			row(op, 0xfe, Eb).digit(i).with(Lockable), row(op, 0xff, Ev).digit(i).with(Lockable),
			row(op, 0x40+i<<3, Zv).with(No64))
	}
	return append(rows,
		row(IMUL, 0x0faf, Gv, Ev), row(IMUL, 0x69, Gv, Ev, Iz), row(IMUL, 0x6b, Gv, Ev, IbS),
		row(TEST, 0x84, Eb, Gb), row(TEST, 0x85, Ev, Gv), row(TEST, 0xa8, AL, Ib), row(TEST, 0xa9, RAXv, Iz))
}

// bitRows is bit tests, scans, counts and double shifts. A machine without BMI1
// and LZCNT runs the TZCNT and LZCNT rows as BSF and BSR: F3 means nothing there.
func bitRows() []Row {
	var rows []Row
	for i, op := range []Op{BT, BTS, BTR, BTC} {
		lock := Lockable
		if op == BT {
			lock = 0
		}
		rows = append(rows,
			row(op, 0x0fa3+i<<3, Ev, Gv).with(lock),
			row(op, 0x0fba, Ev, Ib).digit(4+i).with(lock))
	}
	return append(rows,
		row(BSF, 0x0fbc, Gv, Ev), row(TZCNT, 0x0fbc, Gv, Ev).pfx(PF3),
		row(BSR, 0x0fbd, Gv, Ev), row(LZCNT, 0x0fbd, Gv, Ev).pfx(PF3),
		row(POPCNT, 0x0fb8, Gv, Ev).pfx(PF3),
		row(SHLD, 0x0fa4, Ev, Gv, Ib), row(SHLD, 0x0fa5, Ev, Gv, CL),
		row(SHRD, 0x0fac, Ev, Gv, Ib), row(SHRD, 0x0fad, Ev, Gv, CL),
		row(CRC32, 0x0f38f0, Gy, Eb).pfx(PF2), row(CRC32, 0x0f38f1, Gy, Ev).pfx(PF2),
		row(ADCX, 0x0f38f6, Gy, Ey).pfx(P66), row(ADOX, 0x0f38f6, Gy, Ey).pfx(PF3))
}

func moveRows() []Row {
	return []Row{
		row(MOV, 0x88, Eb, Gb), row(MOV, 0x89, Ev, Gv), row(MOV, 0x8a, Gb, Eb), row(MOV, 0x8b, Gv, Ev),
		row(MOV, 0xa0, AL, Ob), row(MOV, 0xa1, RAXv, Ov), row(MOV, 0xa2, Ob, AL), row(MOV, 0xa3, Ov, RAXv),
		row(MOV, 0xb0, Zb, Ib), row(MOV, 0xb8, Zv, Iv),
		row(MOV, 0xc6, Eb, Ib).digit(0), row(MOV, 0xc7, Ev, Iz).digit(0),
		row(MOVZX, 0x0fb6, Gv, Eb), row(MOVZX, 0x0fb7, Gv, Ew),
		row(MOVSX, 0x0fbe, Gv, Eb), row(MOVSX, 0x0fbf, Gv, Ew),
		row(MOVSXD, 0x63, Gv, Ed).with(Only64),
		row(MOVBE, 0x0f38f0, Gv, Ev).mem().pfx(PNone), row(MOVBE, 0x0f38f0, Gv, Ev).mem().pfx(P66), // F3: #UD, F2: CRC32
		row(MOVBE, 0x0f38f1, Ev, Gv).mem().pfx(PNone), row(MOVBE, 0x0f38f1, Ev, Gv).mem().pfx(P66),
		row(MOVNTI, 0x0fc3, Ey, Gy).pfx(PNone).mem(),
		row(LEA, 0x8d, Gv, M),
		row(BSWAP, 0x0fc8, Zv),
		row(XCHG, 0x86, Eb, Gb).with(Lockable), row(XCHG, 0x87, Ev, Gv).with(Lockable),
		row(XCHG, 0x90, Zv, RAXv),
		row(NOP, 0x90), row(PAUSE, 0x90).pfx(PF3), // NOP with REX.B is XCHG R8, rAX
		row(XADD, 0x0fc0, Eb, Gb).with(Lockable), row(XADD, 0x0fc1, Ev, Gv).with(Lockable),
		row(CMPXCHG, 0x0fb0, Eb, Gb).with(Lockable), row(CMPXCHG, 0x0fb1, Ev, Gv).with(Lockable),
		row(CMPXCHG8B, 0x0fc7, Mq).digit(1).with(Lockable),
		row(CMPXCHG16B, 0x0fc7, Mdq).digit(1).with(Lockable | RexW),
		row(SETCC, 0x0f90, Eb).with(CondLow4),
		row(CMOVCC, 0x0f40, Gv, Ev).with(CondLow4),
		row(LES, 0xc4, Gv, Mp).with(No64), row(LDS, 0xc5, Gv, Mp).with(No64),
		row(LSS, 0x0fb2, Gv, Mp), row(LFS, 0x0fb4, Gv, Mp), row(LGS, 0x0fb5, Gv, Mp),
		row(XLAT, 0xd7, AL, Xb),
	}
}

func stackRows() []Row {
	rows := []Row{
		row(PUSH, 0x50, Zv), row(PUSH, 0x68, Iz), row(PUSH, 0x6a, IbS), row(PUSH, 0xff, Ev).digit(6),
		row(POP, 0x58, Zv), row(POP, 0x8f, Ev).digit(0),
		row(PUSHF, 0x9c), row(POPF, 0x9d),
		row(PUSHSEG, 0x06, SegES).with(No64), row(POPSEG, 0x07, SegES).with(No64),
		row(PUSHSEG, 0x0e, SegCS).with(No64),
		row(PUSHSEG, 0x16, SegSS).with(No64), row(POPSEG, 0x17, SegSS).with(No64),
		row(PUSHSEG, 0x1e, SegDS).with(No64), row(POPSEG, 0x1f, SegDS).with(No64),
		row(PUSHSEG, 0x0fa0, SegFS), row(POPSEG, 0x0fa1, SegFS),
		row(PUSHSEG, 0x0fa8, SegGS), row(POPSEG, 0x0fa9, SegGS),
		row(ENTER, 0xc8, Iw, Ib), row(LEAVE, 0xc9),
	}
	rows = each(rows, func(r Row) Row { return r.with(Default64) })
	return append(rows, row(PUSHA, 0x60).with(No64), row(POPA, 0x61).with(No64))
}

// branchRows follows Intel where the vendors differ: near branches have a
// 64-bit operand size in 64-bit mode whatever 66 says (SDM vol. 2 §2.2.1.7);
// AMD processors let 66 make them 16-bit.
func branchRows() []Row {
	near := []Row{
		row(JCC, 0x70, Jb).with(CondLow4), row(JCC, 0x0f80, Jz).with(CondLow4),
		row(LOOPNE, 0xe0, Jb), row(LOOPE, 0xe1, Jb), row(LOOP, 0xe2, Jb), row(JCXZ, 0xe3, Jb),
		row(CALL, 0xe8, Jz), row(CALL, 0xff, Ev).digit(2),
		row(JMP, 0xe9, Jz), row(JMP, 0xeb, Jb), row(JMP, 0xff, Ev).digit(4),
		row(RET, 0xc2, Iw), row(RET, 0xc3),
	}
	return append(each(near, func(r Row) Row { return r.with(Force64) }),
		row(CALLFAR, 0x9a, Ap).with(No64), row(CALLFAR, 0xff, Mp).digit(3),
		row(JMPFAR, 0xea, Ap).with(No64), row(JMPFAR, 0xff, Mp).digit(5),
		row(RETFAR, 0xca, Iw), row(RETFAR, 0xcb),
		row(INT3, 0xcc), row(INT, 0xcd, Ib), row(INTO, 0xce).with(No64), row(INT1, 0xf1),
		row(IRET, 0xcf))
}

func stringRows() []Row {
	rows := join(
		both(INS, 0x6c, []Arg{Yb, DX}, []Arg{Yv, DX}),
		both(OUTS, 0x6e, []Arg{DX, Xb}, []Arg{DX, Xv}),
		both(MOVS, 0xa4, []Arg{Yb, Xb}, []Arg{Yv, Xv}),
		both(CMPS, 0xa6, []Arg{Xb, Yb}, []Arg{Xv, Yv}),
		both(STOS, 0xaa, []Arg{Yb, AL}, []Arg{Yv, RAXv}),
		both(LODS, 0xac, []Arg{AL, Xb}, []Arg{RAXv, Xv}),
		both(SCAS, 0xae, []Arg{AL, Yb}, []Arg{RAXv, Yv}))
	return each(rows, func(r Row) Row {
		if r.Op == INS || r.Op == OUTS {
			r.Flags |= Max32
		}
		return r.with(RepString)
	})
}

func miscRows() []Row {
	rows := []Row{
		row(CBW, 0x98), row(CWD, 0x99), row(SAHF, 0x9e), row(LAHF, 0x9f),
		row(CMC, 0xf5), row(CLC, 0xf8), row(STC, 0xf9), row(CLD, 0xfc), row(STD, 0xfd),
		row(DAA, 0x27).with(No64), row(DAS, 0x2f).with(No64), row(AAA, 0x37).with(No64), row(AAS, 0x3f).with(No64),
		row(AAM, 0xd4, Ib).with(No64), row(AAD, 0xd5, Ib).with(No64), row(SALC, 0xd6).with(No64),
		row(BOUND, 0x62, Gv, M).with(No64), row(ARPL, 0x63, Ew, Gw).with(No64),
		row(IN, 0xe4, AL, Ib), row(IN, 0xe5, RAXv, Ib).with(Max32),
		row(OUT, 0xe6, Ib, AL), row(OUT, 0xe7, Ib, RAXv).with(Max32),
		row(IN, 0xec, AL, DX), row(IN, 0xed, RAXv, DX).with(Max32),
		row(OUT, 0xee, DX, AL), row(OUT, 0xef, DX, RAXv).with(Max32),
		row(UD0, 0x0fff, Gd, Ed), row(UD1, 0x0fb9, Gd, Ed), row(UD2, 0x0f0b),
		row(CPUID, 0x0fa2), row(RDTSC, 0x0f31), row(RDTSCP, 0x0f01).fixed(7, 1),
		row(RDPID, 0x0fc7, Ry).digit(7).reg().pfx(PF3),
		row(LFENCE, 0x0fae).digit(5).reg().pfx(PNone), row(MFENCE, 0x0fae).digit(6).reg().pfx(PNone),
		row(SFENCE, 0x0fae).digit(7).reg().pfx(PNone),
		row(CLFLUSH, 0x0fae, Mb).digit(7).pfx(PNone), row(CLFLUSHOPT, 0x0fae, Mb).digit(7).pfx(P66),
		row(NOP, 0x0f18, Ev).digit(0).reg(), row(NOP, 0x0f18, Ev).digit(1).reg(),
		row(NOP, 0x0f18, Ev).digit(2).reg(), row(NOP, 0x0f18, Ev).digit(3).reg(),
		row(NOP, 0x0f0d, Ev).reg(),
	}
	for d := range 8 { // hints: SDM vol. 2 appendix A, 0F 0D and 0F 18-1F
		if d < 4 {
			rows = append(rows, row(PREFETCH, 0x0f18, Mb).digit(d))
		} else {
			rows = append(rows, row(NOP, 0x0f18, Ev).digit(d))
		}
		if d == 1 || d == 2 {
			rows = append(rows, row(PREFETCHW, 0x0f0d, Mb).digit(d))
		} else {
			rows = append(rows, row(PREFETCH, 0x0f0d, Mb).digit(d))
		}
		if d > 0 {
			rows = append(rows, row(NOP, 0x0f18+d, Ev))
		}
	}
	for _, p := range []Prefix{PNone, P66} {
		rows = append(rows, row(RDRAND, 0x0fc7, Ev).digit(6).reg().pfx(p), row(RDSEED, 0x0fc7, Ev).digit(7).reg().pfx(p))
	}
	return rows
}
