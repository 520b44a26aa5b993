package interp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// hostFrame is what the trampoline loads and stores around one instruction.
//
//	0 guest FXSAVE image | 512 host FXSAVE image | 1024 RAX RCX RDX RBX RSI RDI RFLAGS | 1088 memory operand, 640 bytes
type hostFrame struct {
	guest, host [512]byte
	regs        [6]uint64
	flags       uint64
	_           uint64
	mem         [640]byte
}

// host runs single x87 and SSE instructions on the CPU that runs the test.
type host struct {
	frame *hostFrame
	code  []byte
	fn    *uintptr
}

func newHost(t *testing.T) *host {
	t.Helper()
	code, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(code); err != nil {
			t.Error(err)
		}
		if err := unix.Munmap(data); err != nil {
			t.Error(err)
		}
	})
	h := &host{frame: (*hostFrame)(unsafe.Pointer(&data[0])), code: code}
	addr := uintptr(unsafe.Pointer(&code[0]))
	h.fn = &addr
	return h
}

// run executes one instruction with the frame's state.
func (h *host) run(insn []byte) {
	frame := binary.LittleEndian.AppendUint64(nil, uint64(uintptr(unsafe.Pointer(h.frame))))
	code := h.code[:0]
	add := func(b ...byte) { code = append(code, b...) }
	add(0x55, 0x53, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57) // PUSH RBP, RBX, R12-R15
	add(0x49, 0xbf)                                                 // MOV R15, frame
	add(frame...)
	add(0x49, 0x0f, 0xae, 0x87, 0, 2, 0, 0) // FXSAVE64 [R15+512]
	add(0x49, 0x0f, 0xae, 0x0f)             // FXRSTOR64 [R15]
	add(0x41, 0xff, 0xb7, 0x30, 4, 0, 0, 0x9d)
	regs := []byte{0, 1, 2, 3, 6, 7}
	for i, r := range regs {
		add(0x49, 0x8b, 0x87|r<<3, byte(8*i), 4, 0, 0) // MOV r, [R15+1024+8i]
	}
	add(insn...)
	for i, r := range regs {
		add(0x49, 0x89, 0x87|r<<3, byte(8*i), 4, 0, 0)
	}
	add(0x9c, 0x41, 0x8f, 0x87, 0x30, 4, 0, 0)
	add(0x49, 0x0f, 0xae, 0x07)
	add(0x49, 0x0f, 0xae, 0x8f, 0, 2, 0, 0)
	add(0xfc, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5b, 0x5d, 0xc3)
	fn := *(*func())(unsafe.Pointer(&h.fn))
	fn()
}

func (h *host) memAddr() uint64 { return uint64(uintptr(unsafe.Pointer(&h.frame.mem))) }

// encodeRow makes one instruction of the row with random operands; memory is at
// RSI (MASKMOV: RDI).
func encodeRow(r *rand.Rand, row *optab.Row) []byte {
	var code []byte
	switch row.Prefix {
	case optab.P66:
		code = append(code, 0x66)
	case optab.PF3:
		code = append(code, 0xf3)
	case optab.PF2:
		code = append(code, 0xf2)
	}
	switch row.Op {
	case optab.FNSTENV, optab.FNSAVE, optab.FLDENV, optab.FRSTOR:
		if r.IntN(2) == 0 {
			code = append(code, 0x66)
		}
	}
	rex := byte(0)
	gpr := func(args ...optab.Arg) bool {
		for _, a := range row.Args {
			for _, b := range args {
				if a == b {
					return true
				}
			}
		}
		return false
	}
	reg, rm := byte(r.IntN(8)), byte(r.IntN(8))
	if r.IntN(2) == 0 && row.Op >= optab.FirstSSE {
		if !gpr(optab.Gd, optab.Gy, optab.Pq) {
			rex |= byte(r.IntN(2)) << 2
		}
		if !gpr(optab.Ed, optab.Ey) {
			rex |= byte(r.IntN(2))
		}
	}
	if gpr(optab.Gd, optab.Gy) {
		reg &= 3
	}
	if gpr(optab.Ed, optab.Ey) {
		rm &= 3
	}
	if (gpr(optab.Ey, optab.Gy) || gpr(optab.M) && row.Op >= optab.FirstSSE) && r.IntN(2) == 0 || row.Flags&optab.RexW != 0 {
		rex |= 8
	}
	mem := row.Mod == optab.ModMem || row.Mod == optab.ModAny && r.IntN(2) == 0
	if row.Op >= optab.FirstSSE || row.Mod == optab.ModMem {
		if mem {
			rm, rex = 6, rex&^1
		}
	}
	if row.Digit >= 0 {
		reg, rex = byte(row.Digit), rex&^4
	}
	if row.RM >= 0 {
		rm = byte(row.RM)
	}
	if row.Op == optab.PINSRW || row.Op == optab.PINSRB || row.Op == optab.PEXTRW && row.Map == optab.Map0F3A || row.Op == optab.PEXTRB {
		rex &^= 8
	}
	if rex != 0 {
		code = append(code, rex|0x40)
	}
	switch row.Map {
	case optab.Map0F:
		code = append(code, 0x0f)
	case optab.Map0F38:
		code = append(code, 0x0f, 0x38)
	case optab.Map0F3A:
		code = append(code, 0x0f, 0x3a)
	}
	code = append(code, row.Opcode)
	if row.Mod != optab.ModNone {
		mod := byte(0xc0)
		if mem {
			mod = 0
		}
		code = append(code, mod|reg<<3|rm)
	}
	if gpr(optab.Ib) {
		code = append(code, byte(r.Uint32()))
	}
	return code
}

// skipHost lists what this test cannot run on the host: other tests do.
func skipHost(op optab.Op) bool {
	switch op {
	case optab.XSAVEOPT, optab.XSAVEC, optab.XSAVES, optab.XRSTORS,
		optab.PCLMULQDQ, optab.AESENC, optab.AESENCLAST, optab.AESDEC, optab.AESDECLAST, optab.AESIMC, optab.AESKEYGENASSIST,
		optab.FNENI, optab.FNDISI, optab.FNSETPM:
		return true
	}
	return false
}

// maskMemory blanks where vendors differ in an image stored: the last
// instruction's address, MXCSR_MASK and which components count as in use.
func maskMemory(in *decode.Inst, p *[640]byte) {
	switch in.Op {
	case optab.FNSTENV, optab.FNSAVE:
		if in.OpSize == 2 {
			clear(p[6:14])
		} else {
			clear(p[12:28])
		}
	case optab.FXSAVE, optab.XSAVE:
		clear(p[6:24])
		clear(p[28:32])
		p[512] = 0
	}
}

// stateOperand fills mem with an image that in may load.
func stateOperand(r *rand.Rand, c *CPU, in *decode.Inst, mem *[640]byte) {
	switch in.Op {
	case optab.LDMXCSR:
		put32(mem[:], mxcsrReset|uint32(r.IntN(4))<<13|uint32(r.IntN(128)))
	case optab.FLDENV, optab.FRSTOR, optab.FXRSTOR, optab.XRSTOR:
		saved, xmm := c.fpu, *c.fpu.xmm
		randomFPU(r, c, false)
		if in.Op == optab.FXRSTOR || in.Op == optab.XRSTOR {
			c.putX87Image(mem[:], true)
			c.putMXCSR(mem[:])
			c.putXMM(mem[:], 16)
			if in.Op == optab.XRSTOR {
				mem[512] = uint8(r.IntN(4))
			}
		} else {
			c.putEnv(mem[:], in)
			n := envSize(in)
			for i := range uint8(8) {
				putF80(mem[n+10*int(i):], *c.fpu.st(i))
			}
		}
		c.fpu, *c.fpu.xmm = saved, xmm
	}
}

var interesting = []uint64{0, 1 << 63, 1, 0x3ff0000000000000, 0x3f8000003f800000, 0x7ff0000000000000, 0x7ff8000000000001, 0x7ff0000000000001,
	0x7f8000007fc00001, 0xff8000017f800000, 0x000fffffffffffff, 0x007fffff00800000, 0x7fefffffffffffff, 0x43e0000000000000, 0x41dfffffffc00000,
	0xc1e0000000200000, 0x4effffff4f000000, 0x8000000080000001, 0xffffffffffffffff, 0x0036000000000000, 0x8001800180018001, 0x4140434200416141}

func randomQuad(r *rand.Rand) uint64 {
	switch r.IntN(4) {
	case 0:
		return interesting[r.IntN(len(interesting))]
	case 1:
		return interesting[r.IntN(len(interesting))] ^ uint64(r.IntN(8))
	case 2: // moderate numbers, single or double
		return r.Uint64()&0x807fffff807fffff | uint64(110+r.IntN(36))<<23 | uint64(110+r.IntN(36))<<55
	}
	v := r.Uint64()
	if r.IntN(2) == 0 {
		v = v&^(0x7ff<<52) | uint64(1000+r.IntN(50))<<52
	}
	return v
}

func randomF80(r *rand.Rand) x86.F80 {
	v := x86.F80{Mant: r.Uint64() | 1<<63, SE: uint16(0x3fff-66+r.IntN(132)) | uint16(r.IntN(2))<<15}
	switch r.IntN(8) {
	case 0:
		v.Mant = interesting[r.IntN(len(interesting))]
		v.SE = []uint16{0, 1, 0x7fff, 0x7ffe, 0x3fff, 0x4000}[r.IntN(6)] | uint16(r.IntN(2))<<15
	case 1:
		v = x86.F80{Mant: 1 << 63 >> r.IntN(2) << r.IntN(2) * 3, SE: []uint16{0, 0x7fff, 0x3fff, 0x403e, 0x401e, 0x3ffe}[r.IntN(6)] | uint16(r.IntN(2))<<15}
	case 2:
		v.SE = uint16(r.Uint32())
	case 3:
		v = fp.FromInt80(int64(r.Uint64()) >> r.IntN(64))
	}
	return v
}

// randomFPU gives c a random x87 and SSE state; x87 says which is to be exercised.
func randomFPU(r *rand.Rand, c *CPU, isX87 bool) {
	f := x86.FPU{FCW: 0x7f | uint16(r.IntN(4))<<10 | []uint16{0, 2, 3}[r.IntN(3)]<<8, FTW: 0xff, MXCSR: mxcsrReset}
	f.MXCSR |= uint32(r.IntN(4))<<13 | uint32(r.IntN(64))
	if r.IntN(3) == 0 {
		f.MXCSR |= 1<<6 | uint32(r.IntN(2))<<15
	}
	for i := range f.ST {
		f.ST[i] = randomF80(r)
		f.XMM[i] = [2]uint64{randomQuad(r), randomQuad(r)}
		f.XMM[i+8] = [2]uint64{randomQuad(r), randomQuad(r)}
	}
	if r.IntN(2) == 0 {
		f.FTW = uint8(r.Uint32())
	}
	f.FSW = uint16(r.Uint32()) & (fswTop | fswCC)
	if isX87 && r.IntN(3) == 0 {
		f.FCW &^= uint16(r.IntN(64)) // no exceptions pending: none raised yet
	} else {
		f.FSW |= uint16(r.IntN(128))
	}
	c.loadFPU(&f)
}

// image returns c's FXSAVE image without the instruction's address.
func image(c *CPU) []byte {
	p := make([]byte, 512)
	c.putX87Image(p, true)
	c.putMXCSR(p)
	c.putXMM(p, 16)
	return mask(p)
}

// mask blanks what CPUs differ in: FOP, FIP, FDP and the reserved parts.
func mask(p []byte) []byte {
	clear(p[6:24])
	clear(p[28:32])
	for i := range 8 {
		clear(p[32+16*i+10 : 48+16*i])
	}
	clear(p[416:])
	return p
}

// iterations is how many random instructions of each row the test runs.
const iterations = 200

func TestX87AndSSEAgainstHost(t *testing.T) {
	h := newHost(t)
	c := newTestCPU(t, nil)
	c.CR4 |= x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4OSXSAVE
	c.XCR0 = 3
	r := rand.New(rand.NewPCG(9, 10))
	for _, row := range optab.Rows() {
		if row.Op < optab.FirstX87 || row.VEX() || skipHost(row.Op) {
			continue
		}
		bad := 0
		for range iterations {
			if msg := compareOne(t, r, h, c, &row); msg != "" {
				t.Errorf("%v: %s", row.Op, msg)
				if bad++; bad == 1 {
					break
				}
			}
		}
	}
}

func compareOne(t *testing.T, r *rand.Rand, h *host, c *CPU, row *optab.Row) string {
	code := encodeRow(r, row)
	var in decode.Inst
	if err := decode.Decode(code, decode.Mode64, &in); err != nil {
		return fmt.Sprintf("% x does not decode: %v", code, err)
	}
	randomFPU(r, c, row.Op <= optab.LastX87)
	c.fpu.arith = fp.Arith(r.IntN(2) == 0)
	if inexactSoft(row.Op) {
		c.fpu.arith = fp.Native
	}
	before := image(c)
	copy(h.frame.guest[:], before)
	var mem [640]byte
	for i := 0; i < 64; i += 8 {
		binary.LittleEndian.PutUint64(mem[i:], randomQuad(r))
	}
	if in.Mem && row.Op <= optab.LastX87 && r.IntN(2) == 0 {
		putF80(mem[:], randomF80(r))
	}
	if row.Op == optab.FBLD {
		for i := range mem[:9] {
			mem[i] = uint8(r.IntN(10) | r.IntN(10)<<4)
		}
	}
	stateOperand(r, c, &in, &mem)
	h.frame.mem = mem
	if err := c.cfg.Memory.Write(testData, mem[:]); err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{x86.RAX, x86.RCX, x86.RDX, x86.RBX} {
		c.R[n] = randomQuad(r)
		if r.IntN(2) == 0 {
			c.R[n] = uint64(int64(r.IntN(40) - 20))
		}
		h.frame.regs[i] = c.R[n]
	}
	if in.Op == optab.XSAVE || in.Op == optab.XRSTOR {
		c.R[x86.RAX], c.R[x86.RDX] = uint64(r.IntN(4)), 0
		h.frame.regs[0], h.frame.regs[2] = c.R[x86.RAX], 0
	}
	c.R[x86.RSI], c.R[x86.RDI] = testData, testData
	h.frame.regs[4], h.frame.regs[5] = h.memAddr(), h.memAddr()
	flags := r.Uint64()&statusFlags | 2
	c.setStatus(flags)
	h.frame.flags = flags
	old := c.R
	c.RIP = testCode
	if st := c.exec(&in); st != next {
		return fmt.Sprintf("% x: status %d, exception %+v", code, st, c.exc)
	}
	h.run(code)
	return difference(t, h, c, &in, code, before, old[:4], mem, flags)
}

// inexactSoft reports the operations that x86 CPUs differ in, so software differs from some.
func inexactSoft(op optab.Op) bool {
	switch op {
	case optab.DPPS, optab.DPPD: // in which NaN they choose
		return true
	case optab.RCPPS, optab.RCPSS, optab.RSQRTPS, optab.RSQRTSS, optab.F2XM1, optab.FYL2X, optab.FYL2XP1, optab.FPTAN,
		optab.FPATAN, optab.FSIN, optab.FCOS, optab.FSINCOS:
		return true
	}
	return false
}

func difference(t *testing.T, h *host, c *CPU, in *decode.Inst, code, before []byte, old []uint64, mem [640]byte, flags uint64) string {
	t.Helper()
	want, got := mask(h.frame.guest[:]), image(c)
	where := fmt.Sprintf("% x soft %v, FCW %x FSW %x FTW %x MXCSR %x\nST %x %x\nXMM0 %x, reg %x, rm %x\nmem %x gpr %x flags %x\n", code, c.fpu.arith,
		before[:2], before[2:4], before[4:5], before[24:28], before[32:42], before[48:58], before[160:176],
		before[160+16*int(in.Reg&15):][:16], before[160+16*int(in.RM&15):][:16], mem[:16], old, flags)
	for i := 0; i < 416; i += 8 {
		if !bytes.Equal(want[i:i+8], got[i:i+8]) {
			return fmt.Sprintf("%sat %d: host %x, soft %x", where, i, want[i:i+8], got[i:i+8])
		}
	}
	var after [640]byte
	if err := c.cfg.Memory.Read(testData, after[:]); err != nil {
		t.Fatal(err)
	}
	host := h.frame.mem
	maskMemory(in, &after)
	maskMemory(in, &host)
	for i := 0; i < len(host); i += 8 {
		if !bytes.Equal(host[i:i+8], after[i:i+8]) {
			return fmt.Sprintf("%smemory at %d: host %x, soft %x", where, i, host[i:i+8], after[i:i+8])
		}
	}
	for i, n := range []int{x86.RAX, x86.RCX, x86.RDX, x86.RBX} {
		if c.R[n] != h.frame.regs[i] {
			return fmt.Sprintf("%shost GPR %d %x, soft %x", where, n, h.frame.regs[i], c.R[n])
		}
	}
	if hf, sf := h.frame.flags&statusFlags, c.rflags()&statusFlags; hf != sf {
		return fmt.Sprintf("%shost flags %x, soft %x", where, hf, sf)
	}
	return ""
}
