// Package boot is what every direct boot of a kernel shares: recognising the image, placing it in guest memory, the memory map, and the boot vCPU's first state.
package boot

import (
	"errors"
	"fmt"
	"io"

	"berth/guestmem"
	"berth/x86"
)

// Unpack says who decompresses a bzImage's payload.
type Unpack uint8

// Ways to decompress a bzImage.
const (
	// UnpackAuto unpacks on the host, and leaves it to the guest when the host
	// does not know the format.
	UnpackAuto Unpack = iota
	// UnpackHost unpacks on the host or fails. The kernel runs where it was
	// linked: KASLR, which the guest's own decompressor applies, is lost.
	UnpackHost
	// UnpackGuest runs the decompressor inside the bzImage or fails.
	UnpackGuest
	// UnpackGuestFirst leaves it to the guest, and unpacks on the host when the
	// guest has too little memory to do it.
	UnpackGuestFirst
)

// Params is what to boot.
type Params struct {
	Kernel     *io.SectionReader
	KernelName string            // as the user has it; Multiboot tells it to the kernel
	Initrd     *io.SectionReader // nil: none
	Modules    []Module          // for Multiboot, in place of Initrd
	Cmdline    string
	Unpack     Unpack
	// RSDP is the guest-physical address of the ACPI root pointer; 0: none.
	RSDP uint64
	// Reserved are ranges outside RAM that the memory map declares reserved (ECAM).
	Reserved []Range
}

// Module is a file that a Multiboot kernel gets beside itself.
type Module struct {
	Name    string // of the file, for people
	Cmdline string // the name and the module's arguments
	File    *io.SectionReader
}

// Entry is how the boot vCPU starts, and what now lies where in guest memory.
type Entry struct {
	// Protocol names the way in: "linux64", "pvh" or "multiboot".
	Protocol string
	// Image describes the kernel in a few words, for people.
	Image string
	// State is the boot vCPU's complete first state. MSRs not named in it keep
	// their reset values. It satisfies VMX's checks on guest state (Intel SDM
	// vol. 3C §27.3.1) as they stand.
	State  x86.State
	Placed []Placement
}

// Placement is one thing put into guest memory.
type Placement struct {
	What string
	Range
}

// Range is [Addr, Addr+Size) of guest-physical memory.
type Range struct {
	Addr, Size uint64
}

// End returns the first address past the range.
func (r Range) End() uint64 { return r.Addr + r.Size }

func (r Range) overlaps(o Range) bool { return r.Addr < o.End() && o.Addr < r.End() }

// String returns the range and what lies there, for people.
func (p Placement) String() string {
	return fmt.Sprintf("0x%09x-0x%09x %s", p.Addr, p.End(), p.What)
}

// Fixed places below 640 KiB. Kernels take them over once they have copied what
// they need; nothing here outlives the first milliseconds of a boot.
//
//	0x00500  GDT
//	0x06000  PVH start_info or Multiboot information, with modules and memory map
//	0x07000  Linux boot_params ("zero page")
//	0x08000  a page of stack, growing down from 0x9000
//	0x09000  identity page tables: PML4, PDPT, four page directories
//	0x20000  command line
//	0x9fc00  reserved from here to 1 MiB: EBDA, VGA window, firmware area
const (
	GDTAddr       = 0x500
	StartInfoAddr = 0x6000
	BootParams    = 0x7000
	stackTop      = 0x9000
	PageTables    = 0x9000
	CmdlineAddr   = 0x20000
	lowEnd        = 0x9fc00

	// ACPIBase to ACPIEnd holds the ACPI tables and their RSDP, where legacy
	// scanners look for it; the memory map declares it reserved.
	ACPIBase = 0xe0000
	ACPIEnd  = 0x100000

	// HighBase is where kernels may be placed: above the firmware area.
	HighBase = 0x100000
)

// PutCmdline writes the NUL-terminated command line to CmdlineAddr. limit is
// the longest the kernel takes, in bytes without the NUL.
func (l *Layout) PutCmdline(s string, limit uint32) error {
	limit = min(limit, lowEnd-CmdlineAddr-1)
	if uint64(len(s)) > uint64(limit) {
		return fmt.Errorf("command line of %d bytes is longer than the kernel's limit of %d", len(s), limit)
	}
	if err := l.Reserve("command line", CmdlineAddr, uint64(len(s))+1); err != nil {
		return err
	}
	return l.mem.Write(CmdlineAddr, append([]byte(s), 0))
}

// PutInitrd loads the initrd as high as possible with its last byte at or below
// last, reading the file straight into guest memory.
func (l *Layout) PutInitrd(src *io.SectionReader, last uint64) (Range, error) {
	if src == nil {
		return Range{}, nil
	}
	size := uint64(src.Size())
	r, err := l.Place("initrd", size, guestmem.PageSize, last)
	if err != nil {
		return Range{}, err
	}
	return r, l.ReadInto(r.Addr, size, src, 0, "initrd")
}

// ReadInto reads size bytes at off of src straight into guest memory at gpa,
// which the caller has reserved; what names them in an error.
func (l *Layout) ReadInto(gpa, size uint64, src io.ReaderAt, off int64, what string) error {
	dst, err := l.mem.Slice(gpa, size)
	if err != nil {
		return err
	}
	n, err := src.ReadAt(dst, off)
	if uint64(n) < size {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("file ends after %d of %d bytes", n, size)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	l.mem.MarkWritten(gpa, size)
	return nil
}
