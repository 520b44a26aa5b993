package hostcpu

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"berth/x86/decode"
)

// The addresses a sequence sees: two pages of data, one that can only be read,
// none behind it; and four pages of code that can be written.
const (
	seqReadOnly = sandboxBase + sandboxSize
	seqNothing  = seqReadOnly + 0x1000
	seqCodeSize = 0x4000
	seqMemory   = sandboxSize + seqCodeSize // what a sequence may change

	seqFixes    = 6                      // faults of a sequence that it goes on after
	seqBatch    = 128                    // sequences that one engine runs after another
	seqDevice   = sandboxBase + 0x100000 // a device's page, soft engine only
	seqAlias    = sandboxBase + 0x110000 // the code again, likewise
	seqCounters = sandboxBase + 0x8000   // 32 counters of loops, zero at first
	seqSlots    = 0x3f00                 // offset of addresses in the code's pages
)

// Sequence is a program and the state it starts in. It ends at an int3 or at the
// first fault that no label of Fixes is left for.
type Sequence struct {
	Mode   decode.Mode
	State  State // RIP: its entry
	Chunks []seqChunk
	Labels []seqPlace // by number
	Fixes  []int      // labels where the first faults go on
	Slots  []int      // labels whose addresses lie behind the code
	Soft   bool       // not for the host
	Kernel bool       // begins at CPL 0
	// Victims are the places of code that a device may write: as many bytes, from 4 on,
	// of an instruction at a label.
	Victims []seqVictim

	laid *laid // what Lay made
}

type laid struct {
	at   [][]uint64
	code [seqCodeSize]byte
}

type seqVictim struct{ label, off int }

// seqChunk is straight code at an offset in the code's pages.
type seqChunk struct {
	off   int
	insts []seqInst
}

// seqPlace is where a label is: before an instruction of a chunk.
type seqPlace struct{ chunk, inst int }

// seqInst is an instruction, whose last bytes but tail may be an address.
type seqInst struct {
	code []byte
	ref  seqRef
	tail int    // bytes behind the address
	to   uint64 // an address; of a reference to a label, what is added
	lab  int
	// undef is the status flags that are not defined before it.
	undef uint64
	group int // instructions that go together when a case is cut down; 0: by itself
}

// seqRef is how an instruction refers to code or data.
type seqRef uint8

const (
	refNone seqRef = iota
	refRel1        // a label, relative, one byte
	refRel4
	refAbs4     // a label's address
	refData     // to, relative to RIP
	refCode     // a label's address plus to, relative to RIP
	refCodeAbs4 // the same, absolute
)

// address is where a label is once placed.
func (s *Sequence) address(at [][]uint64, label int) uint64 {
	p := s.Labels[label]
	return at[p.chunk][p.inst]
}

// place gives every instruction its address; the last of each chunk's is its end.
// false: two chunks overlap.
func (s *Sequence) place() (at [][]uint64, ok bool) {
	at = make([][]uint64, len(s.Chunks))
	for c := range s.Chunks {
		pos := codeBase + uint64(s.Chunks[c].off)
		for i := range s.Chunks[c].insts {
			at[c] = append(at[c], pos)
			pos += uint64(len(s.Chunks[c].insts[i].code))
		}
		at[c] = append(at[c], pos)
	}
	for c := range at {
		end := at[c][len(at[c])-1]
		if end > codeBase+seqSlots-16 {
			return nil, false
		}
		for d := range at {
			if c != d && at[d][0] >= at[c][0] && at[d][0] < end {
				return nil, false
			}
		}
	}
	return at, true
}

// Lay writes the code into seqCodeSize bytes.
func (s *Sequence) Lay(code []byte) (at [][]uint64, ok bool) {
	if s.laid != nil {
		copy(code, s.laid.code[:])
		return s.laid.at, true
	}
	if at, ok = s.place(); !ok {
		return nil, false
	}
	for i := range code {
		code[i] = 0xcc
	}
	for c := range s.Chunks {
		for i := range s.Chunks[c].insts {
			in := &s.Chunks[c].insts[i]
			p := code[at[c][i]-codeBase:][:len(in.code)]
			copy(p, in.code)
			if in.ref != refNone && len(p) > 0 && !s.refer(in, p, at[c][i], at) {
				return nil, false
			}
		}
	}
	for i, l := range s.Slots {
		binary.LittleEndian.PutUint64(code[seqSlots+8*i:], s.address(at, l))
	}
	s.laid = &laid{at: at}
	copy(s.laid.code[:], code)
	return at, true
}

// refer fills in the address that an instruction at pc refers to.
func (s *Sequence) refer(in *seqInst, p []byte, pc uint64, at [][]uint64) bool {
	next, le := pc+uint64(len(p)), binary.LittleEndian
	v := in.to
	if in.ref != refData {
		v += s.address(at, in.lab)
	}
	switch in.ref {
	case refRel1:
		d := int64(v - next)
		p[len(p)-1-in.tail] = byte(d)
		return d == int64(int8(d))
	case refRel4, refData, refCode:
		if s.Mode != decode.Mode64 && in.ref != refRel4 {
			next = 0 // an absolute address there
		}
		le.PutUint32(p[len(p)-4-in.tail:], uint32(v-next))
	default:
		le.PutUint32(p[len(p)-4-in.tail:], uint32(v))
	}
	return true
}

// undefinedAt is the flags that are not defined before the instruction at rip.
func (s *Sequence) undefinedAt(at [][]uint64, rip uint64) uint64 {
	for c := range at {
		for i := range s.Chunks[c].insts {
			if in := &s.Chunks[c].insts[i]; at[c][i] == rip && len(in.code) > 0 {
				return in.undef
			}
		}
	}
	return af
}

// without returns s less one instruction, or less a group.
func (s *Sequence) without(chunk, inst int) *Sequence {
	out := s.clone()
	in := &out.Chunks[chunk].insts[inst]
	if in.group == 0 {
		in.code = nil
		return out
	}
	group := in.group
	for c := range out.Chunks {
		for i := range out.Chunks[c].insts {
			if in := &out.Chunks[c].insts[i]; in.group == group {
				in.code = nil
			}
		}
	}
	return out
}

func (s *Sequence) clone() *Sequence {
	out := *s
	out.laid = nil
	out.Chunks = make([]seqChunk, len(s.Chunks))
	for c := range s.Chunks {
		out.Chunks[c] = seqChunk{s.Chunks[c].off, append([]seqInst(nil), s.Chunks[c].insts...)}
	}
	return &out
}

// Text is the sequence for a person: its listing and the state it starts in.
func (s *Sequence) Text() string {
	var code [seqCodeSize]byte
	at, ok := s.Lay(code[:])
	if !ok {
		return "does not fit\n"
	}
	var b strings.Builder
	for c := range s.Chunks {
		if len(s.Chunks[c].insts) > 0 {
			fmt.Fprintf(&b, "  at %#x:\n", at[c][0])
		}
		for i := range s.Chunks[c].insts {
			for l, p := range s.Labels {
				if p == (seqPlace{c, i}) {
					fmt.Fprintf(&b, "  L%d:%s\n", l, s.resumes(l))
				}
			}
			if n := len(s.Chunks[c].insts[i].code); n > 0 {
				p := code[at[c][i]-codeBase:][:n]
				fmt.Fprintf(&b, "    %x  %-30x %s\n", at[c][i], p, disassemble(p, at[c][i], s.Mode))
			}
		}
	}
	for i, v := range s.State.GPR {
		fmt.Fprintf(&b, " %s=%x", gprNames[i], v)
	}
	f := s.State.fpu()
	fmt.Fprintf(&b, "\n rip=%x rflags=%x fsbase=%x gsbase=%x fcw=%x fsw=%x ftw=%x mxcsr=%x\n", s.State.RIP, s.State.RFLAGS,
		s.State.FSBase, s.State.GSBase, f.FCW, f.FSW, f.FTW, f.MXCSR)
	return b.String()
}

// resumes says after which fault the sequence goes on at a label.
func (s *Sequence) resumes(label int) (text string) {
	for i, f := range s.Fixes {
		if f == label {
			text += fmt.Sprintf(" (after fault %d)", i+1)
		}
	}
	return text
}

// disassemble is the text of an instruction, by x86asm or, of what that does not know, by the decoder.
func disassemble(p []byte, pc uint64, m decode.Mode) string {
	if in, err := x86asm.Decode(p, 16<<m); err == nil && in.Len == len(p) {
		return x86asm.IntelSyntax(in, pc, nil)
	}
	var in decode.Inst
	if err := decode.Decode(p, m, &in); err != nil {
		return err.Error()
	}
	return in.Text(pc)
}
