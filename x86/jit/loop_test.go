package jit

import (
	"testing"

	"berth/x86"
)

// backTo is Jcc from off, behind n bytes, to a target in the page.
func backTo(cc byte, off, n, to int) []byte { return []byte{0x70 | cc, byte(to - off - n - 2)} }

func TestBudgetEndsALoop(t *testing.T) {
	f := newFake(t)
	always := f.block(0, cat(incRAX, jump(0, 3, 0))...)
	incAndTest := cat(incRAX, []byte{0x48, 0x85, 0xdb}) // test rbx, rbx
	while := f.block(64, cat(incAndTest, backTo(ccZ, 64, 6, 64))...)
	for _, e := range []struct {
		u                     Unit
		target, rounds, spent int64
	}{{always, 0, 51, 2}, {while, 64, 34, 3}} {
		f.R[x86.RAX], f.Frame.Budget = 0, 100
		_, x := f.run(e.u.Entry)
		if x.Kind != Spent || x.Target != e.target || f.R[x86.RAX] != uint64(e.rounds) || f.Frame.Budget != 100-e.rounds*e.spent {
			t.Errorf("%v to %d after %d rounds, %d left", x.Kind, x.Target, f.R[x86.RAX], f.Frame.Budget)
		}
	}
}

// threePages is a loop over [RBX], a page further each round as long as that is below RSI, and what is behind it.
func threePages(behind ...byte) []byte {
	round := []byte{
		0x0f, 0x92, 0xc1, // setb cl
		0x48, 0x8b, 0x13, // mov rdx, [rbx]
		0x0f, 0x92, 0xc5, // setb ch
		0x48, 0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, // add rbx, 0x1000
		0x48, 0x39, 0xf3, // cmp rbx, rsi
	}
	code := cat(round, backTo(2, 0, len(round), 0), behind)
	return cat(code, jump(0, len(code), 100))
}

// enterThreePages has the loop begin with CF clear.
func enterThreePages(f *fake, ram *[pageSize]byte, pages ...uint64) {
	f.R[x86.RBX], f.R[x86.RSI] = 0x5000, 0x8000
	f.Frame.FlagKind, f.Frame.FlagA = FlagsRaw, 0
	for _, p := range pages {
		f.grant(0, p, ram, false)
	}
}

// An access that misses in a later round begins again with the flags that the branch left.
func TestMissInALaterRound(t *testing.T) {
	var ram [pageSize]byte
	f := newFake(t)
	u := f.block(0, threePages()...)
	enterThreePages(f, &ram, 0x5000)
	entry, misses := u.Entry, 0
	for {
		_, x := f.run(entry)
		if x.Kind != Miss {
			if x.Kind != Edge || x.Target != 100 || misses != 2 || f.R[x86.RCX] != 0x101 || f.Frame.Budget != 1000-3*6-1 {
				t.Errorf("%v to %d after %d misses, RCX %#x, %d left", x.Kind, x.Target, misses, f.R[x86.RCX], f.Frame.Budget)
			}
			return
		}
		misses++
		if x.Count != 1 || x.Off != 3 || f.Frame.VA != 0x5000+uint64(misses)*0x1000 {
			t.Fatalf("%+v of %#x", x, f.Frame.VA)
		}
		f.grant(0, f.Frame.VA, &ram, false)
		entry = x.Retry
	}
}

// What stands behind a loop has no say in its later rounds: they use the same TLB and no x87 registers.
func TestBehindALoop(t *testing.T) {
	var ram [pageSize]byte
	f := newFake(t)
	u := f.block(0, threePages(0x0f, 0x01, 0xcb, 0x48, 0x8b, 0x16)...) // stac; mov rdx, [rsi]
	enterThreePages(f, &ram, 0x5000, 0x6000, 0x7000, 0x8000)
	if _, x := f.run(u.Entry); x.Kind != Miss || f.Frame.VA != 0x8000 {
		t.Errorf("STAC: %v of %#x", x.Kind, f.Frame.VA)
	}
	f = newFake(t)
	u = f.block(0, threePages(0xd9, 0xe8)...) // fld1
	enterThreePages(f, &ram, 0x5000)
	_, x := f.run(u.Entry)
	for x.Kind == Miss {
		f.grant(0, f.Frame.VA, &ram, false)
		_, x = f.run(x.Retry)
	}
	if x.Kind != Load || f.Frame.X87 != X87Elsewhere {
		t.Errorf("FLD1: %v, x87 registers %d", x.Kind, f.Frame.X87)
	}
}

// A loop whose block is killed meanwhile ends with the budget and is not entered again.
func TestKilledLoopEnds(t *testing.T) {
	var ram [pageSize]byte
	f := newFake(t)
	code := []byte{0x48, 0x8b, 0x13, 0x48, 0x81, 0xf3, 0x00, 0x10, 0x00, 0x00} // mov rdx, [rbx]; xor rbx, 0x1000
	u := f.block(0, cat(code, jump(0, len(code), 0))...)
	f.R[x86.RBX] = 0x5000
	f.grant(0, 0x5000, &ram, false)
	_, x := f.run(u.Entry)
	if x.Kind != Miss || f.Frame.VA != 0x4000 {
		t.Fatalf("%v of %#x", x.Kind, f.Frame.VA)
	}
	f.cache.Kill(&u)
	f.grant(0, 0x4000, &ram, false)
	if _, x := f.run(x.Retry); x.Kind != Spent || f.Frame.Budget >= 0 || f.Frame.Budget < -3 {
		t.Errorf("%v, %d left", x.Kind, f.Frame.Budget)
	}
	if _, x := f.run(u.Entry); x.Kind != Dead {
		t.Error(x.Kind)
	}
}
