// Package vpc reads Virtual PC's disk images (VHD).
package vpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"syscall"

	"berth/block"
	"berth/block/mapped"
)

const (
	sectorSize  = 512
	footerSize  = 512
	dynamicSize = 1024
	footerSum   = 0x40
	dynamicSum  = 0x24

	typeFixed        = 2
	typeDynamic      = 3
	typeDifferencing = 4

	unallocated = 0xffffffff

	maxSectors  = 0xff000000 // 2040 GiB
	maxGeometry = 65535 * 16 * 255
	maxEntries  = math.MaxInt32 / 4
	maxRead     = math.MaxInt32 &^ (sectorSize - 1) // what QEMU reads at once
)

// Format returns what there is to say about the format; its images are only read.
func Format() block.Format {
	return block.Format{Name: "vpc", Probe: probe, Open: open}
}

// probe knows dynamic disks only: a fixed one begins with the guest's data.
func probe(head []byte) int {
	if len(head) >= 8 && string(head[:8]) == "conectix" {
		return 100
	}
	return 0
}

// footer is the last sector of every image, and the first of a dynamic one.
// Numbers are big endian (Virtual Hard Disk Image Format Specification 1.0,
// Hard Disk Footer Format).
//
//	0x00  "conectix"           0x1c  creator application, 4   0x3c  disk type
//	0x08  features             0x28  original size, 8         0x40  checksum
//	0x0c  version              0x30  current size, 8          0x44  UUID, 16
//	0x10  data offset, 8       0x38  cylinders, 2; heads, 1;  0x54  saved state, 1
//	0x18  time stamp                 sectors per track, 1
type footer [footerSize]byte

func (f *footer) valid() bool        { return string(f[:8]) == "conectix" }
func (f *footer) dataOffset() uint64 { return binary.BigEndian.Uint64(f[0x10:]) }
func (f *footer) kind() uint32       { return binary.BigEndian.Uint32(f[0x3c:]) }

// checksumRight says whether the checksum at that offset is the complement of
// the sum of all bytes of p but its own.
func checksumRight(p []byte, at int) bool {
	var sum uint32
	for i, b := range p {
		if i < at || i >= at+4 {
			sum += uint32(b)
		}
	}
	return ^sum == binary.BigEndian.Uint32(p[at:])
}

// sectors is the size of the disk: Virtual PC goes by the geometry, others by
// the size that the footer states. Who made the image tells, unless how does.
func (f *footer) sectors(how string) (int64, error) {
	n := int64(binary.BigEndian.Uint16(f[0x38:])) * int64(f[0x3a]) * int64(f[0x3b])
	geometry := true
	switch string(f[0x1c:0x20]) {
	case "win ", "qem2", "d2v ", "CTXS", "tap\x00":
		geometry = false
	}
	switch how {
	case "":
	case "chs":
		geometry = true
	case "current_size":
		geometry = false
	default:
		return 0, fmt.Errorf("Invalid size calculation mode: '%s'", how)
	}
	size := binary.BigEndian.Uint64(f[0x30:]) / sectorSize
	if !geometry || n == maxGeometry {
		if size > maxSectors {
			return 0, syscall.EFBIG
		}
		n = int64(size)
	} else if n == 0 && size > 0 {
		return 0, errors.New("The VHD image has no geometry: open it with force_size_calc=current_size")
	}
	return n, nil
}

type image struct {
	*mapped.Image
	f         block.File
	dynamic   bool
	table     *mapped.Cache
	tableOff  int64
	blockSize int64 // bytes of data, after the block's bitmap
	bitmap    int64 // bytes
}

func open(f block.File, o block.OpenOptions) (block.Image, error) {
	if err := mapped.Refuse("vpc", o); err != nil {
		return nil, err
	}
	i := &image{f: f, table: mapped.NewCache(f)}
	var foot footer
	if err := i.readFooter(&foot); err != nil {
		return nil, err
	}
	if !checksumRight(foot[:], footerSum) {
		return nil, errors.New("Incorrect header checksum")
	}
	switch {
	case i.dynamic && foot.kind() == typeDifferencing:
		return nil, errors.New("Differencing VHD images are not supported")
	case i.dynamic && foot.kind() != typeDynamic:
		return nil, errors.New("invalid VPC image")
	}
	sectors, err := foot.sectors(o.Values["force_size_calc"])
	if err != nil {
		return nil, err
	}
	if i.dynamic {
		err = i.openDynamic(&foot, sectors*sectorSize)
	} else if have := i.length()/sectorSize - 1; have < sectors {
		err = fmt.Errorf("The VHD image has %d sectors, %d are to be in it", have, sectors)
	}
	if err != nil {
		return nil, err
	}
	i.Image = mapped.New(i, sectors*sectorSize, f)
	return i, nil
}

// length is the file's in whole sectors: old fixed disks lack their last byte.
func (i *image) length() int64 { return (i.f.Size() + sectorSize - 1) &^ (sectorSize - 1) }

func (i *image) readFooter(foot *footer) error {
	if err := i.f.Readv([][]byte{foot[:]}, 0); err != nil {
		return errors.New("Unable to read VHD header")
	}
	if foot.valid() {
		i.dynamic = true
		return nil
	}
	if i.length() < footerSize {
		return errors.New("File too small for a VHD header")
	}
	if err := i.f.Readv([][]byte{foot[:]}, i.length()-footerSize); err != nil {
		return err
	}
	if !foot.valid() || foot.kind() != typeFixed {
		return errors.New("invalid VPC image")
	}
	return nil
}

// openDynamic reads the dynamic disk header, also big endian.
//
//	0x00  "cxsparse"          0x18  version          0x24  checksum
//	0x08  data offset, 8      0x1c  table entries    0x28  parent's UUID, 16
//	0x10  table offset, 8     0x20  block size       0x40  parent's name, 512
func (i *image) openDynamic(foot *footer, size int64) error {
	var d [dynamicSize]byte
	off := foot.dataOffset()
	if off > math.MaxInt64-dynamicSize || i.f.Readv([][]byte{d[:]}, int64(off)) != nil {
		return errors.New("Error reading dynamic VHD header")
	}
	if string(d[:8]) != "cxsparse" {
		return errors.New("Invalid header magic")
	}
	if !checksumRight(d[:], dynamicSum) {
		return errors.New("Incorrect checksum of the dynamic VHD header")
	}
	bs, entries := binary.BigEndian.Uint32(d[0x20:]), binary.BigEndian.Uint32(d[0x1c:])
	tableOff := binary.BigEndian.Uint64(d[0x10:])
	switch {
	case bits.OnesCount32(bs) != 1 || bs < sectorSize:
		return fmt.Errorf("Invalid block size %d", bs)
	case size/int64(bs) > math.MaxUint32:
		return errors.New("Too many blocks")
	case int64(entries)*int64(bs) < size:
		return errors.New("Page table too small")
	case entries > maxEntries:
		return fmt.Errorf("Max Table Entries too large (%d)", int32(entries))
	case tableOff > math.MaxInt64-4*maxEntries-sectorSize || int64(entries)*4 > maxRead:
		return errors.New("Error reading pagetable")
	}
	i.tableOff, i.blockSize = int64(tableOff), int64(bs)
	i.bitmap = (int64(bs)/(8*sectorSize) + sectorSize - 1) &^ (sectorSize - 1)
	return i.checkBlocks(int64(entries) * 4)
}

// checkBlocks says whether the table and all that it points to are in the file.
func (i *image) checkBlocks(table int64) error {
	truncated := errors.New("block-vpc: free_data_block_offset points after the end of file. The image has been truncated.")
	if i.tableOff+table > i.length() {
		return truncated
	}
	var last int64
	err := mapped.Scan(i.f, i.tableOff, table, func(p []byte) error {
		for ; len(p) > 0; p = p[4:] {
			if e := binary.BigEndian.Uint32(p); e != unallocated {
				last = max(last, int64(e)*sectorSize+i.bitmap+i.blockSize)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("Error reading pagetable: %w", err)
	}
	if last > i.length() {
		return truncated
	}
	return nil
}

// Run implements mapped.Map. The bitmap before each block's data says which of
// its sectors were written; the others are zeros, so it need not be read.
func (i *image) Run(off, n int64) (mapped.Run, error) {
	if !i.dynamic {
		return mapped.Run{Len: n, Kind: mapped.Data, File: i.f, Off: off, Recurse: true}, nil
	}
	at, in := off/i.blockSize, off%i.blockSize
	r := mapped.Run{Len: min(n, i.blockSize-in), Kind: mapped.Zero}
	e, err := i.table.Uint32(i.tableOff+at*4, binary.BigEndian)
	if err == nil && e != unallocated {
		r.Kind, r.File, r.Off = mapped.Data, i.f, int64(e)*sectorSize+i.bitmap+in
	}
	return r, err
}

// Info implements block.Informer.
func (i *image) Info() block.Info { return block.Info{ClusterSize: i.blockSize} }
