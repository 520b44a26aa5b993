package interp

import (
	"fmt"
	"testing"

	"berth/x86"
)

// A branch to another page goes where that is mapped now: after INVLPG, in another
// address space, and from another linear address of the branch's own page.
func TestFarBranchFollowsTheMapping(t *testing.T) {
	c, a, b := newTLBTest(t)
	const branch, target = 0x300000, 0x301000
	writeTest(t, c, branch, unhex(t, "e9fb0f0000"))                                                // jmp to where the next page begins
	put := func(gpa uint64, n byte) { writeTest(t, c, gpa, []byte{0xb8, n, 1, 0, 0, 0x0f, 0x0b}) } // mov eax, 0x100+n; ud2
	for i := range uint64(5) {
		put(target+i*0x1000, byte(i))
	}
	for _, s := range []*space{a, b} {
		s.pte(0, branch|7)
		s.pte(8, branch|7)
	}
	a.pte(1, target|7)
	a.pte(9, (target+0x1000)|7)
	b.pte(1, (target+0x2000)|7)
	b.pte(9, (target+0x3000)|7)
	run := func(va, want uint64) {
		t.Helper()
		for range 3 { // found, linked, by the link
			c.RIP, c.R[x86.RAX] = va, 0
			runTest(t, c, false)
			if got := c.R[x86.RAX]; got != want {
				t.Fatalf("from %#x to %#x, want %#x", va, got, want)
			}
		}
	}
	for i := range 6 {
		keep := i > 2 // PCIDs keep what is known of a space
		a.enter(1, keep)
		run(spaceBase, 0x100)
		run(spaceBase+0x8000, 0x101)
		run(spaceBase, 0x100)
		b.enter(2, keep)
		run(spaceBase, 0x102)
		run(spaceBase+0x8000, 0x103)
	}
	b.pte(1, (target+0x4000)|7)
	invlpg(t, c, spaceBase+0x1000)
	run(spaceBase, 0x104)
	run(spaceBase+0x8000, 0x103)
	put(target+0x4000, 5)
	c.dropCode(target+0x4000, 16)
	run(spaceBase, 0x105)
}

// Flags that nobody has stored when an access misses in the TLB are the same after it.
func TestFlagsSurviveAMiss(t *testing.T) {
	const load, flags = "488b1c2500002000", "9c5a" // mov rbx, [testData]; pushf; pop rdx
	for _, hex := range []string{
		"48d1e0", "48f7d8", "83c001", "4885c9", "a801", "f9" + "48ffc0", "f8" + "48ffc8", "4801c9" + "48ffc0",
		"4839c8" + "48ffc1", "4839c8" + "ffc0" + "ffc1", "f9" + "fec0" + "66ffc9", "4839c8" + "48ff042508002000", "f9" + "49ffc6" + "4d31f6",
		"4839c8" + "7502" + "eb00" + "48ffc0", "4839c8" + "48ffc0" + "7600",
	} {
		for i, rax := range []uint64{0, 1, 0x7fffffff_ffffffff, 1 << 63, ^uint64(0), 0xffff_fffe, 0x7fff_ffff, 0x7f} {
			t.Run(fmt.Sprintf("%s/%d", hex, i), func(t *testing.T) {
				var got [2]uint64
				for j, stepping := range []bool{true, false} {
					c := newTestCPU(t, unhex(t, hex+load+"48ffc6"+flags+load+"480fbaf607"+flags))
					c.R[x86.RAX], c.R[x86.RCX], c.R[14] = rax, 1<<63, 5
					runTest(t, c, stepping)
					got[j] = c.R[x86.RDX]
				}
				if got[0] != got[1] {
					t.Errorf("stepped %#x, in a block %#x", got[0], got[1])
				}
			})
		}
	}
}
