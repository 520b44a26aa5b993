package optab

import "slices"

// row starts a Row: opcode is the whole opcode, map escape included (0x88,
// 0x0faf, 0x0f38f0), with any mandatory prefix left to pfx. ModRM is taken from
// the operands: a memory-only operand gives ModMem, a register-only one ModReg.
func row(op Op, opcode int, args ...Arg) Row {
	r := Row{Op: op, Opcode: uint8(opcode), Digit: -1, RM: -1, Args: args}
	switch opcode >> 8 {
	case 0x0f38:
		r.Map = Map0F38
	case 0x0f3a:
		r.Map = Map0F3A
	case 0x0f:
		r.Map = Map0F
	}
	for _, a := range args {
		r.Mod = max(r.Mod, a.mod())
	}
	return r
}

// vex is row for an instruction with a VEX prefix: opcode has the escape that
// VEX.mmmmm stands for.
func vex(op Op, opcode int, args ...Arg) Row {
	r := row(op, opcode, args...)
	r.Map += MapV0F - Map0F
	return r
}

// mod is what an operand kind demands of ModRM.
func (a Arg) mod() Mod {
	switch a {
	case M, Mb, Mw, Md, Mq, Mdq, Mt, Mp, Ms, Mx, Mvd, Mvq:
		return ModMem
	case Ux, Nq, STi:
		return ModReg
	case Eb, Ew, Ed, Ev, Ey, Ry, Gb, Gw, Gd, Gv, Gy, Sw, Cd, Dd,
		Vx, Wb, Ww, Wd, Wq, Wx, Pq, Qd, Qq, Vo, Wo, Wh, Wf, We, Wdp:
		return ModAny
	}
	return ModNone
}

func (r Row) with(f Flags) Row    { r.Flags |= f; return r }
func (r Row) pfx(p Prefix) Row    { r.Prefix = p; return r }
func (r Row) mem() Row            { r.Mod = ModMem; return r }
func (r Row) reg() Row            { r.Mod = ModReg; return r }
func (r Row) digit(d int) Row     { r.Digit = int8(d); r.Mod = max(r.Mod, ModAny); return r }
func (r Row) fixed(d, rm int) Row { r = r.digit(d).reg(); r.RM = int8(rm); return r }

// both gives one row for each of two opcodes' widths: opcode with the byte
// operands and opcode+1 with the operand-size ones.
func both(op Op, opcode int, b, v []Arg) []Row {
	return []Row{row(op, opcode, b...), row(op, opcode+1, v...)}
}

// each applies f to every row.
func each(rows []Row, f func(Row) Row) []Row {
	out := make([]Row, len(rows))
	for i, r := range rows {
		out[i] = f(r)
	}
	return out
}

// join puts tables one after another.
func join(tables ...[]Row) []Row { return slices.Concat(tables...) }
