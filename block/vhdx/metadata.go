package vhdx

import (
	"encoding/binary"
	"errors"
	"fmt"

	"berth/block/mapped"
)

const (
	metadataTable = 64 << 10
	maxItems      = 2047
	flagRequired  = 4
	flagHasParent = 2
)

// items are those that an image must have, in the order of readMetadata.
func items() [5]guid {
	return [5]guid{
		guidOf(0xcaa16737, 0xfa36, 0x4d43, [8]byte{0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b}), // file parameters
		guidOf(0x2fa54224, 0xcd1b, 0x4876, [8]byte{0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8}), // virtual disk size
		guidOf(0x8141bf1d, 0xa96f, 0x4709, [8]byte{0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f}), // logical sector size
		guidOf(0xcda348c7, 0x445d, 0x4471, [8]byte{0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56}), // physical sector size
		guidOf(0xbeca12ab, 0xb2e6, 0x4523, [8]byte{0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46}), // page 83 data
	}
}

// readMetadata reads what the disk is like:
//
//	0x00  "metadata"    0x08  reserved, 2    0x0a  entries, 2    0x0c  reserved, 20
//	0x20 and on, for each: GUID, 16; offset in the region, 4; length, 4; flags, 4; reserved, 4
func (i *image) readMetadata() error {
	where, err := i.findItems()
	if err != nil {
		return err
	}
	var b [5][8]byte
	for k, off := range where[:4] {
		if err := i.f.Readv([][]byte{b[k][:]}, i.metaOff+off); err != nil {
			return err
		}
	}
	blockSize, flags := binary.LittleEndian.Uint32(b[0][:]), binary.LittleEndian.Uint32(b[0][4:])
	size, sector := binary.LittleEndian.Uint64(b[1][:]), binary.LittleEndian.Uint32(b[2][:])
	switch {
	case flags&flagHasParent != 0:
		return errors.New("Differencing VHDX images are not supported")
	case blockSize < minBlock || blockSize > maxBlock || !powerOfTwo(blockSize):
		return fmt.Errorf("Invalid VHDX block size %d", blockSize)
	case sector != sectorSize:
		return fmt.Errorf("VHDX images with a sector size of %d are not supported", sector)
	case size < sectorSize || size > maxSize:
		return fmt.Errorf("The VHDX image's size of %d is not one that the format allows", size)
	}
	i.size, i.blockSize = int64(size)&^(sectorSize-1), int64(blockSize)
	i.chunk = chunkSectors * sectorSize / i.blockSize
	return nil
}

// findItems returns the offset of each of items in the region.
func (i *image) findItems() (where [5]int64, err error) {
	p := make([]byte, metadataTable)
	if err := mapped.Within(i.f, i.metaOff, metadataTable); err != nil {
		return where, fmt.Errorf("The VHDX metadata: %w", err)
	}
	if err := i.f.Readv([][]byte{p}, i.metaOff); err != nil {
		return where, err
	}
	n := int(binary.LittleEndian.Uint16(p[10:]))
	if string(p[:8]) != "metadata" || n > maxItems {
		return where, errors.New("The VHDX metadata table is not valid")
	}
	known := items()
	parent := guidOf(0xa8d35f2d, 0xb30b, 0x454d, [8]byte{0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c})
	for p = p[32:]; n > 0; p, n = p[32:], n-1 {
		g, at := guid(p[:16]), -1
		for k := range known {
			if known[k] == g {
				at = k
			}
		}
		switch {
		case g == parent:
			return where, errors.New("Differencing VHDX images are not supported")
		case at >= 0 && where[at] != 0:
			return where, fmt.Errorf("VHDX metadata item %x occurs twice", g)
		case at >= 0:
			where[at] = int64(binary.LittleEndian.Uint32(p[16:]))
		case binary.LittleEndian.Uint32(p[24:])&flagRequired != 0:
			return where, fmt.Errorf("VHDX metadata item %x is required but not known", g)
		}
	}
	for k, off := range where {
		if off == 0 {
			return where, fmt.Errorf("VHDX metadata item %x is missing", known[k])
		}
	}
	return where, nil
}
