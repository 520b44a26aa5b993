package vmdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"syscall"

	"berth/block"
	"berth/block/mapped"
)

const (
	maxGrain           = 0x200000 // sectors
	maxCompressedGrain = 4096     // sectors; it is unpacked in memory
	maxDirectory       = 32 << 20 // entries
	maxTable           = 512      // entries
	maxSparse          = 1 << 53  // sectors

	flagLineEnds  = 1 << 0
	flagSecond    = 1 << 1 // directory
	flagZeroGrain = 1 << 2
	flagMarkers   = 1 << 17
	deflate       = 1
	atEnd         = math.MaxUint64 // the directory's offset is in the footer

	markerFooter = 3
	zeroGrain    = 1 // a table's entry
)

// extent is one run of the disk, in a file of its own or in the image's.
type extent struct {
	f           block.File
	name, kind  string
	start, size int64 // bytes
	stated      int64 // sectors by the descriptor, if it is in one

	flatOff int64 // where in f the bytes are, if grain is 0

	// A sparse extent has a directory of tables of grains; entries are sectors
	// of f, and 4 bytes each:
	//
	//	directory --> table --> grain
	//
	// 0 is what is not there. A grain's 1 is, where zeroGrain is, one of zeros.
	grain      int64 // bytes
	perTable   int64 // entries
	directory  int64 // offset
	zeroGrain  bool
	compressed bool
	markers    bool // before each compressed grain
	tables     *mapped.Cache
	buffers    sync.Pool // of *buffers
}

func newExtent(f block.File, name string, l extentLine) (*extent, error) {
	switch l.kind {
	case "FLAT", "VMFS":
		return newFlat(f, name, l)
	case "SPARSE":
		if f.Size() == 0 {
			return nil, errors.New("File is too small, not a valid image")
		}
		h, err := readHeader(f, name)
		if err != nil {
			return nil, err
		}
		if string(h[:4]) != magicSparse {
			return nil, errors.New("Image not in VMDK format")
		}
		if h.capacity() == 0 {
			return nil, fmt.Errorf("The VMDK extent '%s' is empty", name)
		}
		e, err := newSparse(f, name, h)
		if err == nil {
			e.kind = l.kind
		}
		return e, err
	}
	return nil, fmt.Errorf("Unsupported extent type '%s'", l.kind)
}

func newFlat(f block.File, name string, l extentLine) (*extent, error) {
	have := (f.Size() + sectorSize - 1) / sectorSize
	if l.off > have || l.sectors > have-l.off {
		return nil, fmt.Errorf("File truncated: the VMDK extent '%s' has %d sectors, %d from %d on are to be in it", name, have, l.sectors, l.off)
	}
	return &extent{f: f, name: name, kind: l.kind, size: l.sectors * sectorSize, flatOff: l.off * sectorSize}, nil
}

// header begins a sparse extent, and ends it again, as a footer, where the
// directory's offset is all ones. Offsets are in sectors; numbers are little
// endian and not aligned (VMware Virtual Disk Format 1.1, Hosted Sparse Extent Header).
//
//	0x00  "KDMV"        0x1c  descriptor's offset, 8    0x38  directory's offset, 8
//	0x04  version       0x24  descriptor's size, 8      0x40  offset of the grains, 8
//	0x08  flags         0x2c  entries of a table        0x48  unclean shutdown, 1
//	0x0c  capacity, 8   0x30  second directory's        0x49  end of line check, 4
//	0x14  grain, 8            offset, 8                 0x4d  compression, 2
//
// The end of line check is what a copy as text changes: "\n \r\n".
type header [sectorSize]byte

func (h *header) u32(off int) uint32 { return binary.LittleEndian.Uint32(h[off:]) }
func (h *header) u64(off int) uint64 { return binary.LittleEndian.Uint64(h[off:]) }

func (h *header) version() uint32          { return h.u32(0x04) }
func (h *header) flags() uint32            { return h.u32(0x08) }
func (h *header) capacity() uint64         { return h.u64(0x0c) }
func (h *header) grain() uint64            { return h.u64(0x14) }
func (h *header) descriptorOffset() uint64 { return h.u64(0x1c) }
func (h *header) perTable() uint32         { return h.u32(0x2c) }
func (h *header) directory() uint64        { return h.u64(0x38) }
func (h *header) second() uint64           { return h.u64(0x30) }
func (h *header) grains() uint64           { return h.u64(0x40) }
func (h *header) compression() uint16      { return binary.LittleEndian.Uint16(h[0x4d:]) }
func (h *header) compressed() bool         { return h.compression() == deflate }

func readHeader(f block.File, name string) (*header, error) {
	var h header
	if err := f.Readv([][]byte{h[:]}, 0); err != nil {
		return nil, fmt.Errorf("Could not read header from file '%s': %w", name, err)
	}
	return &h, nil
}

// footer returns the header that takes the place of the first: the last but
// one sector, between two markers.
func footer(f block.File) (*header, error) {
	var p [3]header
	end := (f.Size() + sectorSize - 1) &^ (sectorSize - 1)
	if end < int64(len(p))*sectorSize {
		return nil, errors.New("Invalid footer")
	}
	if err := f.Readv([][]byte{p[0][:], p[1][:], p[2][:]}, end-int64(len(p))*sectorSize); err != nil {
		return nil, fmt.Errorf("Failed to read footer: %w", err)
	}
	if string(p[1][:4]) != magicSparse || p[0].u32(8) != 0 || p[0].u32(12) != markerFooter ||
		p[2].u64(0) != 0 || p[2].u32(8) != 0 || p[2].u32(12) != 0 {
		return nil, errors.New("Invalid footer")
	}
	return &p[1], nil
}

func newSparse(f block.File, name string, h *header) (*extent, error) {
	if h.directory() == atEnd {
		var err error
		if h, err = footer(f); err != nil {
			return nil, err
		}
	}
	covers := uint64(h.perTable()) * h.grain() // sectors that a table is for
	switch {
	case h.version() > 3:
		return nil, fmt.Errorf("Unsupported VMDK version %d", h.version())
	case h.perTable() > maxTable:
		return nil, errors.New("L2 table size too big")
	case uint32(covers) == 0:
		return nil, errors.New("L1 entry size is invalid")
	case uint64(f.Size()+sectorSize-1)/sectorSize < h.grains():
		return nil, fmt.Errorf("File truncated, expecting at least %d bytes", int64(h.grains()*sectorSize))
	case h.grain() > maxGrain || h.compressed() && h.grain() > maxCompressedGrain:
		return nil, errors.New("Invalid granularity, image may be corrupt")
	case h.capacity() > maxSparse || (h.capacity()+covers-1)/covers > maxDirectory:
		return nil, errors.New("L1 size too big")
	case h.flags()&flagLineEnds != 0 && string(h[0x49:0x4d]) != "\n \r\n":
		return nil, errors.New("The VMDK file was changed when it was copied as text")
	case h.compression() > deflate:
		return nil, fmt.Errorf("Unsupported VMDK compression %d", h.compression())
	case !h.compressed() && h.flags()&flagMarkers != 0:
		return nil, errors.New("VMDK grains with markers are not supported unless they are compressed")
	}
	n := int64((h.capacity() + covers - 1) / covers)
	if err := within(f, h.directory(), n*4); err != nil {
		return nil, fmt.Errorf("Could not read l1 table from extent '%s': %w", name, err)
	}
	if h.flags()&flagSecond != 0 {
		if err := within(f, h.second(), n*4); err != nil {
			return nil, fmt.Errorf("Could not read l1 backup table from extent '%s': %w", name, err)
		}
	}
	return &extent{
		f: f, name: name, size: int64(h.capacity()) * sectorSize,
		grain: int64(h.grain()) * sectorSize, perTable: int64(h.perTable()), directory: int64(h.directory()) * sectorSize,
		zeroGrain: h.flags()&flagZeroGrain != 0, compressed: h.compressed(), markers: h.flags()&flagMarkers != 0,
		tables: mapped.NewCache(f),
	}, nil
}

// within says whether n bytes at a sector lie in the file.
func within(f block.File, sector uint64, n int64) error {
	if sector > math.MaxInt64/sectorSize {
		return fmt.Errorf("sector %d is beyond the end of the file", sector)
	}
	return mapped.Within(f, int64(sector)*sectorSize, n)
}

// run describes what begins at byte off of the extent.
func (e *extent) run(off, n int64) (mapped.Run, error) {
	if e.grain == 0 {
		return mapped.Run{Len: n, Kind: mapped.Data, File: e.f, Off: e.flatOff + off, Name: e.name, Recurse: true}, nil
	}
	covers := e.perTable * e.grain
	in := off % covers
	table, err := e.table(off)
	if err != nil {
		return mapped.Run{}, err
	}
	if table == 0 {
		return e.noTables(off+covers-in, covers-in, n)
	}
	p := make([]byte, 4*min(e.perTable-in/e.grain, (in%e.grain+n+e.grain-1)/e.grain))
	where := table*sectorSize + in/e.grain*4
	if err := mapped.Within(e.f, where, int64(len(p))); err != nil {
		return mapped.Run{}, fmt.Errorf("VMDK grain table: %w: %w", err, syscall.EIO)
	}
	if err := e.tables.ReadAt(p, where); err != nil {
		return mapped.Run{}, err
	}
	if u32s(p, 0) == zeroGrain && !e.zeroGrain { // and in sector 1 is the descriptor
		return mapped.Run{}, fmt.Errorf("VMDK grain of zeros where the header says that there are none: %w", syscall.EIO)
	}
	return e.grains(p, in%e.grain, n), nil
}

// table returns in which sector the table is that tells of byte off; 0: there is none.
func (e *extent) table(off int64) (int64, error) {
	t, err := e.tables.Uint32(e.directory+off/(e.perTable*e.grain)*4, binary.LittleEndian)
	return int64(t), err
}

// noTables describes a run for which there are no tables: of it, length bytes
// are known, and byte off is the next.
func (e *extent) noTables(off, length, n int64) (mapped.Run, error) {
	for length < n {
		table, err := e.table(off)
		if err != nil {
			return mapped.Run{}, err
		}
		if table != 0 {
			break
		}
		off, length = off+e.perTable*e.grain, length+e.perTable*e.grain
	}
	return mapped.Run{Len: min(length, n), Kind: mapped.Unallocated}, nil
}

// grains describes the run that begins in bytes into the first grain of p.
func (e *extent) grains(p []byte, in, n int64) mapped.Run {
	first := u32s(p, 0)
	r := mapped.Run{Len: e.grain - in, Kind: e.kindOf(first)}
	if r.Kind == mapped.Data || r.Kind == mapped.Compressed {
		r.File, r.Name, r.Off = e.f, e.name, first*sectorSize+in
	}
	if r.Kind == mapped.Compressed {
		r.Off -= in
		r.Len = min(r.Len, n)
		r.Read = func(iov [][]byte) error { return e.unpack(iov, r.Off, in) }
		return r
	}
	for k := int64(1); k < int64(len(p)/4) && r.Len < n; k++ {
		next := u32s(p, k)
		if e.kindOf(next) != r.Kind || r.Kind == mapped.Data && next*sectorSize != first*sectorSize+k*e.grain {
			break
		}
		r.Len += e.grain
	}
	r.Len = min(r.Len, n)
	return r
}

func (e *extent) kindOf(entry int64) mapped.Kind {
	switch {
	case entry == 0:
		return mapped.Unallocated
	case entry == zeroGrain && e.zeroGrain:
		return mapped.Zero
	case e.compressed:
		return mapped.Compressed
	}
	return mapped.Data
}
