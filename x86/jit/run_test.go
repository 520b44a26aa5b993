package jit

import (
	"math/bits"
	"testing"

	"berth/x86"
)

// Instructions of the tests.
var (
	incRAX = []byte{0x48, 0xff, 0xc0}
	incRBX = []byte{0x48, 0xff, 0xc3}
)

// jump is JMP from off, behind n bytes, to a target in the page.
func jump(off, n int, to int) []byte { return []byte{0xeb, byte(to - off - n - 2)} }

func cat(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestEdgesAreLinkedUnlinkedAndKilled(t *testing.T) {
	f := newFake(t)
	a := f.block(0, cat(incRAX, jump(0, 3, 64))...)
	b := f.block(64, cat(incRBX, jump(64, 3, 128))...)
	expect := func(what string, kind Kind, target int64, rax, rbx uint64) uint32 {
		t.Helper()
		n, x := f.run(a.Entry)
		if x.Kind != kind || x.Target != target && kind == Edge || f.R[x86.RAX] != rax || f.R[x86.RBX] != rbx {
			t.Fatalf("%s: %v to %d, RAX %d, RBX %d", what, x.Kind, x.Target, f.R[x86.RAX], f.R[x86.RBX])
		}
		return n
	}
	n := expect("alone", Edge, 64, 1, 0)
	f.cache.Link(n, b.Entry)
	expect("linked", Edge, 128, 2, 1)
	f.cache.Unlink(n)
	expect("unlinked", Edge, 64, 3, 1)
	f.cache.Link(n, b.Entry)
	f.cache.Kill(&b)
	expect("killed", Dead, 0, 4, 1)
	if _, x := f.run(b.Entry); x.Kind != Dead || x.Off != 64 {
		t.Errorf("a killed block was left by %v of %d", x.Kind, x.Off)
	}
}

func TestClearForgetsAndKeepsWhatIsShared(t *testing.T) {
	f := newFake(t)
	empty := f.cache.Used()
	for !f.cache.Full() {
		f.block(0, cat(incRAX, jump(0, 3, 64))...)
	}
	if used := f.cache.Used(); used > 1<<20 || used < 1<<19 {
		t.Errorf("a full cache of 1 MiB holds %d bytes", used)
	}
	for _, clear := range []func(){f.cache.Clear, func() {
		if err := f.cache.Release(); err != nil {
			t.Error(err)
		}
	}} {
		clear()
		if used := f.cache.Used(); used != empty || f.cache.Full() {
			t.Errorf("a cleared cache holds %d bytes, a new one %d", used, empty)
		}
		f.R[x86.RAX] = 0
		u := f.block(0, 0x48, 0xff, 0xc0, 0xff, 0xe1) // inc rax; jmp rcx
		if _, x := f.run(u.Entry); x.Kind != Indirect || f.R[x86.RAX] != 1 || f.RIP != f.R[x86.RCX] {
			t.Errorf("left by %v, RAX %d, RIP %#x", x.Kind, f.R[x86.RAX], f.RIP)
		}
		f.block(0, incRAX...)
	}
}

func TestBudgetEndsEdges(t *testing.T) {
	f := newFake(t)
	a := f.block(0, cat(incRAX, jump(0, 3, 64))...)
	b := f.block(64, cat(incRBX, jump(64, 3, 0))...)
	n, _ := f.run(a.Entry)
	f.cache.Link(n, b.Entry)
	n, _ = f.run(b.Entry)
	f.cache.Link(n, a.Entry)
	f.R[x86.RAX], f.R[x86.RBX], f.Frame.Budget = 0, 0, 100
	_, x := f.run(a.Entry)
	if x.Kind != Edge || x.Target != 64 || f.R[x86.RAX] != 26 || f.R[x86.RBX] != 25 || f.Frame.Budget != -2 {
		t.Errorf("%v to %d after %d and %d, %d left", x.Kind, x.Target, f.R[x86.RAX], f.R[x86.RBX], f.Frame.Budget)
	}
}

func TestJumpsGoByTheTable(t *testing.T) {
	const low, high = 0x123456789, 0xffffffff81234567
	f := newFake(t)
	jmp := f.block(0, 0xff, 0xe1) // jmp rcx
	for half, rip := range []uint64{low, high} {
		target := f.block(uint16(rip%pageSize), 0x48, 0xff, 0xc0, 0xff, 0xe2) // inc rax; jmp rdx
		f.R[x86.RDX] = 0x10
		for _, c := range []struct {
			what    string
			entry   Jump
			pending uint32
			there   bool
		}{
			{"nothing there", Jump{}, 0, false},
			{"another address", Jump{RIP: rip + 1<<32, Tag: f.Frame.Tags[half], Code: f.cache.Address(target.Entry), Page: rip &^ (pageSize - 1)}, 0, false},
			{"another age", Jump{RIP: rip, Tag: f.Frame.Tags[1-half], Code: f.cache.Address(target.Entry), Page: rip &^ (pageSize - 1)}, 0, false},
			{"the address", Jump{RIP: rip, Tag: f.Frame.Tags[half], Code: f.cache.Address(target.Entry), Page: rip &^ (pageSize - 1)}, 0, true},
			{"something is pending", Jump{RIP: rip, Tag: f.Frame.Tags[half], Code: f.cache.Address(target.Entry), Page: rip &^ (pageSize - 1)}, 1, false},
		} {
			f.jumps[JumpIndex(rip)] = c.entry
			f.R[x86.RAX], f.R[x86.RCX], f.R[17], f.RIP, f.Pending = 0, rip, page, 0, c.pending
			_, x := f.run(jmp.Entry)
			want, at, base := uint64(0), rip, uint64(page)
			if c.there {
				want, at, base = 1, 0x10, rip&^(pageSize-1)
			}
			if x.Kind != Indirect || f.R[x86.RAX] != want || f.RIP != at || f.R[17] != base {
				t.Errorf("to %#x, %s: %v, RAX %d, RIP %#x, the page %#x", rip, c.what, x.Kind, f.R[x86.RAX], f.RIP, f.R[17])
			}
		}
		f.Pending = 0
	}
}

func TestMissSaysWhatIsMissingAndBeginsAgain(t *testing.T) {
	var ram [pageSize]byte
	f := newFake(t)
	u := f.block(0, cat(incRAX, []byte{0x66, 0x89, 0x43, 0x10}, jump(0, 7, 64))...) // inc rax; mov [rbx+16], ax
	f.R[x86.RBX] = 0x5000
	miss := func() *Exit {
		t.Helper()
		_, x := f.run(u.Entry)
		if x.Kind != Miss || f.Frame.VA != 0x5010 || x.Size != 2 || !x.Write || x.Off != 3 || x.Count != 1 {
			t.Fatalf("%+v of %#x", x, f.Frame.VA)
		}
		return x
	}
	miss()
	f.grant(0, 0x5000, &ram, false) // to be read
	x := miss()
	f.grant(0, 0x5000, &ram, true)
	f.R[x86.RAX] = 0x1234
	if _, x := f.run(x.Retry); x.Kind != Edge || ram[16] != 0x34 || ram[17] != 0x12 || f.R[x86.RAX] != 0x1234 {
		t.Errorf("%+v, % x", x, ram[:20])
	}
}

// TestAccessesEndAtTheirPage: the last bytes of a page are had, those that reach beyond miss.
func TestAccessesEndAtTheirPage(t *testing.T) {
	var ram [pageSize]byte
	f := newFake(t)
	for i, load := range [][]byte{{0x8a, 0x03}, {0x66, 0x8b, 0x03}, {0x8b, 0x03}, {0x48, 0x8b, 0x03}} { // mov, rbx
		u := f.block(0, cat(load, jump(0, len(load), 64))...)
		f.grant(0, 0x5000, &ram, false)
		for _, late := range []uint64{0, 1} {
			size := uint64(1) << i
			f.R[x86.RBX] = 0x6000 - size + late
			want := Edge
			if late > 0 {
				want = Miss
			}
			if _, x := f.run(u.Entry); x.Kind != want {
				t.Errorf("%d bytes at %#x: %v", size, f.R[x86.RBX], x.Kind)
			}
		}
	}
}

// flagsOf is what Intel SDM vol. 1 §3.4.3.1 says of the flags of ADD, SUB and AND, in RFLAGS' bits.
func flagsOf(op byte, a, b uint64, width int) (flags uint64) {
	mask, sign := ^uint64(0)>>(64-width), uint64(1)<<(width-1)
	a, b = a&mask, b&mask
	r, carry, over := a&b, uint64(0), uint64(0)
	switch op {
	case '+':
		r = (a + b) & mask
		carry, over = (a&b|(a|b)&^r)&sign, (a^r)&(b^r)&sign
	case '-':
		r = (a - b) & mask
		carry, over = (^a&b|(^a|b)&r)&sign, (a^b)&(a^r)&sign
	}
	set := func(on bool, bit uint64) {
		if on {
			flags |= bit
		}
	}
	set(carry != 0, x86.FlagCF)
	set(bits.OnesCount8(uint8(r))%2 == 0, x86.FlagPF)
	set(op != '&' && (a^b^r)&16 != 0, x86.FlagAF)
	set(r == 0, x86.FlagZF)
	set(r&sign != 0, x86.FlagSF)
	set(over != 0, x86.FlagOF)
	return flags
}

// TestFlagsOfEveryRecipe: whether the instruction that asks stands right behind, behind an
// access that needed the host's flags, or in another block, it sees those of the
// instruction that set them, for each width.
func TestFlagsOfEveryRecipe(t *testing.T) {
	var ram [pageSize]byte
	f := newFake(t)
	f.grant(0, 0x9000, &ram, false)
	ask := []byte{0x0f, 0x90, 0xc1, 0x9f}                               // seto cl; lahf
	access := []byte{0x48, 0x8b, 0x16}                                  // mov rdx, [rsi]
	other := f.block(2048, cat(ask, jump(2048, len(ask), 2048+100))...) // in another block
	values := []uint64{0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 63, 1<<63 - 1, 0x123456789abcdef0}
	for _, o := range []struct {
		name   string
		opcode byte // of the operation on a byte in memory or register
		op     byte
	}{{"add", 0x00, '+'}, {"and", 0x20, '&'}, {"sub", 0x28, '-'}, {"cmp", 0x38, '-'}, {"test", 0x84, '&'}, {"xchg order cmp", 0x3a, '-'}} {
		for w, prefix := range [][]byte{{}, {0x66}, {}, {0x48}} {
			opcode, modrm := o.opcode, byte(0xfb) // rbx, rdi
			if w > 0 {
				opcode++
			} else {
				prefix = []byte{0x40} // DIL
			}
			if o.opcode == 0x3a {
				modrm = 0xdf
			}
			set := cat(prefix, []byte{opcode, modrm})
			blocks := map[string]Unit{
				"at once":         f.block(0, cat(set, ask, jump(0, len(set)+len(ask), 120))...),
				"after an access": f.block(0, cat(set, access, ask, jump(0, len(set)+len(access)+len(ask), 120))...),
				"by another":      f.block(0, cat(set, jump(0, len(set), 120))...),
				"with a new RDI":  f.block(0, cat(set, []byte{0xbf, 1, 0, 0, 0}, access, ask, jump(0, len(set)+5+len(access)+len(ask), 120))...),
			}
			for _, a := range values {
				for _, b := range values {
					for where, u := range blocks {
						enter := func() (uint32, *Exit) {
							f.R = [18]uint64{17: page, x86.RSI: 0x9000, x86.RBX: a, x86.RDI: b}
							f.Frame.FlagKind, f.Frame.Budget = FlagsCore, 1000
							return f.run(u.Entry)
						}
						n, x := enter()
						if where == "by another" {
							f.cache.Link(n, other.Entry)
							_, x = enter()
							f.cache.Unlink(n)
						}
						if x.Kind != Edge {
							t.Fatalf("%s %s: %v", o.name, where, x.Kind)
						}
						want := flagsOf(o.op, a, b, 8<<w)
						got := f.R[x86.RAX]>>8&0xd5 | f.R[x86.RCX]&1*x86.FlagOF
						if o.op == '&' { // AF is undefined
							got &^= x86.FlagAF
						}
						if got != want {
							t.Fatalf("%s of %d bits, %#x and %#x, %s: %#x, not %#x", o.name, 8<<w, a, b, where, got, want)
						}
					}
				}
			}
		}
		f.cache.Clear()
		other = f.block(2048, cat(ask, jump(2048, len(ask), 2048+100))...)
	}
}
