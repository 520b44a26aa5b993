package hostcpu

import (
	"encoding/binary"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// Sequences of the soft engine alone may run at CPL 0 as well, and change between
// privileges: SYSCALL's handler goes back to the code as it is, SYSRET and IRET leave it.

// gpaSeqSyscall is where LSTAR points: jmp rcx.
const gpaSeqSyscall = gpaStubs + 0xf00

// kernelMSRs are what SYSCALL, SYSRET and SWAPGS need.
var kernelMSRs = []x86.MSR{
	{Index: x86.MSRSTAR, Value: 0x10<<32 | 0x23<<48}, {Index: x86.MSRLSTAR, Value: monitorBase + gpaSeqSyscall},
	{Index: x86.MSRKernelGSBase, Value: 0x100},
}

// enterKernel has a state be at CPL 0.
func enterKernel(st *x86.State) {
	st.Seg[x86.CS].Selector, st.Seg[x86.SS].Selector = 0x10, 0x18
	for _, n := range []int{x86.CS, x86.SS} {
		st.Seg[n].Attr &^= 3 << 5
	}
}

// kernelSkips reports what random code does not have at CPL 0.
func kernelSkips(in *decode.Inst) bool {
	switch in.Op {
	case optab.IN, optab.OUT, optab.INS, optab.OUTS, optab.MOVSEG, optab.POPSEG, optab.HLT:
		return true
	}
	return in.Row.Flags&optab.Privileged != 0
}

// system adds a few instructions that belong to a kernel; at CPL 3 most fault.
func (q *seqGen) system() {
	if q.avoid(x86.RAX) || q.avoid(x86.RCX) || q.avoid(x86.RDX) || q.s.Mode != decode.Mode64 {
		return
	}
	small := func() uint32 { return uint32(16 * q.rng.IntN(32)) }
	switch q.rng.IntN(15) {
	case 0, 1: // to CPL 0
		q.define()
		q.emit([]byte{0x0f, 0x05})
		q.emit(movImm(x86.RCX, 1)) // no address of code
	case 2: // to CPL 3
		q.meet()
		l := q.newLabel()
		q.add(seqInst{code: movImm(x86.RCX, 0), ref: refAbs4, lab: l})
		q.emit([]byte{0x41, 0xbb, byte(q.rng.Uint32()) & 0xd5, 2, 0, 0}) // mov r11d
		q.emit([]byte{0x48, 0x0f, 0x07})
		q.bind(l)
		q.define()
		q.forget()
		q.emit(movImm(x86.RCX, 1))
	case 3, 4:
		q.iret()
	case 5, 6:
		q.emit([]byte{0x0f, 0x01, 0xf8}) // swapgs
	case 7:
		q.emit(movImm(x86.RCX, pickOf(q.rng, []uint32{x86.MSRKernelGSBase, x86.MSRGSBase, x86.MSRFSBase})))
		q.emit(movImm(x86.RAX, small()))
		q.emit(movImm(x86.RDX, 0))
		q.emit([]byte{0x0f, 0x30})
	case 8:
		q.emit(movImm(x86.RCX, pickOf(q.rng, []uint32{x86.MSRKernelGSBase, x86.MSRGSBase, x86.MSRLSTAR, x86.MSRTSC, 0x123})))
		q.emit([]byte{0x0f, 0x32})
	case 9:
		q.emit([]byte{pickOf(q.rng, []byte{0xfa, 0xfb})}) // cli, sti
	case 10:
		q.emit([]byte{0x0f, 0x20, pickOf(q.rng, []byte{0xd8, 0xe0, 0xc0, 0xd0})}) // mov rax, cr
	case 11: // mov rax, cr3; mov cr3, rax
		q.emit([]byte{0x0f, 0x20, 0xd8})
		q.emit([]byte{0x0f, 0x22, 0xd8})
	case 12:
		q.emit([]byte{0x0f, 0x06})                                                                    // clts
		q.emit(pickOf(q.rng, [][]byte{{0x0f, 0x31}, {0x0f, 0xa2}, {0x0f, 0x01, 0xd0}, {0x0f, 0x09}})) // rdtsc, cpuid, xgetbv, wbinvd
		q.clobber(x86.RBX)
	default:
		q.remap()
	}
	for _, r := range []uint8{x86.RAX, x86.RCX, x86.RDX, x86.R11} {
		q.clobber(r)
	}
}

// iret adds an IRET to the next instruction.
func (q *seqGen) iret() {
	if q.ptr[1] == x86.RSP {
		return
	}
	q.meet()
	l := q.newLabel()
	cs, ss := byte(0x10), byte(0x18)
	if q.chance(40) {
		cs, ss = 0x33, 0x2b
	}
	q.emit([]byte{0x48, 0x89, 0xe0}) // mov rax, rsp
	q.emit([]byte{0x6a, ss})
	q.emit([]byte{0x50})
	q.emit(le32([]byte{0x68}, 0x202|q.rng.Uint32()&0xd5))
	q.emit([]byte{0x6a, cs})
	q.add(seqInst{code: []byte{0x68, 0, 0, 0, 0}, ref: refAbs4, lab: l})
	q.emit([]byte{0x48, 0xcf})
	q.bind(l)
	q.define()
	q.forget()
}

// remap changes what a page of the sandbox, or of code's alias, may be used for, and has
// the processor forget it.
func (q *seqGen) remap() {
	page := uint64(pickOf(q.rng, []int{0, 1, 2, 0x110, 0x111, 0x112, 0x113}))
	q.emit(binary.LittleEndian.AppendUint64([]byte{0x48, 0xb8}, monitorBase+gpaDataPT+8*page)) // mov rax
	q.emit([]byte{0x80, 0x30, pickOf(q.rng, []byte{2, 2, 4, 1, 0x20, 0x40, 0x60})})            // xor byte [rax]
	q.undef = af
	q.emit(movImm(x86.RAX, uint32(sandboxBase+page<<12)+uint32(q.rng.IntN(4096))))
	if q.chance(80) {
		q.emit([]byte{0x0f, 0x01, 0x38}) // invlpg
		return
	}
	q.emit([]byte{0x0f, 0x20, 0xd8})
	q.emit([]byte{0x0f, 0x22, 0xd8})
}
