// Package vdi reads VirtualBox disk images.
package vdi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"

	"berth/block"
	"berth/block/mapped"
)

const (
	sectorSize = 512
	headerSize = 512
	blockSize  = 1 << 20 // the only one that there is
	signature  = 0xbeda107f
	version11  = 1<<16 | 1
	typeNormal = 1
	typeStatic = 2

	firstUnallocated = 0xfffffffe // this: discarded; the next: never allocated

	maxBlocks = (1<<31 - sectorSize) / 4
	maxSize   = maxBlocks * blockSize
)

// Format returns what there is to say about the format; its images are only read.
func Format() block.Format {
	return block.Format{Name: "vdi", Probe: probe, Open: open}
}

func probe(head []byte) int {
	if len(head) >= headerSize && binary.LittleEndian.Uint32(head[0x40:]) == signature {
		return 100
	}
	return 0
}

// header is the first sector, without what does not matter here. Numbers are
// little endian (VirtualBox, src/VBox/Storage/VDICore.h).
//
//	0x000  text, 64 bytes         0x168  sector size        0x180  blocks
//	0x040  signature              0x170  disk size, 8       0x184  blocks allocated
//	0x044  version                0x178  block size         0x1a8  UUID of the linked image
//	0x04c  type                   0x17c  extra per block    0x1b8  UUID of the parent
//	0x154  offset of the map      0x158  offset of the data
type header struct {
	signature, version, kind uint32
	mapOff, dataOff          uint32
	sectorSize, blockSize    uint32
	extra                    uint32
	diskSize                 uint64
	blocks, allocated        uint32
	link, parent             [16]byte
}

func decode(b *[headerSize]byte) header {
	u32 := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	h := header{
		signature: u32(0x40), version: u32(0x44), kind: u32(0x4c),
		mapOff: u32(0x154), dataOff: u32(0x158), sectorSize: u32(0x168), blockSize: u32(0x178), extra: u32(0x17c),
		diskSize: binary.LittleEndian.Uint64(b[0x170:]), blocks: u32(0x180), allocated: u32(0x184),
	}
	copy(h.link[:], b[0x1a8:])
	copy(h.parent[:], b[0x1b8:])
	return h
}

func (h *header) check() error {
	var none [16]byte
	switch room := uint64(h.blocks) * uint64(h.blockSize); {
	case h.diskSize > maxSize:
		return fmt.Errorf("Unsupported VDI image size (size is 0x%x, max supported is 0x%x)", h.diskSize, uint64(maxSize))
	case h.signature != signature:
		return fmt.Errorf("Image not in VDI format (bad signature %08x)", h.signature)
	case h.version != version11:
		return fmt.Errorf("unsupported VDI image (version %d.%d)", h.version>>16, h.version&0xffff)
	case h.mapOff%sectorSize != 0:
		return fmt.Errorf("unsupported VDI image (unaligned block map offset 0x%x)", h.mapOff)
	case h.dataOff%sectorSize != 0:
		return fmt.Errorf("unsupported VDI image (unaligned data offset 0x%x)", h.dataOff)
	case h.sectorSize != sectorSize:
		return fmt.Errorf("unsupported VDI image (sector size %d is not %d)", h.sectorSize, sectorSize)
	case h.blockSize != blockSize:
		return fmt.Errorf("unsupported VDI image (block size %d is not %d)", h.blockSize, blockSize)
	case h.size() > room:
		return fmt.Errorf("unsupported VDI image (disk size %d, image bitmap has room for %d)", h.size(), room)
	case !bytes.Equal(h.link[:], none[:]):
		return fmt.Errorf("unsupported VDI image (non-NULL link UUID)")
	case !bytes.Equal(h.parent[:], none[:]):
		return fmt.Errorf("unsupported VDI image (non-NULL parent UUID)")
	case h.blocks > maxBlocks:
		return fmt.Errorf("unsupported VDI image (too many blocks %d, max is %d)", h.blocks, maxBlocks)
	case h.kind != typeNormal && h.kind != typeStatic: // undo and differencing
		return fmt.Errorf("unsupported VDI image (type %d)", h.kind)
	case h.extra != 0:
		return fmt.Errorf("unsupported VDI image (%d extra bytes in each block)", h.extra)
	}
	return nil
}

// size is the disk's in whole sectors: VBoxManage can make others.
func (h *header) size() uint64 { return (h.diskSize + sectorSize - 1) &^ (sectorSize - 1) }

// image is a map of 4 bytes for each block: where among the data blocks it is.
// The map is little endian too.
type image struct {
	*mapped.Image
	f     block.File
	h     header
	table *mapped.Cache
}

func open(f block.File, o block.OpenOptions) (block.Image, error) {
	if err := mapped.Refuse("vdi", o); err != nil {
		return nil, err
	}
	var b [headerSize]byte
	if err := f.Readv([][]byte{b[:]}, 0); err != nil {
		return nil, err
	}
	i := &image{f: f, h: decode(&b), table: mapped.NewCache(f)}
	if err := i.h.check(); err != nil {
		return nil, err
	}
	if err := mapped.Within(f, int64(i.h.mapOff), int64(i.h.blocks)*4); err != nil {
		return nil, fmt.Errorf("unsupported VDI image (block map: %w)", err)
	}
	i.Image = mapped.New(i, int64(i.h.size()), f)
	return i, nil
}

// Run implements mapped.Map.
func (i *image) Run(off, n int64) (mapped.Run, error) {
	at, in := off/blockSize, off%blockSize
	r := mapped.Run{Len: min(n, blockSize-in), Kind: mapped.Zero}
	e, err := i.table.Uint32(int64(i.h.mapOff)+at*4, binary.LittleEndian)
	if err == nil && e < firstUnallocated {
		r.Kind, r.File, r.Recurse = mapped.Data, i.f, i.h.kind == typeStatic
		r.Off = int64(i.h.dataOff) + int64(e)*blockSize + in
	}
	return r, err
}

// Info implements block.Informer.
func (*image) Info() block.Info { return block.Info{ClusterSize: blockSize} }

// Check implements block.Checker; nothing is repaired.
func (i *image) Check(fix block.Fix, report func(string)) (block.CheckResult, error) {
	var res block.CheckResult
	if fix != 0 {
		return res, syscall.ENOTSUP
	}
	bad := func(format string, args ...any) {
		report(fmt.Sprintf(format, args...))
		res.Corruptions++
	}
	var at, allocated uint32
	used := make([]uint64, (int64(i.h.blocks)+63)/64)
	err := mapped.Scan(i.f, int64(i.h.mapOff), int64(i.h.blocks)*4, func(p []byte) error {
		for ; len(p) > 0; p, at = p[4:], at+1 {
			switch e := binary.LittleEndian.Uint32(p); {
			case e >= firstUnallocated:
			case e >= i.h.blocks:
				bad("ERROR: block index %d too large, is %d", at, e)
			case used[e/64]&(1<<(e%64)) != 0:
				allocated++
				bad("ERROR: block index %d also used by %d", e, e)
			default:
				allocated++
				used[e/64] |= 1 << (e % 64)
				n := min(blockSize, int64(i.h.size())-int64(at)*blockSize)
				if mapped.Within(i.f, int64(i.h.dataOff)+int64(e)*blockSize, max(0, n)) != nil {
					bad("ERROR: block index %d points after EOF", at)
				}
			}
		}
		return nil
	})
	if err != nil {
		return res, err
	}
	if allocated != i.h.allocated {
		bad("ERROR: allocated blocks mismatch, is %d, should be %d", allocated, i.h.allocated)
	}
	return res, nil
}
