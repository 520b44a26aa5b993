package kvm

import (
	"encoding/binary"
	"fmt"

	"berth/kvmapi"
	"berth/x86"
)

// Offsets in XSAVE's area in its standard form (Intel SDM vol. 1 §13.4).
//
//	0 FCW | 2 FSW | 4 FTW | 6 FOP | 8 FIP | 16 FDP | 24 MXCSR | 28 mask
//	32 ST0-7, 16 bytes each | 160 XMM0-15 | 512 XSTATE_BV, XCOMP_BV | 576 YMM upper halves
const (
	xsaveMXCSR  = 24
	xsaveST     = 32
	xsaveXMM    = 160
	xsaveHeader = 512
	xsaveYMM    = 576
)

// Components of XSTATE_BV and XCR0.
const (
	xstateX87 = 1 << iota
	xstateSSE
	xstateAVX
)

// xstateArea is where one component beyond AVX lies.
type xstateArea struct {
	number    uint8
	off, size uint32
}

// xstateLayout returns the areas of the components beyond AVX that guests may
// use: CPUID leaf 0xd, subleaf n tells size and offset of component n.
func (a *Accelerator) xstateLayout() []xstateArea {
	var areas []xstateArea
	for _, e := range a.cpuid.Entries[:a.cpuid.Nent] {
		if e.Function != 0xd || e.Index < 3 || e.Index > 63 || e.EAX == 0 {
			continue
		}
		supervisor := e.ECX&1 != 0
		if end := uint64(e.EBX) + uint64(e.EAX); !supervisor && e.EBX >= xsaveYMM && end <= uint64(len(kvmapi.XSave{}.Region)) {
			areas = append(areas, xstateArea{number: uint8(e.Index), off: e.EBX, size: e.EAX})
		}
	}
	return areas
}

// getXSave reads the registers. A component whose XSTATE_BV bit is clear is in
// its initial state, whatever its area holds.
func getXSave(k *kvmapi.XSave, s *x86.State, areas []xstateArea) {
	b := k.Region[:]
	le := binary.LittleEndian
	bv := le.Uint64(b[xsaveHeader:])
	f := &s.FPU
	*f = x86.FPU{FCW: 0x37f, MXCSR: le.Uint32(b[xsaveMXCSR:])}
	if bv&xstateX87 != 0 {
		f.FCW, f.FSW, f.FTW, f.FOP = le.Uint16(b), le.Uint16(b[2:]), b[4], le.Uint16(b[6:])
		f.FIP, f.FDP = le.Uint64(b[8:]), le.Uint64(b[16:])
		for i := range f.ST {
			p := b[xsaveST+16*i:]
			f.ST[i] = x86.F80{Mant: le.Uint64(p), SE: le.Uint16(p[8:])}
		}
	}
	if bv&xstateSSE != 0 {
		getVectors(b[xsaveXMM:], &f.XMM)
	}
	if bv&xstateAVX != 0 {
		getVectors(b[xsaveYMM:], &f.YMMH)
	}
	for _, a := range areas {
		if bv>>a.number&1 != 0 {
			data := append([]byte(nil), b[a.off:a.off+a.size]...)
			s.XState = append(s.XState, x86.XStateComponent{Number: a.number, Data: data})
		}
	}
}

func getVectors(b []byte, v *[16][2]uint64) {
	for i := range v {
		v[i] = [2]uint64{binary.LittleEndian.Uint64(b[16*i:]), binary.LittleEndian.Uint64(b[16*i+8:])}
	}
}

func putVectors(b []byte, v *[16][2]uint64) {
	for i := range v {
		binary.LittleEndian.PutUint64(b[16*i:], v[i][0])
		binary.LittleEndian.PutUint64(b[16*i+8:], v[i][1])
	}
}

// makeXSave is getXSave's reverse. Upper halves that are all zero are AVX's
// initial state, so a state without AVX goes to a host without AVX.
func makeXSave(s *x86.State, areas []xstateArea) (*kvmapi.XSave, error) {
	k := &kvmapi.XSave{}
	b := k.Region[:]
	le := binary.LittleEndian
	f := &s.FPU
	bv := uint64(xstateX87 | xstateSSE)
	le.PutUint16(b, f.FCW)
	le.PutUint16(b[2:], f.FSW)
	b[4] = f.FTW
	le.PutUint16(b[6:], f.FOP)
	le.PutUint64(b[8:], f.FIP)
	le.PutUint64(b[16:], f.FDP)
	le.PutUint32(b[xsaveMXCSR:], f.MXCSR)
	for i, st := range f.ST {
		le.PutUint64(b[xsaveST+16*i:], st.Mant)
		le.PutUint16(b[xsaveST+16*i+8:], st.SE)
	}
	putVectors(b[xsaveXMM:], &f.XMM)
	if f.YMMH != [16][2]uint64{} {
		bv |= xstateAVX
		putVectors(b[xsaveYMM:], &f.YMMH)
	}
next:
	for _, x := range s.XState {
		for _, a := range areas {
			if a.number == x.Number && int(a.size) == len(x.Data) {
				copy(b[a.off:], x.Data)
				bv |= 1 << a.number
				continue next
			}
		}
		return nil, fmt.Errorf("the host's CPU has no extended state component %d of %d bytes", x.Number, len(x.Data))
	}
	le.PutUint64(b[xsaveHeader:], bv)
	return k, nil
}
