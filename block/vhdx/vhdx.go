// Package vhdx reads Hyper-V's disk images (VHDX).
package vhdx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"sort"
	"syscall"

	"berth/block"
	"berth/block/mapped"
)

// An image begins with 64 KiB pieces, of which the rest up to 1 MiB is
// reserved. Offsets of all else are multiples of 1 MiB. Numbers are little
// endian ([MS-VHDX], section 2).
//
//	0         64K       128K      192K      256K      320K           1M
//	+---------+---------+---------+---------+---------+--------------+------
//	| file id | header  | header  | regions | regions |   reserved   | log, table, ...
//	+---------+---------+---------+---------+---------+--------------+------
const (
	pieceSize  = 64 << 10
	header1    = 1 * pieceSize
	header2    = 2 * pieceSize
	regionsOff = 3 * pieceSize
	headEnd    = 1 << 20

	headerSize = 4 << 10 // what the checksum covers
	maxRegions = 2047

	minBlock, maxBlock = 1 << 20, 256 << 20
	maxSize            = 64 << 40
	sectorSize         = 512
	chunkSectors       = 1 << 23 // sectors that a sector bitmap block is for
)

// States of a payload block.
const (
	notPresent       = 0
	undefined        = 1
	zero             = 2
	unmapped         = 3
	unmappedV095     = 5
	fullyPresent     = 6
	partiallyPresent = 7

	stateMask  = 7
	offsetMask = 0xfffffffffff00000
)

// Format returns what there is to say about the format; its images are only read.
func Format() block.Format {
	return block.Format{Name: "vhdx", Probe: probe, Open: open}
}

func probe(head []byte) int {
	if len(head) >= 8 && string(head[:8]) == "vhdxfile" {
		return 100
	}
	return 0
}

// guid is one as it is stored: the first three fields are little endian.
type guid [16]byte

func guidOf(a uint32, b, c uint16, d [8]byte) (g guid) {
	binary.LittleEndian.PutUint32(g[0:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	copy(g[8:], d[:])
	return g
}

// region is a range of the file that nothing else may lie in.
type region struct{ off, end uint64 }

type image struct {
	*mapped.Image
	f         block.File
	checking  bool
	regions   []region // by off
	table     *mapped.Cache
	tableOff  int64
	tableLen  int64
	metaOff   int64
	size      int64
	blockSize int64
	chunk     int64 // payload blocks between two sector bitmap blocks in the table
}

func open(f block.File, o block.OpenOptions) (block.Image, error) {
	if err := mapped.Refuse("vhdx", o); err != nil {
		return nil, err
	}
	i := &image{f: f, checking: o.Check, table: mapped.NewCache(f)}
	var id [8]byte
	if err := f.Readv([][]byte{id[:]}, 0); err != nil {
		return nil, err
	}
	if probe(id[:]) == 0 {
		return nil, syscall.EINVAL
	}
	h, err := i.readHeader()
	if err != nil {
		return nil, err
	}
	if err := i.checkLog(h, o); err != nil {
		return nil, err
	}
	if err := i.readRegions(h); err != nil {
		return nil, err
	}
	if err := i.readMetadata(); err != nil {
		return nil, err
	}
	if err := i.checkTable(o.Check); err != nil {
		return nil, err
	}
	i.Image = mapped.New(i, i.size, f)
	return i, nil
}

// header says where the log is. Two are kept; the later that is whole counts.
//
//	0x00  "head"                 0x20  data write GUID, 16   0x44  log length
//	0x04  CRC-32C                0x30  log GUID, 16          0x48  log offset, 8
//	0x08  sequence number, 8     0x40  log version, 2
//	0x10  file write GUID, 16    0x42  version, 2
type header [headerSize]byte

func (h *header) valid() bool {
	return string(h[:4]) == "head" && binary.LittleEndian.Uint16(h[0x42:]) == 1 && checksumRight(h[:])
}
func (h *header) sequence() uint64  { return binary.LittleEndian.Uint64(h[8:]) }
func (h *header) logGUID() guid     { return guid(h[0x30:0x40]) }
func (h *header) logVersion() int   { return int(binary.LittleEndian.Uint16(h[0x40:])) }
func (h *header) logLen() int64     { return int64(binary.LittleEndian.Uint32(h[0x44:])) }
func (h *header) logOffset() uint64 { return binary.LittleEndian.Uint64(h[0x48:]) }

// checksumRight says whether the CRC-32C at offset 4 is p's, itself taken as zero.
func checksumRight(p []byte) bool {
	return checksum(p) == binary.LittleEndian.Uint32(p[4:])
}

func checksum(p []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, t, p[:4])
	c = crc32.Update(c, t, make([]byte, 4))
	return crc32.Update(c, t, p[8:])
}

func (i *image) readHeader() (*header, error) {
	var a, b header
	for off, h := range map[int64]*header{header1: &a, header2: &b} {
		if err := i.f.Readv([][]byte{h[:]}, off); err != nil {
			return nil, fmt.Errorf("No valid VHDX header found: %w", err)
		}
	}
	switch av, bv := a.valid(), b.valid(); {
	case av && !bv, av && a.sequence() > b.sequence():
		return &a, nil
	case bv && !av, bv && b.sequence() > a.sequence():
		return &b, nil
	case av && string(a[:0x50]) == string(b[:0x50]): // as Disk2vhd makes them
		return &a, nil
	}
	return nil, errors.New("No valid VHDX header found")
}

// readRegions reads the list of what lies where:
//
//	0x00  "regi"    0x04  CRC-32C of 64 KiB    0x08  entries    0x0c  reserved
//	0x10 and on, for each: GUID, 16; offset, 8; length, 4; required, 4
func (i *image) readRegions(h *header) error {
	p := make([]byte, pieceSize)
	if err := i.f.Readv([][]byte{p}, regionsOff); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(p[8:])
	if string(p[:4]) != "regi" || n > maxRegions || !checksumRight(p) {
		return errors.New("The VHDX region table is not valid")
	}
	table := guidOf(0x2dc27766, 0xf623, 0x4200, [8]byte{0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08})
	meta := guidOf(0x8b7ca206, 0x4790, 0x4b9a, [8]byte{0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e})
	i.regions = []region{{h.logOffset(), h.logOffset() + uint64(h.logLen())}}
	for p = p[16:]; n > 0; p, n = p[32:], n-1 {
		off, length := binary.LittleEndian.Uint64(p[16:]), int64(binary.LittleEndian.Uint32(p[24:]))
		if off > 1<<62 {
			return fmt.Errorf("VHDX region at %d is beyond all files", off)
		}
		i.regions = append(i.regions, region{off, off + uint64(length)})
		switch g := guid(p[:16]); {
		case g == table && i.tableOff == 0:
			i.tableOff, i.tableLen = int64(off), length
		case g == meta && i.metaOff == 0:
			i.metaOff = int64(off)
		case g == table || g == meta:
			return errors.New("A VHDX region occurs twice")
		case binary.LittleEndian.Uint32(p[28:])&1 != 0:
			return fmt.Errorf("VHDX region %x is required but not known", g)
		}
	}
	if i.tableOff == 0 || i.metaOff == 0 {
		return errors.New("The VHDX image lacks its block table or its metadata")
	}
	return i.sortRegions()
}

func (i *image) sortRegions() error {
	sort.Slice(i.regions, func(a, b int) bool { return i.regions[a].off < i.regions[b].off })
	for k := 1; k < len(i.regions); k++ {
		if a, b := i.regions[k-1], i.regions[k]; b.off < a.end {
			return overlap(b, a)
		}
	}
	return nil
}

func overlap(a, b region) error {
	return fmt.Errorf("VHDX region %d-%d overlaps with region %d-%d", a.off, a.end, b.off, b.end)
}

// free says whether no region lies in r.
func (i *image) free(r region) error {
	k := sort.Search(len(i.regions), func(k int) bool { return i.regions[k].end > r.off })
	if k < len(i.regions) && i.regions[k].off < r.end {
		return overlap(r, i.regions[k])
	}
	return nil
}

// blocks is how many payload blocks the disk has.
func (i *image) blocks() int64 { return (i.size + i.blockSize - 1) / i.blockSize }

// entries is how many of the table matter: a sector bitmap's comes after every
// chunk of blocks but the last.
func (i *image) entries() int64 { return i.blocks() + (i.blocks()-1)/i.chunk }

func (i *image) checkTable(checking bool) error {
	if need := i.entries() * 8; need > i.tableLen {
		return fmt.Errorf("The VHDX block table has %d bytes but the disk needs %d", i.tableLen, need)
	}
	if err := mapped.Within(i.f, i.tableOff, i.entries()*8); err != nil {
		return fmt.Errorf("The VHDX block table: %w", err)
	}
	if checking {
		return nil
	}
	return i.eachBlock(func(err error) error { return err })
}

// eachBlock gives what is wrong with each block to bad, until that returns an error.
func (i *image) eachBlock(bad func(error) error) error {
	var at int64
	return mapped.Scan(i.f, i.tableOff, i.entries()*8, func(p []byte) error {
		for ; len(p) > 0; p, at = p[8:], at+1 {
			e := binary.LittleEndian.Uint64(p)
			if at%(i.chunk+1) == i.chunk || e&stateMask != fullyPresent {
				continue
			}
			if err := i.checkBlock(at, e&offsetMask); err != nil {
				if err := bad(err); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// checkBlock checks a present block. The last may end where the disk does.
func (i *image) checkBlock(at int64, off uint64) error {
	file := uint64(i.f.Size())
	n := min(i.blockSize, i.size-(at-at/(i.chunk+1))*i.blockSize)
	switch end := off + uint64(n); {
	case off > 1<<63-maxBlock-1:
		return fmt.Errorf("VHDX BAT entry %d offset overflow.", at)
	case off >= file:
		return fmt.Errorf("VHDX BAT entry %d start offset %d points after end of file (%d). Image has probably been truncated.", at, off, file)
	case end > file:
		return fmt.Errorf("VHDX BAT entry %d end offset %d points after end of file (%d). Image has probably been truncated.", at, end-1, file)
	case off < headEnd:
		return fmt.Errorf("VHDX BAT entry %d points into the header", at)
	}
	return i.free(region{off, off + uint64(i.blockSize)})
}

// Run implements mapped.Map.
func (i *image) Run(off, n int64) (mapped.Run, error) {
	at, in := off/i.blockSize, off%i.blockSize
	at += at / i.chunk
	r := mapped.Run{Len: min(n, i.blockSize-in), Kind: mapped.Zero}
	e, err := i.table.Uint64(i.tableOff+at*8, binary.LittleEndian)
	if err != nil {
		return r, err
	}
	switch e & stateMask {
	case notPresent, undefined, zero, unmapped, unmappedV095:
	case fullyPresent:
		if i.checking {
			if err := i.checkBlock(at, e&offsetMask); err != nil {
				return r, fmt.Errorf("%w: %w", err, syscall.EIO)
			}
		}
		r.Kind, r.File, r.Off = mapped.Data, i.f, int64(e&offsetMask)+in
	default:
		return r, fmt.Errorf("VHDX BAT entry %d has state %d: %w", at, e&stateMask, syscall.EIO)
	}
	return r, nil
}

// Extent implements block.Extenter. As in QEMU, all is data and nothing has an offset.
func (i *image) Extent(off, n int64) (block.Extent, error) {
	if off < 0 || n < 0 || off > i.size || n > i.size-off {
		return block.Extent{}, block.ErrRange
	}
	return block.Extent{Len: n, Allocated: true, Data: true, EOF: off+n == i.size}, nil
}

// Info implements block.Informer.
func (i *image) Info() block.Info { return block.Info{ClusterSize: i.blockSize} }

// Check implements block.Checker. As in QEMU, there is nothing that it could repair.
func (i *image) Check(_ block.Fix, report func(string)) (block.CheckResult, error) {
	var res block.CheckResult
	err := i.eachBlock(func(err error) error {
		report(err.Error())
		res.Corruptions++
		return nil
	})
	return res, err
}

func powerOfTwo(n uint32) bool { return bits.OnesCount32(n) == 1 }
