package hostcpu

import (
	"encoding/binary"

	"berth/x86"
	"berth/x86/decode"
)

// The addresses a case sees, on the host and in the interpreter. The pages
// around them are not mapped.
const (
	sandboxBase = 0x10000000 // data, read and write
	sandboxSize = 0x2000
	codeBase    = 0x20000000 // code, read and execute; int3 wherever no case is
	codeSize    = 0x10000
	maxCases    = 1024 // in a batch
	codeSlot    = codeSize / maxCases
)

// Selectors, as Linux and the runner set them up.
const (
	selCode64 = 0x33
	selCode32 = 0x23
	selData   = 0x2b
	selCode16 = 0x07
	selData16 = 0x0f
)

// fxSize is how much of an FXSAVE image a State carries: up to and with XMM15.
const fxSize = 416

// ymmSize is the bytes of the upper halves of YMM registers.
const ymmSize = 256

// State is the registers a case starts or ends with.
type State struct {
	GPR            [16]uint64
	RIP            uint64
	RFLAGS         uint64
	FSBase, GSBase uint64
	FX             [fxSize]byte  // FXSAVE64 image
	YMMH           [ymmSize]byte // upper halves of YMM0 to YMM15, where the host has them
}

// Case is a few instructions and the state they start in. In 16- and 32-bit
// modes only the low halves of GPR 0-7 count.
type Case struct {
	Mode  decode.Mode
	Code  []byte // at codeBase + slot*codeSlot
	State State  // RIP: where the slot starts
}

// Result is how a case ended: always in an exception, #BP behind the code if none before.
type Result struct {
	Vector uint8
	Error  uint64
	CR2    uint64 // if Vector is #PF
	State  State
	Memory [sandboxSize]byte
	Stop   string // why the engine gave up, if it did
}

// Engine runs batches: at most maxCases cases, all from the same memory image.
type Engine interface {
	Run(image []byte, cases []Case, results []Result) error
	Close() error
}

// mode's selectors and instruction pointer base.
func selectors(m decode.Mode) (cs, ss uint16) {
	switch m {
	case decode.Mode16:
		return selCode16, selData16
	case decode.Mode32:
		return selCode32, selData
	}
	return selCode64, selData
}

// bases are what the segments of a mode add: code's and data's.
func bases(m decode.Mode) (code, data uint64) {
	if m == decode.Mode16 {
		return codeBase, sandboxBase
	}
	return 0, 0
}

// layCode fills a code region for a batch.
func layCode(code []byte, cases []Case) {
	for i := range code {
		code[i] = 0xcc
	}
	for i := range cases {
		copy(code[i*codeSlot:(i+1)*codeSlot], cases[i].Code)
	}
}

// startRIP is where case i of a batch starts.
func startRIP(i int, m decode.Mode) uint64 {
	base, _ := bases(m)
	return codeBase + uint64(i)*codeSlot - base
}

// fpu converts an FXSAVE image (Intel SDM vol. 1 §10.5.1.1).
func (s *State) fpu() x86.FPU {
	le, p := binary.LittleEndian, s.FX[:]
	f := x86.FPU{
		FCW: le.Uint16(p), FSW: le.Uint16(p[2:]), FTW: p[4], FOP: le.Uint16(p[6:]),
		FIP: le.Uint64(p[8:]), FDP: le.Uint64(p[16:]), MXCSR: le.Uint32(p[24:]),
	}
	for i := range f.ST {
		f.ST[i] = x86.F80{Mant: le.Uint64(p[32+16*i:]), SE: le.Uint16(p[40+16*i:])}
	}
	for i := range f.XMM {
		f.XMM[i] = [2]uint64{le.Uint64(p[160+16*i:]), le.Uint64(p[168+16*i:])}
		f.YMMH[i] = [2]uint64{le.Uint64(s.YMMH[16*i:]), le.Uint64(s.YMMH[16*i+8:])}
	}
	return f
}

func (s *State) setFPU(f *x86.FPU) {
	le, p := binary.LittleEndian, s.FX[:]
	le.PutUint16(p, f.FCW)
	le.PutUint16(p[2:], f.FSW)
	p[4] = f.FTW
	le.PutUint16(p[6:], f.FOP)
	le.PutUint64(p[8:], f.FIP)
	le.PutUint64(p[16:], f.FDP)
	le.PutUint32(p[24:], f.MXCSR)
	for i, st := range f.ST {
		le.PutUint64(p[32+16*i:], st.Mant)
		le.PutUint16(p[40+16*i:], st.SE)
	}
	for i, x := range f.XMM {
		le.PutUint64(p[160+16*i:], x[0])
		le.PutUint64(p[168+16*i:], x[1])
		le.PutUint64(s.YMMH[16*i:], f.YMMH[i][0])
		le.PutUint64(s.YMMH[16*i+8:], f.YMMH[i][1])
	}
}
