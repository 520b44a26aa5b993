package qcow2

import (
	"errors"
	"fmt"
	"math/bits"
)

// Limits of bitmaps, those of QEMU.
const (
	maxBitmapTable       = 0x8000000 // entries
	maxBitmapBytes       = 512 << 20 // of a bitmap's bits
	maxBitmapName        = 1023
	minGranularityBits   = 9
	maxGranularityBits   = 31
	bitmapDirFixed       = 24
	bitmapEntryReserved  = 0xff000000000001fe
	bitmapAllOnes        = 1 << 0 // of a table entry without a cluster
	bitmapInUse          = 1 << 0
	bitmapAuto           = 1 << 1
	bitmapReserved       = ^uint32(3)
	bitmapTypeTracking   = 1
	bitmapTablesReadable = 16 << 20 // entries of all bitmaps of an image together
)

// bitmapDirEntry is an entry of the bitmap directory (qcow2 specification,
// "Bitmaps"); each is padded to a multiple of 8 bytes:
//
//	 0 bitmap table offset     8 bitmap table entries
//	12 flags: 0 in use, 1 auto, 2 extra data compatible
//	16 type: 1 dirty tracking 17 granularity bits
//	18 length of the name     20 length of extra data
//	24 extra data, name
type bitmapDirEntry struct {
	tableOff  int64
	tableSize uint32 // entries
	flags     uint32
	bits      uint8 // log2 of the granularity
	name      string
}

// decodeBitmapDir decodes a directory of count bitmaps of an image of size bytes.
func decodeBitmapDir(b []byte, count uint32, g *geometry, size int64) ([]bitmapDirEntry, error) {
	var list []bitmapDirEntry
	broken := errors.New("Broken bitmap directory")
	for len(b) > 0 {
		if len(b) < bitmapDirFixed {
			return nil, broken
		}
		if uint32(len(list)) == count {
			return nil, errors.New("More bitmaps found than specified in header extension")
		}
		nameLen, extra := int64(be.Uint16(b[18:])), int64(be.Uint32(b[20:]))
		n := (bitmapDirFixed + nameLen + extra + 7) &^ 7
		if n > int64(len(b)) {
			return nil, broken
		}
		if extra != 0 {
			return nil, errors.New("Bitmap extra data is not supported")
		}
		e := bitmapDirEntry{tableSize: be.Uint32(b[8:]), flags: be.Uint32(b[12:]), bits: b[17],
			tableOff: int64(be.Uint64(b)), name: cString(b[bitmapDirFixed : bitmapDirFixed+nameLen])}
		if b[16] != bitmapTypeTracking || nameLen > maxBitmapName || !e.valid(g, size) {
			return nil, fmt.Errorf("Bitmap '%s' doesn't satisfy the constraints", e.name)
		}
		list = append(list, e)
		b = b[n:]
	}
	if uint32(len(list)) != count {
		return nil, errors.New("Less bitmaps found than specified in header extension")
	}
	return list, nil
}

func (e *bitmapDirEntry) valid(g *geometry, size int64) bool {
	bytes := int64(e.tableSize) << g.clusterBits
	return e.tableSize != 0 && e.tableSize <= maxBitmapTable &&
		e.tableOff > 0 && g.inCluster(e.tableOff) == 0 &&
		e.bits >= minGranularityBits && e.bits <= maxGranularityBits &&
		e.flags&bitmapReserved == 0 && bytes <= maxBitmapBytes &&
		(e.flags&bitmapInUse != 0 || size <= bytes*8<<e.bits)
}

// encodeBitmapDir is the directory of list.
func encodeBitmapDir(list []bitmapDirEntry) []byte {
	var b []byte
	for _, e := range list {
		var h [bitmapDirFixed]byte
		be.PutUint64(h[0:], uint64(e.tableOff))
		be.PutUint32(h[8:], e.tableSize)
		be.PutUint32(h[12:], e.flags)
		h[16], h[17] = bitmapTypeTracking, e.bits
		be.PutUint16(h[18:], uint16(len(e.name)))
		b = append(b, h[:]...)
		b = append(b, e.name...)
		b = append(b, make([]byte, -len(b)&7)...)
	}
	return b
}

// validBitmapEntry tells whether an entry of a bitmap table makes sense: either
// an aligned cluster, or none and perhaps the flag that all bits are one.
func (g *geometry) validBitmapEntry(e uint64) bool {
	off := e & offsetMask
	return e&bitmapEntryReserved == 0 && (off == 0 || e&bitmapAllOnes == 0 && g.inCluster(int64(off)) == 0)
}

// bitmapClusters is how many clusters the bits take for size bytes: they are kept in words of 64.
func (g *geometry) bitmapClusters(size int64, granularityBits uint8) int64 {
	n := (size + 1<<granularityBits - 1) >> granularityBits
	return g.roundUp((n+63)/64*8) >> g.clusterBits
}

// checkBitmap is why an image of size bytes cannot have such a bitmap, in QEMU's words.
func (g *geometry) checkBitmap(name string, granularity, size int64) error {
	b := bits.TrailingZeros64(uint64(granularity))
	n := ((size+granularity-1)/granularity + 7) / 8
	switch {
	case b > maxGranularityBits:
		return fmt.Errorf("Granularity exceeds maximum (%d bytes)", int64(1)<<maxGranularityBits)
	case b < minGranularityBits:
		return fmt.Errorf("Granularity is under minimum (%d bytes)", 1<<minGranularityBits)
	case n > maxBitmapBytes || n > maxBitmapTable<<g.clusterBits:
		return errors.New("Too much space will be occupied by the bitmap. Use larger granularity")
	case len(name) > maxBitmapName:
		return fmt.Errorf("Name length exceeds maximum (%d characters)", maxBitmapName)
	}
	return nil
}

// readBitmapDir reads the image's directory.
func (i *Image) readBitmapDir() ([]bitmapDirEntry, error) {
	x := i.hdr.bitmaps
	switch {
	case x.dirSize == 0:
		return nil, errors.New("Requested bitmap directory size is zero")
	case x.dirSize > maxBitmapDir:
		return nil, errors.New("Requested bitmap directory size is too big")
	}
	b := make([]byte, x.dirSize)
	if err := readFull(i.file, b, int64(x.dirOffset)); err != nil {
		return nil, fmt.Errorf("Failed to read bitmap directory: %w", err)
	}
	return decodeBitmapDir(b, x.count, &i.geometry, i.Size())
}
