package kvm

import (
	"fmt"

	"berth/kvmapi"
	"berth/x86"
)

// feature is bits of one CPUID register: EAX, EBX, ECX, EDX are 0 to 3.
type feature struct {
	function, index uint32
	register        int
	bits            uint32
}

// levelFeatures are what a level has and the one below it has not (x86-64 psABI
// §3.1.1; Intel SDM vol. 2A, CPUID; AMD APM vol. 3 appendix E). Those above
// x86.LevelV3 are AVX-512, AMX and the VEX extensions that came with and after them;
// with those of v3 go AMD's that need YMM.
var levelFeatures = map[x86.Level][]feature{
	x86.LevelV2: {
		{1, 0, 2, 1<<0 | 1<<9 | 1<<13 | 1<<19 | 1<<20 | 1<<23}, // SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT
		{0x80000001, 0, 2, 1 << 0},                             // LAHF64
	},
	x86.LevelV3: {
		{1, 0, 2, 1<<12 | 1<<22 | 1<<28 | 1<<29}, // FMA, MOVBE, AVX, F16C
		{7, 0, 1, 1<<3 | 1<<5 | 1<<8},            // BMI1, AVX2, BMI2
		{0x80000001, 0, 2, 1 << 5},               // LZCNT
	},
}

var aboveV3 = []feature{
	{7, 0, 1, 1<<16 | 1<<17 | 1<<21 | 1<<26 | 1<<27 | 1<<28 | 1<<30 | 1<<31},
	{7, 0, 2, 1<<1 | 1<<6 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12 | 1<<14},
	{7, 0, 3, 1<<2 | 1<<3 | 1<<8 | 1<<22 | 1<<23 | 1<<24 | 1<<25},
	{7, 1, 0, 1<<0 | 1<<1 | 1<<2 | 1<<4 | 1<<5 | 1<<21 | 1<<23},
	{7, 1, 3, 1<<4 | 1<<5 | 1<<8 | 1<<10 | 1<<19 | 1<<21},
	{0x80000001, 0, 2, 1<<11 | 1<<16}, // XOP, FMA4
}

// xstateOther are the components of XSAVE that hold no vector registers: PKRU.
const xstateOther = 1 << 9

// Limit has the guests of VMs made from now on see nothing of the levels above
// level. It fails if the host does not have level.
func (a *Accelerator) Limit(level x86.Level) error {
	for l := x86.LevelV2; l <= level; l++ {
		for _, f := range levelFeatures[l] {
			if e := findLeaf(a.cpuid, f.function, f.index); e == nil || *register(e, f.register)&f.bits != f.bits {
				return fmt.Errorf("kvm: this host's CPU is below x86-64-v%d", level)
			}
		}
	}
	limit(a.cpuid, level)
	return nil
}

// limit removes what is above level.
func limit(c *kvmapi.CPUID2, level x86.Level) {
	remove, components := aboveV3, uint32(xstateX87|xstateSSE|xstateAVX|xstateOther)
	for l := level + 1; l <= x86.LevelV3; l++ {
		remove = append(remove[:len(remove):len(remove)], levelFeatures[l]...)
		components &^= xstateAVX
	}
	for _, f := range remove {
		if e := findLeaf(c, f.function, f.index); e != nil {
			*register(e, f.register) &^= f.bits
		}
	}
	kept, size := c.Entries[:0], uint32(xsaveYMM)
	for _, e := range c.Entries[:c.Nent] {
		switch {
		case e.Function == 0x1d, e.Function == 0x1e, e.Function == 0x24: // AMX, AVX10
			continue
		case e.Function == 0xd && e.Index >= 2 && e.ECX&1 == 0: // of XCR0
			if e.Index > 31 || components>>e.Index&1 == 0 {
				continue
			}
			size = max(size, e.EBX+e.EAX)
		}
		kept = append(kept, e)
	}
	c.Nent = uint32(len(kept))
	if e := findLeaf(c, 0xd, 0); e != nil {
		e.EAX, e.EDX = e.EAX&components, 0
		e.EBX, e.ECX = min(e.EBX, size), size
	}
}

// findLeaf returns a leaf, or nil.
func findLeaf(c *kvmapi.CPUID2, function, index uint32) *kvmapi.CPUIDEntry2 {
	for i := range c.Entries[:c.Nent] {
		if e := &c.Entries[i]; e.Function == function && e.Index == index {
			return e
		}
	}
	return nil
}

func register(e *kvmapi.CPUIDEntry2, n int) *uint32 {
	return [...]*uint32{&e.EAX, &e.EBX, &e.ECX, &e.EDX}[n]
}
