package interp

import (
	"os"
	"testing"

	"berth/guestmem"
	"berth/x86"
	"berth/x86/jit"
)

// Where newTestCPU puts things. Everything below 16 MiB is RAM, mapped onto
// itself by 2 MiB pages, writable, user-accessible.
const (
	testTables = 0x1000
	testStack  = 0x80000
	testCode   = 0x100000
	testData   = 0x200000
	testRAM    = 16 << 20
)

// newTestCPU returns a CPU in flat 64-bit mode at CPL 0, about to run code at
// testCode with RSP at testStack. UD2 follows the code: see runTest.
// translate has the tests run translated code where they run 64-bit code: TestMain
// runs them all both ways.
var translate bool

func TestMain(m *testing.M) {
	status := m.Run()
	if status == 0 && jit.Available() {
		translate = true
		println("the same, translated")
		status = m.Run()
	}
	os.Exit(status)
}

func newTestCPU(t testing.TB, code []byte) *CPU {
	t.Helper()
	return newTestCPUOf(t, code, 0)
}

// newTestCPUOf is newTestCPU of a level.
func newTestCPUOf(t testing.TB, code []byte, level x86.Level) *CPU {
	t.Helper()
	mem := guestmem.New()
	if _, err := mem.AddRAM(0, testRAM); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Memory: mem, Translate: translate, Level: level})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
	})
	put := func(gpa, v uint64) {
		if err := mem.Store64(gpa, v); err != nil {
			t.Fatal(err)
		}
	}
	put(testTables, testTables+0x1000|7)
	put(testTables+0x1000, testTables+0x2000|7)
	for i := range uint64(testRAM >> 21) {
		put(testTables+0x2000+8*i, i<<21|0x87)
	}
	if err := mem.Write(testCode, append(append([]byte{}, code...), 0x0f, 0x0b)); err != nil {
		t.Fatal(err)
	}
	c.CR0, c.CR4, c.EFER, c.CR3 = x86.CR0PE|x86.CR0PG|x86.CR0NE, x86.CR4PAE, x86.EFERLME|x86.EFERLMA, testTables
	data := x86.AttrP | x86.AttrS | x86.AttrRW | x86.AttrAccessed | x86.AttrDB | x86.AttrG
	for s := range c.Seg {
		c.Seg[s] = x86.Segment{Selector: 16, Limit: 0xffffffff, Attr: data}
	}
	c.Seg[x86.CS] = x86.Segment{Selector: 8, Limit: 0xffffffff, Attr: data&^x86.AttrDB | x86.AttrCode | x86.AttrL}
	c.IDT, c.GDT = x86.Table{}, x86.Table{}
	c.stateChanged(x86.FlagR1)
	c.R = [18]uint64{x86.RSP: testStack}
	c.RIP = testCode
	c.Pending = 0
	return c
}

// runTest runs until an instruction faults, with blocks or one instruction at a
// time, and fails unless that is the UD2 after the code.
func runTest(t testing.TB, c *CPU, stepping bool) {
	t.Helper()
	if st := runToFault(c, stepping); st != faulted || c.exc.vector != x86.UD {
		t.Fatalf("status %d, exception %+v at RIP %#x (%s)", st, c.exc, c.RIP, c.exit.Detail)
	}
}

func runToFault(c *CPU, stepping bool) status {
	for {
		var st status
		if stepping {
			st = c.step()
		} else {
			st = c.runAhead()
		}
		if st == faulted || st == stopped {
			return st
		}
	}
}
