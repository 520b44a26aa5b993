// Package multiboot boots kernels by the Multiboot specification, version 0.6.96 (Multiboot 1).
package multiboot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"berth/boot"
)

// Flags of the header. What the lower half asks for must be given, or the
// kernel refused (§3.1.2).
const (
	flagPageAligned = 1 << 0
	flagMemory      = 1 << 1
	flagVideo       = 1 << 2
	flagMandatory   = 0xffff
)

// header is a kernel's header (§3.1), and where in the file it lies. The address
// fields count if boot.MultibootAddresses is set, those of the video mode if
// flagVideo is.
//
//	0 magic | 4 flags | 8 checksum: the three sum to 0
//	12 header_addr | 16 load_addr | 20 load_end_addr | 24 bss_end_addr | 28 entry_addr
//	32 mode_type | 36 width | 40 height | 44 depth
type header struct {
	offset  uint32
	flags   uint32
	addr    uint32 // where offset is to be in memory
	load    uint32
	loadEnd uint32 // 0: the file's end
	bssEnd  uint32 // 0: no more than is loaded
	entry   uint32
}

// readHeader finds the header of a kernel that this loader can serve.
func readHeader(r io.ReaderAt) (*header, error) {
	var b [boot.MultibootSearch]byte
	n, err := r.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	p := boot.MultibootHeader(b[:n])
	if p == nil {
		return nil, errors.New("no Multiboot header in the first 8 KiB")
	}
	le := binary.LittleEndian
	h := &header{offset: uint32(n - len(p)), flags: le.Uint32(p[4:])}
	switch {
	case h.flags&flagVideo != 0:
		return nil, errors.New("the Multiboot kernel demands a video mode, and there is no display to set")
	case h.flags&flagMandatory&^(flagPageAligned|flagMemory) != 0:
		return nil, fmt.Errorf("the Multiboot kernel demands features that are not known (flags 0x%x)", h.flags&flagMandatory)
	case h.flags&boot.MultibootAddresses != 0:
		h.addr, h.load, h.loadEnd = le.Uint32(p[12:]), le.Uint32(p[16:]), le.Uint32(p[20:])
		h.bssEnd, h.entry = le.Uint32(p[24:]), le.Uint32(p[28:])
	}
	return h, nil
}

// image is the part of the file that goes to memory.
type image struct {
	offset   int64 // in the file
	fileSize uint64
	addr     uint64
	memSize  uint64 // not less than fileSize
	entry    uint32
}

// image returns what the address fields say of a file of size bytes (§3.1.3).
func (h *header) image(size uint64) (image, error) {
	if h.load > h.addr {
		return image{}, fmt.Errorf("the Multiboot header's load address 0x%x lies behind the header's 0x%x", h.load, h.addr)
	}
	before := h.addr - h.load // bytes loaded before the header
	if before > h.offset {
		return image{}, fmt.Errorf("the Multiboot header wants 0x%x bytes before it loaded; the file has 0x%x", before, h.offset)
	}
	i := image{offset: int64(h.offset - before), addr: uint64(h.load), entry: h.entry}
	i.fileSize = size - uint64(i.offset)
	if h.loadEnd != 0 {
		if h.loadEnd <= h.load {
			return image{}, fmt.Errorf("the Multiboot header's load end 0x%x is not behind its beginning 0x%x", h.loadEnd, h.load)
		}
		if want := uint64(h.loadEnd - h.load); want <= i.fileSize {
			i.fileSize = want
		} else {
			return image{}, fmt.Errorf("kernel is truncated: 0x%x bytes are to be loaded, the file has 0x%x", want, i.fileSize)
		}
	}
	i.memSize = i.fileSize
	if h.bssEnd != 0 {
		if uint64(h.bssEnd) < i.addr+i.fileSize {
			return image{}, fmt.Errorf("the Multiboot header's bss end 0x%x lies inside what is loaded", h.bssEnd)
		}
		i.memSize = uint64(h.bssEnd) - i.addr
	}
	if e := uint64(i.entry); e < i.addr || e >= i.addr+i.memSize {
		return image{}, fmt.Errorf("kernel's entry 0x%x lies outside what it loads", i.entry)
	}
	return i, nil
}
