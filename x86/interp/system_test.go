package interp

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"berth/x86"
)

// systemCode are instructions of operating systems, and a few others between them.
var systemCode = []string{
	"0f01f8", "fb", "fa", "0f01cb", "0f01ca", "9d", "9c", // swapgs, sti, cli, stac, clac, popf, pushf
	"f3480faec0", "f30faec9", "f3490faed2", "f3480faed8", "f30faed0", // rdfsbase rax, rdgsbase ecx, wrfsbase r10, wrgsbase rax, wrfsbase eax
	"0f20c1", "410f20d7", "0f20d8", "0f20e2", // mov rcx, cr0; mov r15, cr2; mov rax, cr3; mov rdx, cr4
	"f390", "668cd9", "8cd0", "418ce3", // pause; mov cx, ds; mov eax, ss; mov r11d, fs
	"0f06", "0f000b", // clts; str [rbx]: both by definition
	"4801c8", "4839c8", "488903", "488b03", "65488b02", "90", "f8", "ffc1", "6690",
	"50", "58", // push rax, pop rax
	"0f05", "480f07", // syscall, sysretq
}

const systemCases = 250

// flagBits are those that a test may set.
const flagBits = statusFlags | x86.FlagIF | x86.FlagDF | x86.FlagIOPL | x86.FlagNT | x86.FlagAC | x86.FlagID | x86.FlagVIF | x86.FlagVIP

// systemProgram returns a few instructions. Some push flags for POPF to load.
func systemProgram(r *rand.Rand) (code []byte) {
	for range 1 + r.IntN(10) {
		p := systemCode[r.IntN(len(systemCode))]
		if p == "9d" && r.IntN(4) > 0 {
			code = append(code, 0x68)
			code = binary.LittleEndian.AppendUint32(code, r.Uint32()&flagBits|r.Uint32()&x86.FlagRF)
		}
		code = append(code, unhexString(p)...)
	}
	return code
}

func unhexString(s string) []byte {
	p := make([]byte, 0, len(s)/2)
	for i := 0; i < len(s); i += 2 {
		digit := func(c byte) byte { return c&15 + c>>6*9 }
		p = append(p, digit(s[i])<<4|digit(s[i+1]))
	}
	return p
}

const testFar = testCode + 0x3000 // where SYSCALL and SYSRET go

// systemState gives a CPU the state that a seed means.
func setUpSystem(c *CPU, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	maybe := func(bit uint64) uint64 { return bit * uint64(r.IntN(2)) }
	often := func(bit uint64) uint64 { return bit * uint64(min(1, r.IntN(8))) }
	cpl := uint8(r.IntN(5) / 3 * 3)
	if r.IntN(16) == 0 {
		cpl = 1
	}
	c.CR0 |= maybe(x86.CR0AM) | maybe(x86.CR0TS)
	c.CR4 |= maybe(x86.CR4SMAP) | often(x86.CR4FSGSBASE)
	c.EFER |= often(x86.EFERSCE)
	for s := range 6 {
		c.Seg[s].Selector = c.Seg[s].Selector&^3 | uint16(cpl)
		c.Seg[s].Attr |= x86.Attr(cpl) << 5
	}
	address := func() uint64 {
		return [...]uint64{testFar, 0xffff800000000000, 1 << 47, testFar + 1}[r.IntN(4)]
	}
	c.Seg[x86.GS].Base = uint64(r.IntN(2) * 64)
	c.Frame.KernelGSBase, c.Frame.STAR, c.Frame.FMASK = address(), r.Uint64(), maybe(0x257fd5)|r.Uint64()&flagBits
	c.Frame.LSTAR = testFar
	c.Frame.Blocked = r.IntN(4) == 0
	c.Frame.Pauses = int32(r.IntN(3))
	c.CPL = cpl
	c.R = [18]uint64{
		x86.RSP: testStack, x86.RBX: testData, x86.RCX: testFar, x86.RAX: address(), x86.RDX: testData,
		x86.R10: address(), x86.R11: r.Uint64() & flagBits, x86.R15: 5,
	}
	if r.IntN(8) == 0 {
		c.R[x86.RCX] = address()
	}
	flags := r.Uint64() & flagBits &^ (x86.FlagVIF | x86.FlagVIP)
	if r.IntN(2) == 0 {
		flags &= statusFlags | x86.FlagIF | x86.FlagAC
	}
	c.stateChanged(flags | x86.FlagR1)
	c.Pending = 0
	for _, gpa := range []uint64{testStack - 0x200, testData} {
		if err := c.cfg.Memory.Write(gpa, make([]byte, 0x400)); err != nil {
			panic(err)
		}
	}
}

// TestSystemInstructionsAgree: system instructions do the same however they run.
func TestSystemInstructionsAgree(t *testing.T) {
	for seed := range uint64(systemCases) {
		code := systemProgram(rand.New(rand.NewPCG(seed, 0)))
		var states [2]x86.State
		var exceptions [2]exception
		var posted [2]uint32
		var more [2][4]uint64
		for i := range 2 {
			c := newTestCPU(t, code)
			c.cfg.APIC, c.sys.msrs.tscOffset = oneInterrupt{}, 0
			c.cfg.TSC = func() uint64 { return 0 }
			if err := c.cfg.Memory.Write(testFar, unhex(t, "9090909090909090480fc80f0b")); err != nil { // bswap rax; ud2
				t.Fatal(err)
			}
			setUpSystem(c, seed)
			for pass := range 3 - i { // the second time nothing has to be translated
				if pass > 0 {
					setUpSystem(c, seed)
					c.RIP = testCode
					c.sys.shadow = shadowNone
				}
				posted[i] = runPosted(c, i == 1)
			}
			c.GetState(&states[i])
			states[i].Events = x86.Events{} // a shadow in which nothing waits need not be noted
			exceptions[i] = c.exc
			more[i] = [4]uint64{uint64(c.MMUIndex), uint64(c.CPL), uint64(c.Frame.Pauses), b2u(c.Frame.Blocked)}
			for s := range 2 {
				if c.SegBase[x86.FS+s] != c.Seg[x86.FS+s].Base {
					t.Errorf("seed %d: base of segment %d", seed, x86.FS+s)
				}
			}
		}
		if diff := stateDiff(&states[0], &states[1]); diff != "" || exceptions[0] != exceptions[1] || posted[0] != posted[1] || more[0] != more[1] {
			t.Fatalf("seed %d, code %x: blocks and steps differ: %s\n%+v\n%+v\n%v\n%v", seed, code, diff, exceptions[0], exceptions[1], more[0], more[1])
		}
	}
}

// runPosted is runToFault that returns what was posted to the vCPU, which hears of none of it.
func runPosted(c *CPU, stepping bool) (posted uint32) {
	for {
		var st status
		if stepping {
			st = c.step()
		} else {
			st = c.runAhead()
		}
		posted |= c.Pending
		c.Pending, c.sys.shadow = 0, shadowNone
		if st == faulted || st == stopped {
			return posted
		}
	}
}

// stateDiff names what differs.
func stateDiff(a, b *x86.State) string {
	a.FPU, b.FPU = x86.FPU{}, x86.FPU{}
	a.MSRs, b.MSRs = append(a.MSRs[:0:0], a.MSRs...), append(b.MSRs[:0:0], b.MSRs...)
	for i := range a.MSRs {
		if a.MSRs[i] != b.MSRs[i] {
			return "an MSR"
		}
	}
	a.MSRs, b.MSRs = nil, nil
	switch {
	case a.GPR != b.GPR:
		return "general registers"
	case a.RIP != b.RIP:
		return "RIP"
	case a.RFLAGS != b.RFLAGS:
		return "RFLAGS"
	case a.Seg != b.Seg:
		return "segments"
	case a.CR0 != b.CR0 || a.CR2 != b.CR2 || a.CR4 != b.CR4:
		return "control registers"
	}
	return ""
}

// line is an APIC with one interrupt, of vector 0x20, that the test raises.
type line struct {
	oneInterrupt
	up *atomic.Bool
}

func (l line) Deliverable() bool          { return l.up.Load() }
func (l line) Acknowledge() (uint8, bool) { return 0x20, l.up.CompareAndSwap(true, false) }

const (
	testGDT     = 0x9000
	testIDT     = 0xa000
	testHandler = testCode + 0x2000
)

// withInterrupts gives the CPU an interrupt line, whose handler it runs.
func withInterrupts(t *testing.T, c *CPU, handler string) line {
	t.Helper()
	l := line{up: new(atomic.Bool)}
	c.cfg.APIC = l
	c.GDT, c.IDT = x86.Table{Base: testGDT, Limit: 23}, x86.Table{Base: testIDT, Limit: 0x20*16 + 15}
	put := func(gpa, v uint64) {
		if err := c.cfg.Memory.Store64(gpa, v); err != nil {
			t.Fatal(err)
		}
	}
	put(testGDT+8, 0xaf9b000000ffff)
	put(testGDT+16, 0xcf93000000ffff)
	put(testIDT+0x20*16, testHandler&0xffff|8<<16|0x8e<<40|testHandler>>16<<48)
	if err := c.cfg.Memory.Write(testHandler, unhex(t, handler)); err != nil {
		t.Fatal(err)
	}
	return l
}

// runUntil runs the CPU until it shuts down, which takes no longer than d.
func runUntil(t *testing.T, c *CPU, d time.Duration) {
	t.Helper()
	late := time.AfterFunc(d, c.Kick)
	defer late.Stop()
	if e := c.Run(); e.Reason != Shutdown {
		t.Fatalf("exit %+v at RIP %#x", e, c.RIP)
	}
}

// TestInterruptAfterSTI: an interrupt that comes at any time in a loop which has IF set
// for one instruction is taken, and not before the instruction behind STI.
func TestInterruptAfterSTI(t *testing.T) {
	for i := range 40 {
		// l: sti; inc eax; cli; inc ebx; jmp l
		c := newTestCPU(t, unhex(t, "fbffc0faffc3ebf8"))
		l := withInterrupts(t, c, "0f0b") // ud2: there is no gate for it
		go func() {
			time.Sleep(time.Duration(i) * 50 * time.Microsecond)
			l.up.Store(true)
			c.Interrupt()
		}()
		runUntil(t, c, 20*time.Second)
		rip, err := c.cfg.Memory.Load64(testStack - 40)
		if err != nil || rip != testCode+3 {
			t.Fatalf("interrupted at %#x: %v", rip, err)
		}
	}
}

// TestNoWakeUpIsLost: a guest that looks for work, and halts with STI; HLT when there is
// none, hears of each interrupt.
func TestNoWakeUpIsLost(t *testing.T) {
	// l: cli; cmp qword [rbx], 0; jne out; sti; hlt; jmp l
	// out: mov qword [rbx], 0; sti; nop; dec ecx; jnz l
	c := newTestCPU(t, unhex(t, "fa48833b007504fbf4ebf548c70300000000fb90ffc975e8"))
	l := withInterrupts(t, c, "48c70301000000"+"48cf") // mov qword [rbx], 1; iretq
	c.R[x86.RBX], c.R[x86.RCX] = testData, 3000
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			default:
				if l.up.CompareAndSwap(false, true) {
					c.Interrupt()
				}
				yield()
			}
		}
	}()
	runUntil(t, c, 60*time.Second)
	close(ended)
	if c.R[x86.RCX] != 0 {
		t.Errorf("%d left", c.R[x86.RCX])
	}
}
