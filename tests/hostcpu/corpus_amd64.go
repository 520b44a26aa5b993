package hostcpu

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"berth/x86/decode"
)

// Regression is a case kept for ever: one that once differed. Its line of text is
//
//	name mode slot image-seed code state
//
// with code and state in hexadecimal; state is GPR, RFLAGS, FS and GS base in
// little-endian quadwords, then the FXSAVE image and, unless they are 0, the upper
// halves of YMM.
type Regression struct {
	Name      string
	Slot      int
	ImageSeed uint64
	Case      Case
}

// String is the regression's line.
func (r *Regression) String() string {
	var b bytes.Buffer
	s := &r.Case.State
	for _, v := range append(s.GPR[:], s.RFLAGS, s.FSBase, s.GSBase) {
		b.Write(binary.LittleEndian.AppendUint64(nil, v))
	}
	b.Write(s.FX[:])
	if s.YMMH != [ymmSize]byte{} {
		b.Write(s.YMMH[:])
	}
	return fmt.Sprintf("%s %d %d %d %x %x", r.Name, 16<<r.Case.Mode, r.Slot, r.ImageSeed, r.Case.Code, b.Bytes())
}

// ParseRegression reads a line.
func ParseRegression(line string) (*Regression, error) {
	r := &Regression{}
	var mode int
	var code, state string
	if _, err := fmt.Sscan(line, &r.Name, &mode, &r.Slot, &r.ImageSeed, &code, &state); err != nil {
		return nil, fmt.Errorf("hostcpu: regression %q: %w", line, err)
	}
	p, err := hex.DecodeString(code)
	if err != nil {
		return nil, fmt.Errorf("hostcpu: regression %s: %w", r.Name, err)
	}
	q, err := hex.DecodeString(state)
	if err != nil || len(q) != 19*8+fxSize && len(q) != 19*8+fxSize+ymmSize || r.Slot < 0 || r.Slot >= maxCases {
		return nil, fmt.Errorf("hostcpu: regression %s: bad state or slot", r.Name)
	}
	r.Case.Mode, r.Case.Code = decode.Mode(mode/32), p
	s := &r.Case.State
	for i := range s.GPR {
		s.GPR[i] = binary.LittleEndian.Uint64(q[8*i:])
	}
	s.RFLAGS, s.FSBase, s.GSBase = binary.LittleEndian.Uint64(q[128:]), binary.LittleEndian.Uint64(q[136:]), binary.LittleEndian.Uint64(q[144:])
	copy(s.FX[:], q[152:])
	copy(s.YMMH[:], q[152+fxSize:])
	s.RIP = startRIP(r.Slot, r.Case.Mode)
	return r, nil
}

// Batch is the regression in its slot, behind empty cases.
func (r *Regression) Batch() []Case {
	cases := make([]Case, r.Slot+1)
	for i := range cases {
		cases[i].Mode = decode.Mode64
		cases[i].State.RFLAGS = 2
		cases[i].State.FX = r.Case.State.FX
	}
	cases[r.Slot] = r.Case
	return cases
}

// Without returns the regression less instruction i, or nil if it has no other.
func (r *Regression) Without(i int) *Regression {
	insts := r.Case.Decode()
	if len(insts) < 2 {
		return nil
	}
	out := *r
	out.Case.Code = nil
	at := 0
	for n, in := range insts {
		if n != i {
			out.Case.Code = append(out.Case.Code, r.Case.Code[at:at+int(in.Len)]...)
		}
		at += int(in.Len)
	}
	return &out
}
