package gdb

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"berth/x86"
)

// register is one of a vCPU's, in little-endian bytes.
type register struct {
	name, kind string // kind is a type of the target description
	size       int    // in bytes
	get        func(s *x86.State) []byte
	set        func(s *x86.State, p []byte)
}

// word is a register that is a number, of which the low bytes are shown.
func word(name, kind string, size int, field func(s *x86.State) *uint64) register {
	return register{name, kind, size, func(s *x86.State) []byte {
		return binary.LittleEndian.AppendUint64(nil, *field(s))[:size]
	}, func(s *x86.State, p []byte) {
		var b [8]byte
		copy(b[:], p)
		*field(s) = binary.LittleEndian.Uint64(b[:])
	}}
}

// feature is a group of registers under a name that gdb knows (its manual, appendix G.5.8).
type feature struct {
	name      string
	registers []register
}

// featureList is all of them; a register's number is its place in the whole.
func featureList() []feature {
	return []feature{
		{"org.gnu.gdb.i386.core", coreRegisters()},
		{"org.gnu.gdb.i386.sse", vectorRegisters("xmm%d", "vec128", func(s *x86.State, i int) *[2]uint64 { return &s.FPU.XMM[i] }, mxcsr())},
		{"org.gnu.gdb.i386.linux", []register{originalRAX()}},
		{"org.gnu.gdb.i386.segments", []register{
			word("fs_base", "int64", 8, func(s *x86.State) *uint64 { return &s.Seg[x86.FS].Base }),
			word("gs_base", "int64", 8, func(s *x86.State) *uint64 { return &s.Seg[x86.GS].Base }),
		}},
		{"org.gnu.gdb.i386.avx", vectorRegisters("ymm%dh", "uint128", func(s *x86.State, i int) *[2]uint64 { return &s.FPU.YMMH[i] })},
		{"berth.system", systemRegisters()},
	}
}

func registers() (list []register) {
	for _, f := range featureList() {
		list = append(list, f.registers...)
	}
	return list
}

func coreRegisters() (list []register) {
	for _, r := range []struct {
		name string
		n    int
	}{{"rax", x86.RAX}, {"rbx", x86.RBX}, {"rcx", x86.RCX}, {"rdx", x86.RDX}, {"rsi", x86.RSI}, {"rdi", x86.RDI}, {"rbp", x86.RBP}, {"rsp", x86.RSP},
		{"r8", 8}, {"r9", 9}, {"r10", 10}, {"r11", 11}, {"r12", 12}, {"r13", 13}, {"r14", 14}, {"r15", 15}} {
		kind := "int64"
		if r.n == x86.RBP || r.n == x86.RSP {
			kind = "data_ptr"
		}
		list = append(list, word(r.name, kind, 8, func(s *x86.State) *uint64 { return &s.GPR[r.n] }))
	}
	list = append(list, word("rip", "code_ptr", 8, func(s *x86.State) *uint64 { return &s.RIP }),
		word("eflags", "i386_eflags", 4, func(s *x86.State) *uint64 { return &s.RFLAGS }))
	for _, g := range []struct {
		name string
		n    int
	}{{"cs", x86.CS}, {"ss", x86.SS}, {"ds", x86.DS}, {"es", x86.ES}, {"fs", x86.FS}, {"gs", x86.GS}} {
		list = append(list, selector(g.name, g.n))
	}
	for i := range 8 {
		list = append(list, stackRegister(i))
	}
	return append(list, fpuControls()...)
}

// selector is a segment register. A new selector is not loaded: base and rights stay.
func selector(name string, n int) register {
	return register{name, "int32", 4, func(s *x86.State) []byte {
		return binary.LittleEndian.AppendUint32(nil, uint32(s.Seg[n].Selector))
	}, func(s *x86.State, p []byte) { s.Seg[n].Selector = binary.LittleEndian.Uint16(p) }}
}

func stackRegister(i int) register {
	return register{fmt.Sprintf("st%d", i), "i387_ext", 10, func(s *x86.State) []byte {
		return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint64(nil, s.FPU.ST[i].Mant), s.FPU.ST[i].SE)
	}, func(s *x86.State, p []byte) {
		s.FPU.ST[i] = x86.F80{Mant: binary.LittleEndian.Uint64(p), SE: binary.LittleEndian.Uint16(p[8:])}
	}}
}

// fpuControls are as FSTENV stores them; a 64-bit CPU has no selectors there.
func fpuControls() []register {
	half := func(name string, get func(f *x86.FPU) uint32, set func(f *x86.FPU, v uint32)) register {
		return register{name, "int", 4, func(s *x86.State) []byte {
			return binary.LittleEndian.AppendUint32(nil, get(&s.FPU))
		}, func(s *x86.State, p []byte) { set(&s.FPU, binary.LittleEndian.Uint32(p)) }}
	}
	return []register{
		half("fctrl", func(f *x86.FPU) uint32 { return uint32(f.FCW) }, func(f *x86.FPU, v uint32) { f.FCW = uint16(v) }),
		half("fstat", func(f *x86.FPU) uint32 { return uint32(f.FSW) }, func(f *x86.FPU, v uint32) { f.FSW = uint16(v) }),
		half("ftag", tagWord, setTagWord),
		half("fiseg", func(f *x86.FPU) uint32 { return uint32(f.FIP >> 32) }, func(f *x86.FPU, v uint32) { f.FIP = f.FIP&0xffffffff | uint64(v)<<32 }),
		half("fioff", func(f *x86.FPU) uint32 { return uint32(f.FIP) }, func(f *x86.FPU, v uint32) { f.FIP = f.FIP&^0xffffffff | uint64(v) }),
		half("foseg", func(f *x86.FPU) uint32 { return uint32(f.FDP >> 32) }, func(f *x86.FPU, v uint32) { f.FDP = f.FDP&0xffffffff | uint64(v)<<32 }),
		half("fooff", func(f *x86.FPU) uint32 { return uint32(f.FDP) }, func(f *x86.FPU, v uint32) { f.FDP = f.FDP&^0xffffffff | uint64(v) }),
		half("fop", func(f *x86.FPU) uint32 { return uint32(f.FOP) }, func(f *x86.FPU, v uint32) { f.FOP = uint16(v) & 0x7ff }),
	}
}

// tagWord is the tags of all physical registers, two bits each (Intel SDM vol. 1
// figure 8-7), of which the state has only whether one is empty.
func tagWord(f *x86.FPU) (tags uint32) {
	const valid, zero, special, empty = 0, 1, 2, 3
	for i := range 8 {
		v := f.ST[(i-int(f.FSW>>11&7))&7]
		tag := uint32(special)
		switch e := v.SE & 0x7fff; {
		case f.FTW>>i&1 == 0:
			tag = empty
		case e == 0 && v.Mant == 0:
			tag = zero
		case e != 0 && e != 0x7fff && v.Mant>>63 != 0:
			tag = valid
		}
		tags |= tag << (2 * i)
	}
	return tags
}

func setTagWord(f *x86.FPU, tags uint32) {
	f.FTW = 0
	for i := range 8 {
		if tags>>(2*i)&3 != 3 {
			f.FTW |= 1 << i
		}
	}
}

func vectorRegisters(name, kind string, field func(s *x86.State, i int) *[2]uint64, more ...register) (list []register) {
	for i := range 16 {
		list = append(list, register{fmt.Sprintf(name, i), kind, 16, func(s *x86.State) []byte {
			v := field(s, i)
			return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, v[0]), v[1])
		}, func(s *x86.State, p []byte) {
			*field(s, i) = [2]uint64{binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])}
		}})
	}
	return append(list, more...)
}

func mxcsr() register {
	return register{"mxcsr", "i386_mxcsr", 4, func(s *x86.State) []byte {
		return binary.LittleEndian.AppendUint32(nil, s.FPU.MXCSR)
	}, func(s *x86.State, p []byte) { s.FPU.MXCSR = binary.LittleEndian.Uint32(p) }}
}

// originalRAX is the number of a process's system call, which gdb wants of a Linux
// target: a CPU is in none, and what gdb writes there is nothing to it.
func originalRAX() register {
	return register{"orig_rax", "int", 8, func(*x86.State) []byte {
		return binary.LittleEndian.AppendUint64(nil, ^uint64(0))
	}, func(*x86.State, []byte) {}}
}

// systemRegisters are those that QEMU adds.
func systemRegisters() []register {
	kernelGS := register{"k_gs_base", "int64", 8, func(s *x86.State) []byte {
		v := uint64(0)
		for _, m := range s.MSRs {
			if m.Index == x86.MSRKernelGSBase {
				v = m.Value
			}
		}
		return binary.LittleEndian.AppendUint64(nil, v)
	}, func(s *x86.State, p []byte) {
		for i := range s.MSRs {
			if s.MSRs[i].Index == x86.MSRKernelGSBase {
				s.MSRs[i].Value = binary.LittleEndian.Uint64(p)
			}
		}
	}}
	return []register{
		kernelGS,
		word("cr0", "i386_cr0", 8, func(s *x86.State) *uint64 { return &s.CR0 }),
		word("cr2", "int64", 8, func(s *x86.State) *uint64 { return &s.CR2 }),
		word("cr3", "int64", 8, func(s *x86.State) *uint64 { return &s.CR3 }),
		word("cr4", "i386_cr4", 8, func(s *x86.State) *uint64 { return &s.CR4 }),
		word("cr8", "int64", 8, func(s *x86.State) *uint64 { return &s.CR8 }),
		word("efer", "i386_efer", 8, func(s *x86.State) *uint64 { return &s.EFER }),
	}
}

// readRegisters is g.
func (s *session) readRegisters(string) []byte {
	var v x86.State
	if s.do(func() error { return s.vm.State(s.thread, &v) }) != nil {
		return failed(badArgument)
	}
	var b strings.Builder
	for _, r := range registers() {
		b.WriteString(hex.EncodeToString(r.get(&v)))
	}
	return []byte(b.String())
}

// writeRegisters is G: the first registers, as many as are given.
func (s *session) writeRegisters(args string) []byte {
	data, err := hex.DecodeString(args)
	if err != nil || len(data) == 0 {
		return failed(badArgument)
	}
	short := false
	e := s.change(s.thread, func(v *x86.State) {
		for _, r := range registers() {
			if short = len(data) < r.size; short {
				break
			}
			r.set(v, data[:r.size])
			data = data[r.size:]
		}
	})
	switch {
	case e != nil:
		return e
	case len(data) > 0:
		return failed(badArgument)
	}
	return ok()
}

// readRegister is p.
func (s *session) readRegister(args string) []byte {
	all := registers()
	n, good := number(args)
	if !good || n >= uint64(len(all)) {
		return failed(badArgument)
	}
	var v x86.State
	if s.do(func() error { return s.vm.State(s.thread, &v) }) != nil {
		return failed(badArgument)
	}
	return []byte(hex.EncodeToString(all[n].get(&v)))
}

// writeRegister is P: NUMBER=VALUE.
func (s *session) writeRegister(args string) []byte {
	which, value, _ := strings.Cut(args, "=")
	all := registers()
	n, good := number(which)
	p, err := hex.DecodeString(value)
	if !good || n >= uint64(len(all)) || err != nil || len(p) != all[n].size {
		return failed(badArgument)
	}
	if e := s.change(s.thread, func(v *x86.State) { all[n].set(v, p) }); e != nil {
		return e
	}
	return ok()
}
