//go:build ignore

// Gen_run writes run_gen_unsafe.go: the run loop and the names of its micro-ops.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"log"
	"os"
	"slices"
	"strings"
)

// gen collects the micro-ops' names and the loop's cases.
type gen struct {
	names   []string
	based   []string          // micro-ops that have a form without index
	setter  []string          // those that only compute and set all flags: they have a form without flags
	compare []string          // those that set all flags and cannot do without
	bodies  map[string]string // by name
	cases   bytes.Buffer
}

// op adds one micro-op; an empty body reserves the number only. A body with a
// memory operand makes a second one, named with B behind, for addresses without index.
func (g *gen) op(name, body string) {
	g.names = append(g.names, name)
	if body == "" {
		return
	}
	g.add(name, body, ea)
	if strings.Contains(body, "EA") {
		g.based = append(g.based, name)
	}
	g.bodies[name] = body
}

func (g *gen) add(name, body, address string) {
	body = strings.ReplaceAll(body, "EA", address)
	body = strings.ReplaceAll(body, "PAGE(va, 0)", "va&pageMask")
	for _, n := range []string{"1", "3", "7"} {
		body = strings.ReplaceAll(body, "PAGE(va, "+n+")", "(va+"+n+")&pageMask")
	}
	fmt.Fprintf(&g.cases, "case %s:\n%s\n", name, strings.TrimSpace(body))
}

// flagless adds name's form that leaves flags alone, named with N behind.
func (g *gen) flagless(name, body string) {
	g.setter = append(g.setter, name)
	g.bodies[name+"N"] = body
}

// flaglessForms adds them.
func (g *gen) flaglessForms() {
	for _, n := range g.setter {
		g.op(n+"N", g.bodies[n+"N"])
	}
}

// isPlain reports that a micro-op's body touches neither flags, memory nor control.
func (g *gen) isPlain(name string) bool {
	body := g.bodies[name]
	for _, word := range []string{"k.", "c.", "goto", "EA", "tlb"} {
		if strings.Contains(body, word) {
			return name == "uLea64" || name == "uLea32" || name == "uLea64B" || name == "uLea32B"
		}
	}
	return body != ""
}

// baseForms adds the second ones.
func (g *gen) baseForms() {
	for _, n := range g.based {
		g.names = append(g.names, n+"B")
		g.bodies[n+"B"] = g.bodies[n]
		g.add(n+"B", g.bodies[n], "*at(r, u.base) + uint64(int64(u.disp))")
	}
}

const ea = "*at(r, u.base) + *at(r, u.index)<<(u.scale&3) + uint64(int64(u.disp))"

type width struct {
	name, typ, last, sh, cc string
	bytes                   int
}

var widths = []width{
	{"8", "uint8", "0", "<<56", "cc8", 1},
	{"16", "uint16", "1", "<<48", "cc16", 2},
	{"32", "uint32", "3", "<<32", "cc32", 4},
	{"64", "uint64", "7", "", "cc64", 8},
}

// get reads a register field as the width's type.
func (w width) get(field string) string {
	switch w.name {
	case "8":
		sh := map[string]string{"dst": "u.x&8", "src": "u.x>>4&8"}[field]
		return "uint8(*at(r, u." + field + ") >> (" + sh + "))"
	case "64":
		return "*at(r, u." + field + ")"
	}
	return w.typ + "(*at(r, u." + field + "))"
}

// set writes val, of the width's type, to the dst register.
func (w width) set(val string) string {
	switch w.name {
	case "8":
		return "*at(r, u.dst) = *at(r, u.dst)&^(0xff<<(u.x&8)) | uint64(" + val + ")<<(u.x&8)"
	case "16":
		return "*at(r, u.dst) = *at(r, u.dst)&^0xffff | uint64(" + val + ")"
	case "64":
		return "*at(r, u.dst) = " + val
	}
	return "*at(r, u.dst) = uint64(" + val + ")"
}

func (w width) imm() string {
	if w.name == "64" {
		return "u.imm"
	}
	return w.typ + "(u.imm)"
}

// load reads memory at va into the new variable v.
func (w width) load(v string) string {
	return strings.NewReplacer("@V", v, "@N", w.name, "@T", w.typ, "@LAST", w.last).Replace(`
	va = EA
	var @V @T
	if e := &tlb[va>>12&(mmu.TLBSize-1)]; PAGE(va, @LAST) == e.Read {
		@V = *(*@T)(unsafe.Add(nil, uintptr(va)+e.Add))
	} else if @V, ok = c.ld@N(va); !ok {
		goto fault
	}`)
}

// store writes val to memory at va.
func (w width) store(val string) string {
	return strings.NewReplacer("@VAL", val, "@N", w.name, "@T", w.typ, "@LAST", w.last).Replace(`
	if e := &tlb[va>>12&(mmu.TLBSize-1)]; PAGE(va, @LAST) == e.Write {
		*(*@T)(unsafe.Add(nil, uintptr(va)+e.Add)) = @VAL
	} else if !c.st@N(va, @VAL) {
		goto fault
	} else if c.blocks.changed {
		goto resync
	}`)
}

// update reads memory at va into a, runs body, which computes v, writes v back
// and sets flags.
func (w width) update(body, flags string) string {
	return strings.NewReplacer("@BODY", body, "@FLAGS", flags, "@N", w.name, "@T", w.typ, "@LAST", w.last, "@BYTES", fmt.Sprint(w.bytes)).Replace(`
	va = EA
	var a, v @T
	if e := &tlb[va>>12&(mmu.TLBSize-1)]; PAGE(va, @LAST) == e.Write {
		p := (*@T)(unsafe.Add(nil, uintptr(va)+e.Add))
		a = *p
		@BODY
		*p = v
		@FLAGS
	} else {
		if !c.probeWrite(va, @BYTES) {
			goto fault
		}
		if a, ok = c.ld@N(va); !ok {
			goto fault
		}
		@BODY
		if !c.st@N(va, v) {
			goto fault
		}
		@FLAGS
		if c.blocks.changed {
			goto resync
		}
	}`)
}

// flags stores the lazy flags of a result v with second operand b.
func (w width) flags(kind string) string {
	switch kind {
	case "Logic":
		return fmt.Sprintf("k.Res, k.CC = uint64(v)%s, ccLogic|%s", w.sh, w.cc)
	case "None":
		return ""
	case "Inc", "Dec":
		return fmt.Sprintf("k.Res, k.CC = uint64(v)%s, cc%s|%s", w.sh, kind, w.cc)
	case "Mul":
		return fmt.Sprintf("k.Res, k.Src, k.CC = uint64(v)%s, hi, ccMul|%s", w.sh, w.cc)
	}
	return fmt.Sprintf("k.Res, k.Src, k.CC = uint64(v)%s, uint64(b)%s, cc%s|%s", w.sh, w.sh, kind, w.cc)
}

type aluOp struct{ name, expr, flags string }

var aluOps = []aluOp{
	{"Add", "v = a + b", "Add"},
	{"Or", "v = a | b", "Logic"},
	{"Adc", "v = a + b + T(carry)", "Add"},
	{"Sbb", "v = a - b - T(carry)", "Sub"},
	{"And", "v = a & b", "Logic"},
	{"Sub", "v = a - b", "Sub"},
	{"Xor", "v = a ^ b", "Logic"},
	{"Cmp", "v = a - b", "Sub"},
	{"Test", "v = a & b", "Logic"},
}

// arith adds the two-operand operations in the order op, form, width, which
// translation computes with.
func (g *gen) arith() {
	for _, op := range aluOps {
		for _, form := range []string{"RR", "RI", "RM", "MR", "MI"} {
			for _, w := range widths {
				name := "u" + op.name + form + w.name
				g.op(name, g.arithBody(op, form, w))
				if form[0] == 'R' && form != "RM" && w.bytes >= 4 && op.name != "Adc" && op.name != "Sbb" {
					body := ""
					if op.name == "Cmp" || op.name == "Test" {
						body = "// nothing is left"
					} else {
						body = g.arithBody(aluOp{op.name, op.expr, "None"}, form, w)
					}
					g.flagless(name, body)
				}
			}
		}
	}
}

func (g *gen) arithBody(op aluOp, form string, w width) string {
	if op.name == "Test" && form == "RM" {
		return ""
	}
	readOnly := op.name == "Cmp" || op.name == "Test"
	expr := strings.ReplaceAll(op.expr, "T(", w.typ+"(")
	pre, flags := "", w.flags(op.flags)
	if op.name == "Adc" || op.name == "Sbb" {
		pre = "carry := uint8(b2u(k.cf()))\n"
		flags += fmt.Sprintf("\nk.CC += carry * (cc%s - cc%s)", op.name, op.flags)
	}
	var b strings.Builder
	b.WriteString(pre)
	switch form {
	case "RR":
		fmt.Fprintf(&b, "a, b := %s, %s\n", w.get("dst"), w.get("src"))
	case "RI":
		fmt.Fprintf(&b, "a, b := %s, %s\n", w.get("dst"), w.imm())
	case "RM":
		fmt.Fprintf(&b, "%s\na := %s\n", w.load("b"), w.get("dst"))
	default:
		src := w.imm()
		if form == "MR" {
			src = w.get("src")
		}
		fmt.Fprintf(&b, "b := %s\n", src)
		if readOnly {
			b.WriteString(w.load("a"))
			break
		}
		b.WriteString(w.update(expr, flags))
		return b.String()
	}
	b.WriteString("\n" + strings.Replace(expr, "v =", "v :=", 1) + "\n" + flags + "\n")
	if !readOnly {
		b.WriteString(w.set("v"))
	}
	return b.String()
}

// unaryOps adds INC, DEC, NEG and NOT of registers and memory.
func (g *gen) unaryOps() {
	ops := []struct{ name, expr string }{
		{"Inc", "v = a + 1"},
		{"Dec", "v = a - 1"},
		{"Neg", "v = -a"},
		{"Not", "v = ^a"},
	}
	for _, op := range ops {
		for _, form := range []string{"R", "M"} {
			for _, w := range widths {
				flags := ""
				switch op.name {
				case "Inc", "Dec":
					flags = "k.Src = b2u(k.cf())\n" + w.flags(op.name)
				case "Neg":
					flags = "b := a\n" + w.flags("Sub")
				}
				var body string
				if form == "R" {
					body = "a := " + w.get("dst") + "\n" + strings.Replace(op.expr, "v =", "v :=", 1) + "\n" + flags + "\n" + w.set("v")
				} else {
					body = w.update(op.expr, flags)
				}
				g.op("u"+op.name+form+w.name, body)
			}
		}
	}
}

// moves adds MOV, MOVZX, MOVSX and LEA.
func (g *gen) moves() {
	for _, w := range widths {
		g.op("uMovRR"+w.name, w.set(w.get("src")))
	}
	for _, w := range widths {
		g.op("uMovRI"+w.name, w.set(w.imm()))
	}
	for _, w := range widths {
		g.op("uMovRM"+w.name, w.load("v")+"\n"+w.set("v"))
	}
	for _, w := range widths {
		g.op("uMovMR"+w.name, "va = EA\n"+w.store(w.get("src")))
	}
	for _, w := range widths {
		g.op("uMovMI"+w.name, "va = EA\n"+w.store(w.imm()))
	}
	// Sign and zero extension: from, to.
	ext := []struct{ name, conv string }{
		{"Zx", "uint64(b)"},
		{"Sx32", "uint64(uint32(int32(S(b))))"},
		{"Sx64", "uint64(int64(S(b)))"},
	}
	for _, x := range ext {
		for _, form := range []string{"R", "M"} {
			for _, w := range widths[:3] {
				signed := strings.TrimPrefix(w.typ, "u")
				val := strings.ReplaceAll(x.conv, "S(", signed+"(")
				body := "b := " + w.get("src")
				if form == "M" {
					body = w.load("b")
				}
				g.op("uMov"+x.name+form+w.name, body+"\n*at(r, u.dst) = "+val)
			}
		}
	}
	g.op("uLea64", "*at(r, u.dst) = EA")
	g.op("uLea32", "*at(r, u.dst) = uint64(uint32(EA))")
}

// shifts adds SHL, SHR, SAR, ROL and ROR of 32- and 64-bit registers by a count
// in the micro-op (never 0) and SHL, SHR and SAR by CL.
func (g *gen) shifts() {
	ops := []struct{ name, body, flags string }{
		{"Shl", "last := a << (n - 1)\nv := last << 1", "Shl"},
		{"Shr", "last := a >> (n - 1)\nv := last >> 1", "Shr"},
		{"Sar", "last := T(S(a) >> (n - 1))\nv := T(S(last) >> 1)", "Shr"},
	}
	for _, op := range ops {
		for _, count := range []string{"I", "C"} {
			for _, w := range widths[2:] {
				pre := "n := u.imm & 63"
				if count == "C" {
					pre = "n := r[1] & M\nif n == 0 {\n" + w.set("a") + "\nbreak\n}"
				}
				body := "a := " + w.get("dst") + "\n" + pre + "\n" + op.body + "\nb := last\n" +
					strings.Replace(w.flags(op.flags), "cc"+op.flags, "cc"+op.flags, 1) + "\n" + w.set("v")
				mask := "31"
				if w.name == "64" {
					mask = "63"
				}
				body = strings.NewReplacer("T(", w.typ+"(", "S(", strings.TrimPrefix(w.typ, "u")+"(", "& M\n", "& "+mask+"\n").Replace(body)
				g.op("u"+op.name+count+w.name, body)
				if count == "I" {
					g.flagless("u"+op.name+count+w.name, w.set(w.typ+"("+map[string]string{"Shl": w.get("dst") + " << (u.imm & 63)", "Shr": w.get("dst") + " >> (u.imm & 63)",
						"Sar": strings.TrimPrefix(w.typ, "u") + "(" + w.get("dst") + ") >> (u.imm & 63)"}[op.name]+")"))
				}
			}
		}
	}
	for _, op := range []struct{ name, n, aux string }{
		{"Rol", "int(u.imm&63)", "cf := v & 1\nof := cf ^ v>>TOP&1"},
		{"Ror", "-int(u.imm&63)", "cf := v >> TOP & 1\nof := cf ^ v>>NEXT&1"},
	} {
		for _, w := range widths[2:] {
			body := "v := uint64(bits.RotateLeft" + w.name + "(" + w.get("dst") + ", " + op.n + "))\n" + op.aux +
				"\nk.setStatus(k.status()&^(x86.FlagCF|x86.FlagOF) | cf | of<<11)\n*at(r, u.dst) = v"
			top := w.bytes*8 - 1
			g.op("u"+op.name+"I"+w.name, strings.NewReplacer("TOP", fmt.Sprint(top), "NEXT", fmt.Sprint(top-1)).Replace(body))
		}
	}
}

// multiply adds the two- and three-operand IMUL.
func (g *gen) multiply() {
	for _, form := range []string{"RR", "RM", "RRI", "RMI"} {
		for _, w := range widths[2:] {
			body := "a := " + w.get("dst") + "\n"
			if strings.HasSuffix(form, "I") {
				body = "a := " + w.imm() + "\n"
			}
			if form[1] == 'M' {
				body += w.load("b") + "\n"
			} else {
				body += "b := " + w.get("src") + "\n"
			}
			if w.name == "64" {
				body += "hi, v := bits.Mul64(a, b)\nhi -= uint64(int64(a)>>63)&b + uint64(int64(b)>>63)&a\n"
			} else {
				body += "p := int64(int32(a)) * int64(int32(b))\nv, hi := uint32(p), uint64(p>>32)\n"
			}
			g.op("uImul"+form+w.name, body+w.flags("Mul")+"\n"+w.set("v"))
			if form[1] == 'R' {
				a := w.get("dst")
				if strings.HasSuffix(form, "I") {
					a = w.imm()
				}
				g.flagless("uImul"+form+w.name, w.set(a+" * "+w.get("src")))
			}
		}
	}
}

// conditions adds Jcc, SETcc and CMOVcc.
func (g *gen) conditions() {
	conds := []string{"k.of()", "k.cf()", "k.Res == 0", "k.Res == 0 || k.cf()", "k.sf()", "k.pf()", "k.sf() != k.of()", "k.Res == 0 || k.sf() != k.of()"}
	test := func(i int) string {
		if i&1 != 0 {
			return "!(" + conds[i/2] + ")"
		}
		return conds[i/2]
	}
	names := []string{"O", "NO", "B", "AE", "Z", "NZ", "BE", "A", "S", "NS", "P", "NP", "L", "GE", "LE", "G"}
	for i, n := range names {
		g.op("uJ"+n, "if "+test(i)+" {\ngoto side\n}")
	}
	for i, n := range names {
		g.op("uSetR"+n, "*at(r, u.dst) = *at(r, u.dst)&^(0xff<<(u.x&8)) | b2u("+test(i)+")<<(u.x&8)")
	}
	g.op("uSetM", "va = EA\nv := uint8(b2u(k.cond(u.src)))\n"+widths[0].store("v"))
	for _, w := range widths[2:] {
		for i, n := range names {
			body := "if " + test(i) + " {\n" + w.set(w.get("src")) + "\n}"
			if w.name == "32" { // a destination not written is zero-extended all the same
				body += " else {\n" + w.set(w.get("dst")) + "\n}"
			}
			g.op("uCmovRR"+w.name+n, body)
		}
	}
	for _, w := range widths[2:] {
		g.op("uCmovRM"+w.name, w.load("b")+"\nv := "+w.get("dst")+"\nif k.cond(u.x) {\nv = b\n}\n"+w.set("v"))
	}
}

// fused adds CMP and TEST followed by Jcc.
func (g *gen) fused() {
	type cond struct{ name, test string }
	cmps := []cond{
		{"B", "a < b"}, {"AE", "a >= b"}, {"Z", "a == b"}, {"NZ", "a != b"}, {"BE", "a <= b"}, {"A", "a > b"},
		{"L", "S(a) < S(b)"}, {"GE", "S(a) >= S(b)"}, {"LE", "S(a) <= S(b)"}, {"G", "S(a) > S(b)"},
	}
	tests := []cond{{"Z", "v == 0"}, {"NZ", "v != 0"}, {"S", "S(v) < 0"}, {"NS", "S(v) >= 0"}, {"LE", "S(v) <= 0"}, {"G", "S(v) > 0"}}
	add := func(op, form string, cs []cond, expr, flags string, ws []width) {
		for _, w := range ws {
			for _, cd := range cs {
				var body string
				switch form {
				case "RR":
					body = "a, b := " + w.get("dst") + ", " + w.get("src")
				case "RI":
					body = "a, b := " + w.get("dst") + ", " + w.imm()
				case "MI":
					body = "b := " + w.imm() + "\n" + w.load("a")
				case "RM":
					body = w.load("b") + "\na := " + w.get("dst")
				case "MR":
					body = "b := " + w.get("src") + "\n" + w.load("a")
				}
				body += "\n" + expr + "\n" + w.flags(flags) + "\nif " + cd.test + " {\ngoto side\n}"
				body = strings.ReplaceAll(body, "S(", strings.TrimPrefix(w.typ, "u")+"(")
				name := "uF" + op + form + w.name + cd.name
				g.op(name, body)
				if form == "RR" || form == "RI" {
					g.compare = append(g.compare, name)
				}
			}
		}
	}
	wide := widths[2:]
	add("Cmp", "RR", cmps, "v := a - b", "Sub", wide)
	add("Cmp", "RI", cmps, "v := a - b", "Sub", wide)
	add("Cmp", "RM", cmps, "v := a - b", "Sub", wide)
	add("Cmp", "MR", cmps, "v := a - b", "Sub", wide)
	add("Cmp", "MI", cmps, "v := a - b", "Sub", wide)
	add("Cmp", "RI", cmps, "v := a - b", "Sub", widths[:1])
	add("Cmp", "MI", cmps, "v := a - b", "Sub", widths[:1])
	add("Test", "RR", tests, "v := a & b", "Logic", wide)
	add("Test", "RI", tests, "v := a & b", "Logic", wide)
	add("Test", "RR", tests, "v := a & b", "Logic", widths[:1])
	add("Test", "RI", tests, "v := a & b", "Logic", widths[:1])
	add("Test", "MI", tests, "v := a & b", "Logic", widths[:1])
}

// stackAndFlow adds pushes, pops, calls and jumps of 64-bit mode, and the ends of blocks.
func (g *gen) stackAndFlow() {
	q := widths[3]
	push := func(val string) string {
		return "va = r[4] - 8\n" + strings.Replace(q.store(val), "goto resync", "r[4] = va\n\t\tgoto resync", 1) + "\nr[4] = va"
	}
	// A store that changed code resynchronises after rSP has moved.
	fix := func(s string) string { return strings.ReplaceAll(s, "goto fault", "goto stackFault") }
	g.op("uPushR", fix(push("*at(r, u.src)")))
	g.op("uPushI", fix(push("u.imm")))
	load := strings.Replace(q.load("v"), "va = EA", "va = r[4]", 1)
	g.op("uPopR", fix(load+"\nr[4] = va + 8\n*at(r, u.dst) = v"))
	g.op("uCall", fix("va = r[4] - 8\nret := r[17] + uint64(b.end)\n"+strings.Replace(q.store("ret"), "goto resync", "r[4] = va\n\t\trip = r[17] + b.target\n\t\tgoto resyncAt", 1)+"\nr[4] = va\ngoto taken"))
	g.op("uRet", fix(load+"\nif uint64(int64(v<<16)>>16) != v {\ngoto slow\n}\nr[4] = va + 8\nrip = v\ngoto jump"))
	callTo := "if uint64(int64(v<<16)>>16) != v {\ngoto slow\n}\nva = r[4] - 8\nret := r[17] + uint64(b.end)\n" + strings.Replace(q.store("ret"), "goto resync", "r[4] = va\n\t\trip = v\n\t\tgoto resyncAt", 1) + "\nr[4] = va\nrip = v\ngoto jump"
	g.op("uCallR", fix("v := *at(r, u.src)\n"+callTo))
	g.op("uCallM", q.load("v")+"\n"+fix(callTo))
	g.op("uJmpR", "v := *at(r, u.src)\nif uint64(int64(v<<16)>>16) != v {\ngoto slow\n}\nrip = v\ngoto jump")
	g.op("uJmpM", q.load("v")+"\nif uint64(int64(v<<16)>>16) != v {\ngoto slow\n}\nrip = v\ngoto jump")
	g.op("uLeave", fix(strings.Replace(q.load("v"), "va = EA", "va = r[5]", 1)+"\nr[4] = va + 8\nr[5] = v"))
	g.op("uJmp", "goto taken")
	g.op("uEnd", "goto fall")
	g.op("uNop", "// nothing")
	g.op("uDead", "rip = r[17] + uint64(b.off)\nk.Instructions -= uint64(b.n)\nk.RIP = rip & mask\ngoto find")
	g.op("uCdqe", "r[0] = uint64(int64(int32(r[0])))")
	g.op("uCwde", "r[0] = uint64(uint32(int32(int16(r[0]))))")
	g.op("uCdq", "r[2] = uint64(uint32(int32(r[0]) >> 31))")
	g.op("uCqo", "r[2] = uint64(int64(r[0]) >> 63)")
	for _, w := range widths[2:] {
		bt := "n := " + map[string]string{"32": "31", "64": "63"}[w.name]
		g.op("uBtRR"+w.name, bt+"\nk.setCarry(*at(r, u.dst)>>(*at(r, u.src)&uint64(n))&1 != 0)")
		g.op("uBtRI"+w.name, "k.setCarry(*at(r, u.dst)>>(u.imm&63)&1 != 0)")
	}
	g.op("uGeneric", "k.RIP = (r[17] + uint64(u.off)) & mask\nst = c.exec(&b.insts[u.imm])\nif st == next {\nif c.blocks.changed {\ngoto resync\n}\nbreak\n}\ngoto ended")
	g.op("uBranch", "k.RIP = (r[17] + uint64(u.off)) & mask\nswitch st = c.exec(&b.insts[u.imm]); st {\ncase next:\ngoto fall\ncase jumped:\nrip = k.RIP\ngoto jump\n}\ngoto ended")
	g.op("uSystem", "k.RIP = (r[17] + uint64(u.off)) & mask\nst = c.exec(&b.insts[u.imm])\nif st == next {\nk.RIP = (r[17] + uint64(b.end)) & mask\n}\ngoto ended")
	g.op("uRaise", "k.RIP = (r[17] + uint64(u.off)) & mask\nst = c.raiseDecode(u.src)\ngoto ended")
}

const head = `// Code generated by gen_run_unsafe.go; DO NOT EDIT.

package interp

import (
	"math/bits"
	"sync/atomic"
	"unsafe"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/mmu"
)

// The micro-ops.
const (
`

// loop's labels: taken and fall leave a block by its two static exits, jump goes
// to rip, find looks for the block at k.RIP.
const loop = `}

// at returns register n of an address or operand: R, and SegBase behind it.
// unsafe: Core's layout has room for any n below 32, and translation makes no others.
func at(r *[18]uint64, n uint8) *uint64 {
	return (*uint64)(unsafe.Add(unsafe.Pointer(r), uintptr(n)*8))
}

// runBlocks runs blocks from RIP until something needs the outer loop: pending
// events, a fault, an instruction that may change mode, an end. Privilege, mode
// and paging do not change while it runs. unsafe: Core's first registers are
// indexed as one array with the segment bases, for which Core's layout leaves
// room; micro-ops are walked by address within a block, whose last op always
// leaves it; guest memory is reached as mem_unsafe.go explains.
func (c *CPU) runBlocks() (st status) {
	k := c.Core
	r := &k.R
	tlb := &k.TLB[k.MMUIndex%3]
	mask := ^uint64(0)
	if k.Mode != decode.Mode64 {
		mask = 0xffffffff
	}
	tag := c.jumpTag()
	var (
		b, nb   *block
		u       *uop
		x       *exit
		va, rip uint64
		ok      bool
	)
find:
	if b, st = c.find(); b == nil {
		return st
	}
enter:
	if atomic.LoadUint32(&k.Pending) != 0 {
		k.RIP = (r[17] + uint64(b.off)) & mask
		return next
	}
	if k.Instructions > k.TurnEnd {
		c.endTurn()
	}
	k.Instructions += uint64(b.n)
	u = b.first
	for {
		switch u.kind {
`

const tail = `
		}
		u = (*uop)(unsafe.Add(unsafe.Pointer(u), unsafe.Sizeof(uop{})))
	}
side: // the branch at u is taken
	x = &b.exits[u.len]
	k.Instructions -= uint64(x.skipped)
	if nb = x.to; nb != nil {
		b = nb
		goto enter
	}
	rip = r[17] + x.target
	if !x.inside {
		goto jump
	}
	k.RIP = rip & mask
	if nb, st = c.find(); nb == nil {
		return st
	}
	if nb.page == b.page && !nb.cross {
		x.to = nb
	}
	b = nb
	goto enter
taken:
	if nb = b.taken; nb != nil {
		b = nb
		goto enter
	}
	rip = r[17] + b.target
	if !b.takenInside {
		goto jump
	}
	k.RIP = rip & mask
	if nb, st = c.find(); nb == nil {
		return st
	}
	if nb.page == b.page && !nb.cross {
		b.taken = nb
	}
	b = nb
	goto enter
fall:
	if nb = b.fall; nb != nil {
		b = nb
		goto enter
	}
	rip = r[17] + uint64(b.end)
	if !b.fallInside {
		goto jump
	}
	k.RIP = rip & mask
	if nb, st = c.find(); nb == nil {
		return st
	}
	if nb.page == b.page && !nb.cross {
		b.fall = nb
	}
	b = nb
	goto enter
jump:
	rip &= mask
	if j := &c.blocks.jumps[jumpIndex(rip)]; j.key == rip<<16|tag {
		b = j.b
		r[17] = rip - uint64(b.off)
		goto enter
	}
	k.RIP = rip
	goto find
resync: // the instruction is complete, and code has changed, perhaps this block
	rip = r[17] + uint64(u.off) + uint64(u.len)
resyncAt:
	c.blocks.changed = false
	k.Instructions -= uint64(b.n - u.idx - 1)
	k.RIP = rip & mask
	return next
stackFault:
	c.stackFault()
fault:
	k.RIP = (r[17] + uint64(u.off)) & mask
	st = faulted
ended:
	switch st {
	case next, jumped:
		c.blocks.changed = false
		return st
	case faulted:
		c.segmentFault()
	}
	k.Instructions -= uint64(b.n - u.idx)
	return st
slow: // the instruction at u, by its definition
	k.RIP = (r[17] + uint64(u.off)) & mask
	k.Instructions -= uint64(b.n - u.idx)
	return c.step()
}
`

func main() {
	g := gen{bodies: map[string]string{}}
	g.arith()
	g.unaryOps()
	g.moves()
	g.shifts()
	g.multiply()
	g.conditions()
	g.stackAndFlow()
	g.fused()
	g.flaglessForms()
	g.baseForms()
	var out bytes.Buffer
	out.WriteString(head)
	for i, n := range g.names {
		if i == 0 {
			n += " uint16 = iota"
		}
		fmt.Fprintln(&out, n)
	}
	out.WriteString(")\n\n// withoutIndex names the micro-op for an address that has no index.\nvar withoutIndex = [...]uint16{\n")
	for _, n := range g.based {
		fmt.Fprintf(&out, "%s: %sB,\n", n, n)
	}
	out.WriteString("}\n\n// withoutFlags names, for a micro-op that sets all flags and does not fault, the\n// one that computes the same but leaves them alone, or itself if there is none.\nvar withoutFlags = [...]uint16{\n")
	for _, n := range g.setter {
		fmt.Fprintf(&out, "%s: %sN,\n", n, n)
	}
	for _, n := range g.compare {
		fmt.Fprintf(&out, "%s: %s,\n", n, n)
	}
	out.WriteString("}\n\n// plain marks the micro-ops that neither touch flags nor can fault.\nvar plain = [...]bool{\n")
	for _, n := range g.names {
		if n, ok := strings.CutSuffix(n, "N"); ok && slices.Contains(g.setter, n) || g.isPlain(n) {
			if ok {
				n += "N"
			}
			fmt.Fprintf(&out, "%s: true,\n", n)
		}
	}
	out.WriteString(loop)
	out.Write(g.cases.Bytes())
	out.WriteString(tail)
	src, err := format.Source(out.Bytes())
	if err != nil {
		os.Stderr.Write(out.Bytes())
		log.Fatal(err)
	}
	if err := os.WriteFile("run_gen_unsafe.go", src, 0o644); err != nil {
		log.Fatal(err)
	}
}
