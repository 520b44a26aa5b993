package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Kind is a kind of kernel image.
type Kind uint8

// Kinds of kernel images that can be booted.
const (
	KindBzImage Kind = iota + 1
	KindLinuxELF
	KindPVH
	KindMultiboot
)

// xenPhys32Entry is XEN_ELFNOTE_PHYS32_ENTRY, the note that holds the PVH entry.
const xenPhys32Entry = 18

// Detect recognises a kernel image by its content. Linux with a PVH note is
// KindLinuxELF: the 64-bit protocol spares it a detour. A file with both a
// Multiboot header and a PVH note is KindMultiboot where Multiboot takes it.
func Detect(r *io.SectionReader) (Kind, error) {
	var b [MultibootSearch]byte
	n, err := r.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return 0, err
	}
	le := binary.LittleEndian
	switch {
	case n == 0:
		return 0, errors.New("empty file")
	case n >= 4 && string(b[:4]) == elfMagic:
		return detectELF(r, b[:n])
	case n >= 0x206 && string(b[0x202:0x206]) == "HdrS" && le.Uint16(b[0x1fe:]) == 0xaa55:
		return KindBzImage, nil
	case MultibootHeader(b[:n]) != nil:
		return KindMultiboot, nil
	case b[0] == 0x1f && b[1] == 0x8b:
		return 0, errors.New("gzip-compressed file; unpack it first (a bzImage is not compressed as a whole)")
	}
	return 0, errors.New("neither a bzImage nor an ELF kernel")
}

func detectELF(r *io.SectionReader, start []byte) (Kind, error) {
	f, err := ReadELF(r)
	if err != nil {
		return 0, err
	}
	notes, err := f.ReadNotes(r)
	if err != nil {
		return 0, err
	}
	linux := false
	for _, n := range notes {
		linux = linux || n.Name == "Linux"
	}
	_, pvh := PVHEntry(notes)
	multiboot := MultibootHeader(start)
	addressed := multiboot != nil && binary.LittleEndian.Uint32(multiboot[4:])&MultibootAddresses != 0
	switch {
	case f.Class64 && linux:
		return KindLinuxELF, nil
	case addressed || multiboot != nil && !f.Class64:
		return KindMultiboot, nil
	case pvh:
		return KindPVH, nil
	case multiboot != nil:
		return KindMultiboot, nil // whose loader says why it does not take it
	case f.Class64 && f.highHalf():
		return KindLinuxELF, nil // Linux before 4.19 has no note of its own
	}
	return 0, errors.New("ELF file is not Linux and has neither a PVH note nor a Multiboot header: not a kernel")
}

// highHalf reports whether some of f is linked where 64-bit kernels live, and
// programs never do.
func (f *ELF) highHalf() bool {
	for _, s := range f.Segments {
		if s.Vaddr>>63 != 0 {
			return true
		}
	}
	return false
}

// PVHEntry returns the entry point that a PVH note names (Xen
// public/elfnote.h): 32 bits wide, in a descriptor of 4 or 8 bytes.
func PVHEntry(notes []Note) (uint32, bool) {
	for _, n := range notes {
		if n.Name != "Xen" || n.Type != xenPhys32Entry {
			continue
		}
		switch len(n.Desc) {
		case 4:
			return binary.LittleEndian.Uint32(n.Desc), true
		case 8:
			v := binary.LittleEndian.Uint64(n.Desc)
			return uint32(v), v>>32 == 0
		}
	}
	return 0, false
}

// A Multiboot 1 header begins with magic, flags, and a checksum that makes the
// three sum to zero, on a 4-byte boundary in the first MultibootSearch bytes of
// the file; with MultibootAddresses among the flags it says where the file goes.
const (
	MultibootSearch    = 8192
	MultibootAddresses = 1 << 16

	multibootMagic   = 0x1badb002
	multibootSize    = 12 // without address fields
	multibootAddress = 32 // with them
)

// MultibootHeader returns b, the beginning of a file, from its Multiboot header
// on, address fields included where its flags promise them; nil without a header.
func MultibootHeader(b []byte) []byte {
	le := binary.LittleEndian
	for b = b[:min(len(b), MultibootSearch)]; len(b) >= multibootSize; b = b[4:] {
		flags := le.Uint32(b[4:])
		if le.Uint32(b) != multibootMagic || multibootMagic+flags+le.Uint32(b[8:]) != 0 {
			continue
		}
		if flags&MultibootAddresses == 0 || len(b) >= multibootAddress {
			return b
		}
	}
	return nil
}

// File is an opened kernel or initrd.
type File struct {
	*io.SectionReader
	f *os.File
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// OpenFile opens a kernel or an initrd; its error says in one line what is
// wrong with path, with what ("kernel", "initrd") in front.
func OpenFile(what, path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would wait for a writer
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, errors.Unwrap(err))
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		err = errors.New("is a directory")
	case !st.Mode().IsRegular():
		err = errors.New("is not a regular file")
	case st.Size() == 0:
		err = errors.New("is empty")
	default:
		return &File{io.NewSectionReader(f, 0, st.Size()), f}, nil
	}
	f.Close()
	return nil, fmt.Errorf("%s %s: %w", what, path, err)
}
