package multiboot

import (
	"encoding/binary"
	"errors"
	"fmt"

	"berth/boot"
	"berth/guestmem"
	"berth/x86"
)

// Boot information (§3.3). It lies in the page of boot.StartInfoAddr, followed
// by the module list, the memory map and all strings but the command line.
//
//	0 flags | 4 mem_lower, KiB | 8 mem_upper, KiB | 16 cmdline | 20 mods_count | 24 mods_addr
//	44 mmap_length | 48 mmap_addr | 64 boot_loader_name
//
//	module      start u32 | end u32 | string u32 | 0 u32
//	map entry   20 u32 | base u64 | length u64 | type u32
const (
	bootMagic = 0x2badb002 // EAX at the entry

	infoAddr   = boot.StartInfoAddr
	infoSize   = 116
	infoLimit  = 4096
	moduleSize = 16
	mapSize    = 24

	hasMemory  = 1 << 0
	hasCmdline = 1 << 2
	hasModules = 1 << 3
	hasMap     = 1 << 6
	hasLoader  = 1 << 9
)

// loaderName is what a kernel learns of who loaded it.
const loaderName = "berth"

// highMemory is where "upper" memory begins.
const highMemory = 1 << 20

// Load loads the Multiboot kernel p.Kernel with its modules and returns how the
// boot vCPU enters it: in 32-bit protected mode without paging.
func Load(mem *guestmem.Memory, p boot.Params) (*boot.Entry, error) {
	h, err := readHeader(p.Kernel)
	if err != nil {
		return nil, err
	}
	l := &loader{Layout: boot.NewLayout(mem), p: p}
	kind := "Multiboot image"
	var entry uint32
	if h.flags&boot.MultibootAddresses != 0 {
		entry, err = l.putImage(h)
	} else {
		kind = "Multiboot ELF"
		entry, err = l.putELF()
	}
	if err != nil {
		return nil, err
	}
	if err := l.putModules(); err != nil {
		return nil, err
	}
	if err := l.PutCmdline(l.cmdline(), 1<<32-1); err != nil {
		return nil, err
	}
	if err := l.putInfo(); err != nil {
		return nil, err
	}
	if err := l.putBDA(); err != nil {
		return nil, err
	}
	state, err := l.Protected(entry, infoAddr)
	if err != nil {
		return nil, err
	}
	state.GPR[x86.RAX] = bootMagic
	return &boot.Entry{Protocol: "multiboot", Image: kind, State: state, Placed: l.Placed}, nil
}

// loader is one load in progress.
type loader struct {
	*boot.Layout
	p       boot.Params
	modules []boot.Range
}

// putImage loads what the header's address fields say.
func (l *loader) putImage(h *header) (uint32, error) {
	i, err := h.image(uint64(l.p.Kernel.Size()))
	if err != nil {
		return 0, err
	}
	if err := l.Reserve("kernel", i.addr, i.memSize); err != nil {
		return 0, err
	}
	return i.entry, l.ReadInto(i.addr, i.fileSize, l.p.Kernel, i.offset, "kernel")
}

// putELF loads the kernel's segments.
func (l *loader) putELF() (uint32, error) {
	f, err := boot.ReadELF(l.p.Kernel)
	if err != nil {
		return 0, fmt.Errorf("the Multiboot kernel says nothing of where it goes, and: %w", err)
	}
	if f.Class64 {
		return 0, errors.New("64-bit ELF file with a Multiboot header: Multiboot takes 32-bit ones")
	}
	entry, err := l.LoadELF(f, l.p.Kernel, uint64(l.p.Kernel.Size()))
	return uint32(entry), err
}

// cmdline is the kernel's name and its arguments, as other loaders give them.
func (l *loader) cmdline() string {
	if l.p.Cmdline == "" {
		return l.p.KernelName
	}
	return l.p.KernelName + " " + l.p.Cmdline
}

// putModules loads the modules behind the kernel, each at a page's beginning:
// kernels that map little memory at first still reach them there.
func (l *loader) putModules() error {
	first := uint64(highMemory)
	for _, p := range l.Placed {
		first = max(first, p.End())
	}
	for _, m := range l.p.Modules {
		what, size := "module "+m.Name, uint64(m.File.Size())
		r, err := l.PlaceAbove(what, size, guestmem.PageSize, first)
		if err != nil {
			return err
		}
		if err := l.ReadInto(r.Addr, size, m.File, 0, what); err != nil {
			return err
		}
		l.modules = append(l.modules, r)
	}
	return nil
}

// putInfo writes the boot information.
func (l *loader) putInfo() error {
	e820 := boot.E820(l.Memory(), l.p.Reserved)
	b := make([]byte, infoSize)
	le := binary.LittleEndian
	here := func() uint32 { return infoAddr + uint32(len(b)) }
	text := func(s string) uint32 {
		at := here()
		b = append(append(b, s...), 0)
		return at
	}
	le.PutUint32(b[48:], here())
	for _, e := range e820 {
		b = le.AppendUint32(b, mapSize-4)
		b = le.AppendUint64(b, e.Addr)
		b = le.AppendUint64(b, e.Size)
		b = le.AppendUint32(b, uint32(e.Type))
	}
	le.PutUint32(b[44:], uint32(len(e820)*mapSize))
	list := here()
	b = append(b, make([]byte, len(l.modules)*moduleSize)...)
	for i, r := range l.modules {
		name := text(l.p.Modules[i].Cmdline)
		m := b[list-infoAddr+uint32(i)*moduleSize:]
		le.PutUint32(m, uint32(r.Addr))
		le.PutUint32(m[4:], uint32(r.End()))
		le.PutUint32(m[8:], name)
	}
	flags := uint32(hasMemory | hasCmdline | hasMap | hasLoader)
	if len(l.modules) > 0 {
		flags |= hasModules
		le.PutUint32(b[20:], uint32(len(l.modules)))
		le.PutUint32(b[24:], list)
	}
	le.PutUint32(b[0:], flags)
	lower, upper := sizes(e820)
	le.PutUint32(b[4:], lower)
	le.PutUint32(b[8:], upper)
	le.PutUint32(b[16:], boot.CmdlineAddr)
	name := text(loaderName)
	le.PutUint32(b[64:], name)
	if len(b) > infoLimit {
		return fmt.Errorf("%d modules with %d bytes of names, lists and map are more than the %d that there is room for", len(l.modules), len(b), infoLimit)
	}
	if err := l.Reserve("Multiboot information", infoAddr, infoLimit); err != nil {
		return err
	}
	return l.Memory().Write(infoAddr, b)
}

// The BIOS data area tells the KiB of memory below the EBDA, and the EBDA's
// segment. Kernels written for PCs look there (Xen, for a place for its
// trampoline), and a zero would send them astray.
const (
	bdaAddr    = 0x400
	bdaSize    = 0x100
	bdaEBDA    = 0x40e
	bdaKiB     = 0x413
	ebdaOffset = 0x9fc00
)

// putBDA writes the words of the BIOS data area that there is a value for.
func (l *loader) putBDA() error {
	if err := l.Reserve("BIOS data area", bdaAddr, bdaSize); err != nil {
		return err
	}
	le := binary.LittleEndian
	return errors.Join(l.Memory().Write(bdaEBDA, le.AppendUint16(nil, ebdaOffset>>4)),
		l.Memory().Write(bdaKiB, le.AppendUint16(nil, ebdaOffset>>10)))
}

// sizes returns the KiB of memory from 0 and from 1 MiB up to the first hole.
func sizes(e820 []boot.E820Entry) (lower, upper uint32) {
	for _, e := range e820 {
		if e.Type != boot.E820RAM {
			continue
		}
		switch e.Addr {
		case 0:
			lower = uint32(e.Size >> 10)
		case highMemory:
			upper = uint32(e.Size >> 10)
		}
	}
	return lower, upper
}
