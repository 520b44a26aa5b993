// Package linux boots Linux by its x86 64-bit boot protocol, from a bzImage or an ELF vmlinux.
package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"berth/boot"
	"berth/boot/unpack"
	"berth/guestmem"
)

// vmlinuxCmdline is COMMAND_LINE_SIZE of Linux on x86 without its NUL: an ELF
// vmlinux has no header that states it.
const vmlinuxCmdline = 2047

// lowLimit is the end of what the boot page tables map.
const lowLimit = 4 << 30

// LoadBzImage loads the bzImage p.Kernel and returns how the boot vCPU starts
// it. Unpacked on the host, the kernel runs at the address it was linked for:
// relocations, and with them KASLR, are the guest decompressor's work.
func LoadBzImage(mem *guestmem.Memory, p boot.Params) (*boot.Entry, error) {
	h, err := readHeader(p.Kernel)
	if err != nil {
		return nil, err
	}
	l := &loader{Layout: boot.NewLayout(mem), p: p, header: h.raw,
		cmdline: h.cmdline, initrdMax: uint64(h.initrdMax), above4G: h.above4G}
	entry, how, err := l.unpack(h)
	if err != nil {
		return nil, err
	}
	return l.finish("bzImage "+h.name+", "+how, entry)
}

// LoadELF loads the ELF vmlinux p.Kernel at its physical addresses.
func LoadELF(mem *guestmem.Memory, p boot.Params) (*boot.Entry, error) {
	f, err := boot.ReadELF(p.Kernel)
	if err != nil {
		return nil, err
	}
	if !f.Class64 {
		return nil, errors.New("32-bit ELF kernel; only x86-64 kernels can be booted")
	}
	l := &loader{Layout: boot.NewLayout(mem), p: p, header: vmlinuxHeader(),
		cmdline: vmlinuxCmdline, initrdMax: lowLimit - 1, above4G: true}
	entry, err := l.LoadELF(f, p.Kernel, uint64(p.Kernel.Size()))
	if err != nil {
		return nil, err
	}
	return l.finish("ELF vmlinux", entry)
}

// vmlinuxHeader is the setup header a bzImage would carry, as far as the kernel
// proper reads it.
func vmlinuxHeader() []byte {
	b := make([]byte, headerEnd)
	le := binary.LittleEndian
	le.PutUint16(b[offBootFlag:], bootFlag)
	copy(b[offMagic:], magic)
	le.PutUint16(b[offVersion:], 0x20f)
	b[offLoadflags] = loadedHigh
	le.PutUint32(b[offAlignment:], 16<<20)
	le.PutUint32(b[offCmdlineSize:], vmlinuxCmdline)
	return b
}

// loader is one load in progress.
type loader struct {
	*boot.Layout
	p         boot.Params
	header    []byte // goes into boot_params
	cmdline   uint32 // longest command line
	initrdMax uint64 // last byte an initrd may take
	above4G   bool   // unless it may lie anywhere
}

// Payload opens the ELF file that is compressed inside the bzImage kernel; one
// that claims to be longer than limit bytes is refused. The caller closes it.
func Payload(kernel *io.SectionReader, limit uint64) (*unpack.Reader, error) {
	h, err := readHeader(kernel)
	if err != nil {
		return nil, err
	}
	return h.open(kernel, limit)
}

func (h *header) open(kernel *io.SectionReader, limit uint64) (*unpack.Reader, error) {
	u, err := unpack.NewReader(io.NewSectionReader(kernel, h.payload, h.payLen), limit)
	if err != nil {
		return nil, fmt.Errorf("kernel payload: %w", err)
	}
	return u, nil
}

// unpack loads the kernel proper as p.Unpack says, and says how it did.
func (l *loader) unpack(h *header) (entry uint64, how string, err error) {
	const guest = "unpacks itself"
	switch l.p.Unpack {
	case boot.UnpackGuest:
		entry, err = l.unpackInGuest(h)
		return entry, guest, err
	case boot.UnpackGuestFirst:
		if entry, err = l.unpackInGuest(h); err == nil {
			return entry, guest, nil
		}
	}
	entry, format, err := l.unpackHere(h)
	if l.p.Unpack == boot.UnpackAuto && errors.Is(err, unpack.ErrFormat) {
		entry, err = l.unpackInGuest(h)
		return entry, guest, err
	}
	return entry, format + " unpacked on the host", err
}

// unpackHere decompresses the payload on the host, an ELF file, straight into
// guest memory, and returns its entry and the name of its format.
func (l *loader) unpackHere(h *header) (uint64, string, error) {
	u, err := h.open(l.p.Kernel, l.RAM())
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = u.Close() }()
	f, err := boot.ReadELF(u)
	if err != nil {
		return 0, "", fmt.Errorf("kernel payload: %w", err)
	}
	if !f.Class64 {
		return 0, "", errors.New("kernel payload is a 32-bit ELF file")
	}
	entry, err := l.LoadELF(f, u, u.Size())
	if err != nil {
		return 0, "", err
	}
	if err := u.Finish(); err != nil {
		return 0, "", fmt.Errorf("kernel payload: %w", err)
	}
	return entry, u.Format(), nil
}

// unpackInGuest loads the protected-mode part where the kernel prefers to run,
// with init_size bytes for it to unpack itself in.
func (l *loader) unpackInGuest(h *header) (uint64, error) {
	size := max(uint64(h.initSize), uint64(h.sysLen))
	if err := l.Reserve("kernel and room to unpack it", h.pref, size); err != nil {
		return 0, err
	}
	return h.pref + entry64, l.ReadInto(h.pref, uint64(h.sysLen), l.p.Kernel, h.system, "kernel")
}

// finish places everything but the kernel and builds the entry.
func (l *loader) finish(image string, entry uint64) (*boot.Entry, error) {
	if entry >= lowLimit {
		return nil, fmt.Errorf("kernel's entry 0x%x lies above 4 GiB", entry)
	}
	if err := l.PutCmdline(l.p.Cmdline, l.cmdline); err != nil {
		return nil, err
	}
	initrd, err := l.putInitrd()
	if err != nil {
		return nil, err
	}
	if err := l.putBootParams(initrd); err != nil {
		return nil, err
	}
	state, err := l.LongMode(entry, boot.BootParams)
	if err != nil {
		return nil, err
	}
	return &boot.Entry{Protocol: "linux64", Image: image, State: state, Placed: l.Placed}, nil
}

// putInitrd loads the initrd, and looks at it where it then lies.
func (l *loader) putInitrd() (boot.Range, error) {
	if l.p.Initrd == nil {
		return boot.Range{}, nil
	}
	r, err := l.PutInitrd(l.p.Initrd, min(l.initrdMax, lowLimit-1))
	if err != nil && l.above4G {
		r, err = l.PutInitrd(l.p.Initrd, 1<<63)
	}
	if err != nil {
		return r, err
	}
	b, err := l.Memory().Slice(r.Addr, r.Size)
	if err != nil {
		return r, err
	}
	return r, checkInitrd(b)
}

// Offsets in boot_params outside the setup header (zero-page.rst).
const (
	offRSDP        = 0x070 // u64
	offExtRamdisk  = 0x0c0 // u32: upper halves
	offExtRamSize  = 0x0c4
	offE820Entries = 0x1e8 // u8
	offE820Table   = 0x2d0 // 20 bytes each: addr u64, size u64, type u32
	e820Size       = 20
	maxE820        = 128
)

// putBootParams writes the zero page.
func (l *loader) putBootParams(initrd boot.Range) error {
	var b [4096]byte
	le := binary.LittleEndian
	copy(b[offSetupSects:], l.header[offSetupSects:])
	b[offLoader] = loaderUndefined
	le.PutUint32(b[offCmdline:], boot.CmdlineAddr)
	le.PutUint32(b[offRamdisk:], uint32(initrd.Addr))
	le.PutUint32(b[offExtRamdisk:], uint32(initrd.Addr>>32))
	le.PutUint32(b[offRamdiskSize:], uint32(initrd.Size))
	le.PutUint32(b[offExtRamSize:], uint32(initrd.Size>>32))
	le.PutUint64(b[offRSDP:], l.p.RSDP)
	m := boot.E820(l.Memory(), l.p.Reserved)
	if len(m) > maxE820 {
		return fmt.Errorf("memory map of %d ranges is longer than boot_params holds", len(m))
	}
	b[offE820Entries] = byte(len(m))
	for i, e := range m {
		t := b[offE820Table+i*e820Size:]
		le.PutUint64(t, e.Addr)
		le.PutUint64(t[8:], e.Size)
		le.PutUint32(t[16:], uint32(e.Type))
	}
	if err := l.Reserve("boot_params", boot.BootParams, uint64(len(b))); err != nil {
		return err
	}
	return l.Memory().Write(boot.BootParams, b[:])
}
