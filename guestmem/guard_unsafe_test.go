package guestmem

import (
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"unsafe"
)

// faults reports whether reading and writing the byte at p both end in SIGSEGV.
func faults(p unsafe.Pointer) bool {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	try := func(access func()) (faulted bool) {
		defer func() { faulted = recover() != nil }()
		access()
		return false
	}
	var sink byte
	return try(func() { sink = *(*byte)(p) }) && try(func() { *(*byte)(p) = sink + 1 })
}

// What lies beside a region cannot be touched, as far as an access that went
// wrong may reach.
func TestGuardsAroundRegions(t *testing.T) {
	m := New()
	defer m.Close()
	for _, size := range []uint64{PageSize, 3 * hugePage} {
		gpa := size << 10
		r, err := m.AddRAM(gpa+5*PageSize, size)
		if err != nil {
			t.Fatal(err)
		}
		first := unsafe.Pointer(&r.Host[0])
		for _, off := range []int{-1, -PageSize, -guard, int(size), int(size) + PageSize - 1, int(size) + guard - 1} {
			if !faults(unsafe.Add(first, off)) {
				t.Errorf("a region of 0x%x bytes: byte %d can be touched", size, off)
			}
		}
		for _, off := range []int{0, int(size) - 1} {
			if faults(unsafe.Add(first, off)) {
				t.Errorf("a region of 0x%x bytes: byte %d cannot be touched", size, off)
			}
		}
		if (uint64(r.HostAddr())-r.GPA)%hugePage != 0 {
			t.Errorf("RAM at 0x%x lies at 0x%x: no huge page of the host's backs one of the guest's", r.GPA, r.HostAddr())
		}
	}
}

// Close gives back the guards too.
func TestCloseUnmapsTheGuards(t *testing.T) {
	before := addressSpace(t)
	for range 100 {
		m := New()
		if _, err := m.AddRAM(0, PageSize); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if grown := addressSpace(t) - before; grown >= 100*guard {
		t.Errorf("100 regions opened and closed: the process has %d MiB of addresses more", grown>>20)
	}
}

// addressSpace returns how many bytes of addresses the process uses.
func addressSpace(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var pages int
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
