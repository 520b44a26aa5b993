package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Offsets in a bzImage's first sectors, the same in boot_params ("zero page")
// from setupSects on (Linux Documentation/arch/x86/boot.rst, zero-page.rst).
//
//	0x1f1 setup_sects u8      0x211 loadflags u8        0x230 kernel_alignment u32
//	0x1f4 syssize u32         0x218 ramdisk_image u32   0x234 relocatable_kernel u8
//	0x1fe boot_flag u16       0x21c ramdisk_size u32    0x236 xloadflags u16
//	0x201 header length u8    0x224 heap_end_ptr u16    0x238 cmdline_size u32
//	0x202 "HdrS"              0x228 cmd_line_ptr u32    0x248 payload_offset u32
//	0x206 version u16         0x22c initrd_addr_max u32 0x24c payload_length u32
//	0x20e kernel_version u16                            0x258 pref_address u64
//	0x210 type_of_loader u8                             0x260 init_size u32
const (
	offSetupSects   = 0x1f1
	offSyssize      = 0x1f4
	offBootFlag     = 0x1fe
	offHeaderLen    = 0x201
	offMagic        = 0x202
	offVersion      = 0x206
	offKernelName   = 0x20e
	offLoader       = 0x210
	offLoadflags    = 0x211
	offRamdisk      = 0x218
	offRamdiskSize  = 0x21c
	offCmdline      = 0x228
	offInitrdMax    = 0x22c
	offAlignment    = 0x230
	offXloadflags   = 0x236
	offCmdlineSize  = 0x238
	offPayload      = 0x248
	offPayloadLen   = 0x24c
	offPrefAddress  = 0x258
	offInitSize     = 0x260
	headerEnd       = 0x268
	maxHeaderEnd    = 0x290 // boot_params has other things from here on
	bootFlag        = 0xaa55
	magic           = "HdrS"
	minVersion      = 0x20c // xloadflags; Linux 3.8
	sector          = 512
	loadedHigh      = 1 << 0 // loadflags
	xlfKernel64     = 1 << 0 // xloadflags: has the 64-bit entry point
	xlfAbove4G      = 1 << 1 // initrd, command line and boot_params may lie above 4 GiB
	entry64         = 0x200  // offset of the 64-bit entry point
	loaderUndefined = 0xff
)

// header is what a bzImage says about itself, checked against the file.
type header struct {
	raw       []byte // from the file's start to the header's end
	version   uint16
	name      string
	system    int64 // file offset of the protected-mode part
	sysLen    int64
	payload   int64 // file offset
	payLen    int64 // 0: not stated
	initrdMax uint32
	cmdline   uint32
	above4G   bool
	pref      uint64
	initSize  uint32
}

// readHeader reads and checks the setup header.
func readHeader(r *io.SectionReader) (*header, error) {
	b := make([]byte, maxHeaderEnd)
	if n, err := r.ReadAt(b, 0); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("bzImage is truncated: %d bytes are less than its header", n)
		}
		return nil, err
	}
	le := binary.LittleEndian
	h := &header{version: le.Uint16(b[offVersion:])}
	if le.Uint16(b[offBootFlag:]) != bootFlag || string(b[offMagic:offMagic+4]) != magic {
		return nil, errors.New("not a bzImage")
	}
	if h.version < minVersion {
		return nil, fmt.Errorf("bzImage has boot protocol %d.%02d; 2.12 (Linux 3.8) is the oldest that works", h.version>>8, h.version&0xff)
	}
	if b[offLoadflags]&loadedHigh == 0 {
		return nil, errors.New("zImage, not bzImage: it loads below 1 MiB, which is not supported")
	}
	if le.Uint16(b[offXloadflags:])&xlfKernel64 == 0 {
		return nil, errors.New("32-bit kernel; only x86-64 kernels can be booted")
	}
	end := offMagic + int(b[offHeaderLen])
	if end < headerEnd || end > maxHeaderEnd {
		return nil, fmt.Errorf("bzImage header ends at 0x%x, which boot protocol %d.%02d does not allow", end, h.version>>8, h.version&0xff)
	}
	h.raw = b[:end]
	h.initrdMax, h.cmdline = le.Uint32(b[offInitrdMax:]), le.Uint32(b[offCmdlineSize:])
	h.above4G = le.Uint16(b[offXloadflags:])&xlfAbove4G != 0
	h.pref, h.initSize = le.Uint64(b[offPrefAddress:]), le.Uint32(b[offInitSize:])
	if err := h.locate(r.Size()); err != nil {
		return nil, err
	}
	h.name = kernelName(r, int64(le.Uint16(b[offKernelName:])), h.system)
	return h, nil
}

// locate finds the protected-mode part and the payload in a file of size bytes.
func (h *header) locate(size int64) error {
	le := binary.LittleEndian
	sects := int64(h.raw[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	h.system = (sects + 1) * sector
	h.sysLen = int64(le.Uint32(h.raw[offSyssize:])) * 16
	// The build rounds syssize up to 16 bytes, so the file may end a little earlier.
	if h.sysLen == 0 || h.system+h.sysLen-15 > size {
		return fmt.Errorf("bzImage is truncated: %d of %d bytes", size, h.system+h.sysLen)
	}
	h.sysLen = min(h.sysLen, size-h.system)
	off, n := int64(le.Uint32(h.raw[offPayload:])), int64(le.Uint32(h.raw[offPayloadLen:]))
	if off+n > h.sysLen {
		return fmt.Errorf("bzImage header puts its payload at 0x%x+0x%x, past the end of the kernel", off, n)
	}
	h.payload, h.payLen = h.system+off, n
	return nil
}

// kernelName reads the version string, for people; "" when there is none.
func kernelName(r *io.SectionReader, off, system int64) string {
	if off == 0 || off+sector >= system {
		return ""
	}
	b := make([]byte, 128)
	n, _ := r.ReadAt(b, off+sector)
	s, _, _ := strings.Cut(string(b[:n]), "\x00")
	s, _, _ = strings.Cut(s, " ")
	for _, c := range []byte(s) {
		if c < 0x21 || c > 0x7e {
			return ""
		}
	}
	return s
}
