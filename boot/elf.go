package boot

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ELF is an x86 executable's program headers, read from hostile input: nothing
// in it has been checked against guest memory yet.
type ELF struct {
	Class64  bool
	Entry    uint64
	Segments []Segment // PT_LOAD with memory, in file order
	Notes    []Segment // PT_NOTE
}

// Segment is one program header.
type Segment struct {
	Off, FileSize  uint64
	Vaddr, Paddr   uint64
	MemSize, Align uint64
}

const (
	elfMagic    = "\x7fELF"
	maxPhnum    = 128
	maxHeader   = 64 << 10 // program headers lie within
	ptLoad      = 1
	ptNote      = 4
	etExec      = 2
	etDyn       = 3
	emI386      = 3
	emX8664     = 62
	elfClass32  = 1
	elfClass64  = 2
	elfLSB      = 1
	ehdr32Size  = 52
	ehdr64Size  = 64
	phdr32Size  = 32
	phdr64Size  = 56
	maxNoteSize = 64 << 10
)

// ReadELF reads the headers of the ELF file in r.
//
//	      ELF32  ELF64               program header:  ELF32  ELF64
//	ident  0      0   16 bytes       type              0      0
//	type   16     16  u16            offset            4      8
//	mach   18     18  u16            vaddr             8      16
//	entry  24     24  word           paddr             12     24
//	phoff  28     32  word           filesz            16     32
//	phsize 42     54  u16            memsz             20     40
//	phnum  44     56  u16            align             28     48
func ReadELF(r io.ReaderAt) (*ELF, error) {
	var h [ehdr64Size]byte
	if n, err := r.ReadAt(h[:], 0); n < ehdr32Size {
		return nil, truncated(err, "ELF header")
	}
	le := binary.LittleEndian
	if string(h[:4]) != elfMagic {
		return nil, errors.New("not an ELF file")
	}
	if h[5] != elfLSB || h[4] != elfClass32 && h[4] != elfClass64 {
		return nil, errors.New("ELF file is not little-endian")
	}
	f := &ELF{Class64: h[4] == elfClass64}
	if t := le.Uint16(h[16:]); t != etExec && t != etDyn {
		return nil, fmt.Errorf("ELF file of type %d is not an executable", t)
	}
	if m := le.Uint16(h[18:]); m != emX8664 && m != emI386 {
		return nil, fmt.Errorf("ELF file is for machine %d, not for x86", m)
	}
	var phoff uint64
	var phsize, phnum, want int
	if f.Class64 {
		f.Entry, phoff = le.Uint64(h[24:]), le.Uint64(h[32:])
		phsize, phnum, want = int(le.Uint16(h[54:])), int(le.Uint16(h[56:])), phdr64Size
	} else {
		f.Entry, phoff = uint64(le.Uint32(h[24:])), uint64(le.Uint32(h[28:]))
		phsize, phnum, want = int(le.Uint16(h[42:])), int(le.Uint16(h[44:])), phdr32Size
	}
	if phnum == 0 || phnum > maxPhnum || phsize != want || phoff > maxHeader {
		return nil, fmt.Errorf("ELF file has unusable program headers (%d of %d bytes at 0x%x)", phnum, phsize, phoff)
	}
	ph := make([]byte, phnum*phsize)
	if n, err := r.ReadAt(ph, int64(phoff)); n < len(ph) {
		return nil, truncated(err, "ELF program headers")
	}
	for ; len(ph) > 0; ph = ph[phsize:] {
		f.add(ph[:phsize])
	}
	slices.SortStableFunc(f.Segments, func(a, b Segment) int { return cmp.Compare(a.Off, b.Off) })
	if len(f.Segments) == 0 {
		return nil, errors.New("ELF file has nothing to load")
	}
	return f, nil
}

func (f *ELF) add(ph []byte) {
	le := binary.LittleEndian
	var s Segment
	if f.Class64 {
		s = Segment{Off: le.Uint64(ph[8:]), Vaddr: le.Uint64(ph[16:]), Paddr: le.Uint64(ph[24:]),
			FileSize: le.Uint64(ph[32:]), MemSize: le.Uint64(ph[40:]), Align: le.Uint64(ph[48:])}
	} else {
		w := func(i int) uint64 { return uint64(le.Uint32(ph[i:])) }
		s = Segment{Off: w(4), Vaddr: w(8), Paddr: w(12), FileSize: w(16), MemSize: w(20), Align: w(28)}
	}
	switch le.Uint32(ph) {
	case ptLoad:
		if s.MemSize != 0 {
			f.Segments = append(f.Segments, s)
		}
	case ptNote:
		f.Notes = append(f.Notes, s)
	}
}

// LoadELF places the segments of f at their physical addresses, reading r in
// ascending order, and returns the entry's physical address. size is the
// file's, in bytes; RAM between a segment's file bytes and its end is zero
// already, since guest memory starts so.
func (l *Layout) LoadELF(f *ELF, r io.ReaderAt, size uint64) (uint64, error) {
	entry, found := f.Entry, false
	for _, s := range f.Segments {
		if s.FileSize > s.MemSize {
			return 0, fmt.Errorf("kernel segment at 0x%x has more bytes in the file than in memory", s.Paddr)
		}
		if s.Off > size || s.FileSize > size-s.Off {
			return 0, fmt.Errorf("kernel is truncated: a segment ends at byte %d of %d", s.Off+s.FileSize, size)
		}
		if err := l.Reserve("kernel", s.Paddr, s.MemSize); err != nil {
			return 0, err
		}
		if err := l.ReadInto(s.Paddr, s.FileSize, r, int64(s.Off), "kernel"); err != nil {
			return 0, err
		}
		found = found || f.Entry-s.Paddr < s.MemSize
	}
	for _, s := range f.Segments {
		if !found && f.Entry-s.Vaddr < s.MemSize {
			entry, found = f.Entry-s.Vaddr+s.Paddr, true
		}
	}
	if !found {
		return 0, fmt.Errorf("kernel's entry 0x%x lies outside what it loads", f.Entry)
	}
	return entry, nil
}

// Note is one entry of a PT_NOTE segment.
type Note struct {
	Name string
	Type uint32
	Desc []byte
}

// ReadNotes returns all notes of f. Malformed ones end their segment's list.
//
//	namesz u32 | descsz u32 | type u32 | name, padded to 4 | desc, padded to 4
func (f *ELF) ReadNotes(r io.ReaderAt) ([]Note, error) {
	var notes []Note
	for _, s := range f.Notes {
		if s.Off > 1<<62 {
			continue
		}
		b := make([]byte, min(s.FileSize, maxNoteSize))
		if n, err := r.ReadAt(b, int64(s.Off)); n < len(b) {
			return nil, truncated(err, "ELF notes")
		}
		align := uint64(4)
		if s.Align == 8 {
			align = 8
		}
		notes = append(notes, parseNotes(b, align)...)
	}
	return notes, nil
}

func parseNotes(b []byte, align uint64) []Note {
	var notes []Note
	up := func(n uint64) uint64 { return (n + align - 1) &^ (align - 1) }
	for len(b) >= 12 {
		le := binary.LittleEndian
		name, desc := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
		start := up(12 + name)
		if align == 4 {
			start = 12 + up(name)
		}
		if start+desc > uint64(len(b)) {
			break
		}
		n := Note{Type: le.Uint32(b[8:]), Desc: b[start : start+desc]}
		if name > 0 {
			n.Name = string(b[12 : 12+name-1])
		}
		notes = append(notes, n)
		b = b[min(up(start+desc), uint64(len(b))):]
	}
	return notes
}

func truncated(err error, what string) error {
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("truncated inside its %s", what)
	}
	return fmt.Errorf("reading %s: %w", what, err)
}
