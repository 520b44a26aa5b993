package kvm

import (
	"testing"

	"berth/kvmapi"
	"berth/x86"
)

// everything is a CPU with all feature bits, and XSAVE of x87, SSE, AVX, AVX-512 and PKRU.
func everything() *kvmapi.CPUID2 {
	c := &kvmapi.CPUID2{}
	for _, e := range []kvmapi.CPUIDEntry2{
		{Function: 1, EAX: ^uint32(0), EBX: ^uint32(0), ECX: ^uint32(0), EDX: ^uint32(0)},
		{Function: 7, EAX: 1, EBX: ^uint32(0), ECX: ^uint32(0), EDX: ^uint32(0)},
		{Function: 7, Index: 1, EAX: ^uint32(0), EDX: ^uint32(0)},
		{Function: 0xd, EAX: 0x2e7, EBX: 2696, ECX: 2696},
		{Function: 0xd, Index: 1, EAX: 0xf},
		{Function: 0xd, Index: 2, EAX: 256, EBX: 576},
		{Function: 0xd, Index: 5, EAX: 64, EBX: 1088},
		{Function: 0xd, Index: 6, EAX: 512, EBX: 1152},
		{Function: 0xd, Index: 7, EAX: 1024, EBX: 1664},
		{Function: 0xd, Index: 9, EAX: 8, EBX: 2688},
		{Function: 0x1d, EAX: 1},
		{Function: 0x80000001, ECX: ^uint32(0), EDX: ^uint32(0)},
	} {
		c.Entries[c.Nent] = e
		c.Nent++
	}
	return c
}

func TestLimit(t *testing.T) {
	for _, tc := range []struct {
		level      x86.Level
		components uint32
		ecx1, ebx7 uint32 // some that stay or go
	}{
		{x86.LevelV3, 0x207, 1<<28 | 1<<20, 1 << 5},
		{x86.LevelV2, 0x203, 1 << 20, 0},
		{x86.LevelV1, 0x203, 0, 0},
	} {
		a := &Accelerator{cpuid: everything()}
		if err := a.Limit(tc.level); err != nil {
			t.Fatal(err)
		}
		leaf := func(function, index uint32) kvmapi.CPUIDEntry2 {
			if e := findLeaf(a.cpuid, function, index); e != nil {
				return *e
			}
			return kvmapi.CPUIDEntry2{}
		}
		if e := leaf(1, 0); e.ECX&(1<<28|1<<20) != tc.ecx1 || e.EDX != ^uint32(0) {
			t.Errorf("v%d: leaf 1 %+v", tc.level, e)
		}
		if e := leaf(7, 0); e.EBX&(1<<5|1<<16) != tc.ebx7 || e.EBX&1 == 0 {
			t.Errorf("v%d: leaf 7 %+v", tc.level, e)
		}
		if e := leaf(0xd, 0); e.EAX != tc.components || e.ECX != 2696 {
			t.Errorf("v%d: leaf 0xd %+v", tc.level, e)
		}
		if e := leaf(0xd, 2); e.EAX != 256*(tc.components>>2&1) {
			t.Errorf("v%d: leaf 0xd.2 %+v", tc.level, e)
		}
		if leaf(0xd, 5).EAX|leaf(0x1d, 0).EAX != 0 || leaf(0xd, 1).EAX != 0xf || leaf(0xd, 9).EAX != 8 {
			t.Errorf("v%d: AVX-512 or AMX is left, or too little", tc.level)
		}
	}
}

// A host below the level is refused.
func TestLimitRefuses(t *testing.T) {
	a := &Accelerator{cpuid: everything()}
	findLeaf(a.cpuid, 7, 0).EBX &^= 1 << 8 // BMI2
	if err := a.Limit(x86.LevelV3); err == nil {
		t.Error("no BMI2, and v3 is granted")
	}
	if err := a.Limit(x86.LevelV2); err != nil {
		t.Error(err)
	}
}
