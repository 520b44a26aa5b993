package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"berth/block"
)

// Feature bits of the header (qcow2 specification, "Feature bits").
const (
	incompatDirty       = 1 << 0
	incompatCorrupt     = 1 << 1
	incompatDataFile    = 1 << 2
	incompatCompression = 1 << 3
	incompatExtL2       = 1 << 4
	incompatKnown       = 1<<5 - 1

	compatLazyRefcounts = 1 << 0

	autoclearBitmaps     = 1 << 0
	autoclearDataFileRaw = 1 << 1
	autoclearKnown       = 1<<2 - 1
)

// Compression types.
const (
	compressZlib = 0
	compressZstd = 1
)

// Types of header extensions.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extFeatureTable  = 0x6803f857
	extCrypto        = 0x0537be77
	extBitmaps       = 0x23852875
	extDataFile      = 0x44415441
)

// Limits, those of QEMU.
const (
	minClusterBits  = 9
	maxClusterBits  = 21
	maxL1Bytes      = 32 << 20
	maxReftable     = 8 << 20
	maxSnapshots    = 65536
	snapshotMinimum = 40 // bytes of a snapshot table entry without its variable part
	headerBytesV2   = 72
	headerBytesV3   = 104
	headerBytes     = 112 // with the compression type
	maxBackingName  = 1023
	maxBitmaps      = 65535
	maxBitmapDir    = maxBitmaps * 1024
)

var be = binary.BigEndian

// header is the image's header in memory (qcow2 specification, "Header"):
//
//	  0 magic "QFI\xfb"          4 version
//	  8 backing file offset     16 backing file size
//	 20 cluster bits            24 size, bytes
//	 32 encryption method       36 L1 entries
//	 40 L1 table offset         48 refcount table offset
//	 56 refcount table clusters 60 snapshots
//	 64 snapshot table offset
//	 72 incompatible features   80 compatible features   (version 3)
//	 88 autoclear features      96 refcount order
//	100 header length          104 compression type, 7 bytes of padding
//
// Extensions follow at the header's length, then the backing file's name.
type header struct {
	version         uint32
	clusterBits     uint32
	size            uint64 // bytes
	crypt           uint32
	l1Size          uint32 // entries
	l1Offset        uint64
	reftableOffset  uint64
	reftableClus    uint32
	snapshots       uint32
	snapshotsOffset uint64
	incompat        uint64
	compat          uint64
	autoclear       uint64
	refcountOrder   uint32
	compression     uint8

	backingFile   string
	backingFormat string
	dataFile      string
	bitmaps       bitmapExt
	crypto        cryptoExt
	nameless      bool        // encoded without the names of features
	unknownFields []byte      // header fields past those known
	unknownExts   []extension // in the order in which they were found
}

// bitmapExt is the bitmaps extension; count 0: there is none.
type bitmapExt struct {
	count     uint32
	dirSize   uint64 // bytes
	dirOffset uint64
}

type extension struct {
	magic uint32
	data  []byte
}

func (h *header) clusterSize() int64 { return 1 << h.clusterBits }
func (h *header) extL2() bool        { return h.incompat&incompatExtL2 != 0 }
func (h *header) external() bool     { return h.incompat&incompatDataFile != 0 }
func (h *header) rawExternal() bool {
	return h.external() && h.autoclear&autoclearDataFileRaw != 0
}
func (h *header) lazy() bool { return h.compat&compatLazyRefcounts != 0 }

// l1EntryBytes is how many guest bytes one L1 entry maps.
func (h *header) l1EntryBytes() uint64 {
	return h.l2Entries() << h.clusterBits
}

func (h *header) l2Entries() uint64 {
	if h.extL2() {
		return uint64(h.clusterSize()) / 16
	}
	return uint64(h.clusterSize()) / 8
}

// sizeToL1 is how many L1 entries map size bytes.
func (h *header) sizeToL1(size uint64) uint64 {
	per := h.l1EntryBytes()
	n := size / per
	if size%per != 0 {
		n++
	}
	return n
}

func probe(head []byte) int {
	if len(head) >= headerBytesV2 && string(head[:4]) == magic && be.Uint32(head[4:]) >= 2 {
		return 100
	}
	return 0
}

const magic = "QFI\xfb"

// readHeader reads and validates everything that the first cluster says.
// dropBitmaps is true if a bitmaps extension was found that a program without
// bitmap support has made untrue.
func readHeader(f block.File, o block.OpenOptions) (h *header, dropBitmaps bool, err error) {
	var b [headerBytes]byte
	if err := readFull(f, b[:], 0); err != nil {
		return nil, false, fmt.Errorf("Could not read qcow2 header: %w", err)
	}
	h, length, err := decodeFixed(b[:])
	if err != nil {
		return nil, false, err
	}
	rest := make([]byte, h.clusterSize())
	if err := readFull(f, rest, 0); err != nil {
		return nil, false, fmt.Errorf("Could not read qcow2 header: %w", err)
	}
	dropBitmaps, err = h.decodeRest(rest, length, o)
	return h, dropBitmaps, err
}

// decodeFixed decodes the fields that have a fixed place.
func decodeFixed(b []byte) (*header, uint32, error) {
	if string(b[:4]) != magic {
		return nil, 0, errNotQcow2
	}
	h := &header{version: be.Uint32(b[4:])}
	if h.version < 2 || h.version > 3 {
		return nil, 0, fmt.Errorf("Unsupported qcow2 version %d", h.version)
	}
	h.clusterBits = be.Uint32(b[20:])
	if h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits {
		return nil, 0, fmt.Errorf("Unsupported cluster size: 2^%d", h.clusterBits)
	}
	h.size = be.Uint64(b[24:])
	h.crypt = be.Uint32(b[32:])
	h.l1Size = be.Uint32(b[36:])
	h.l1Offset = be.Uint64(b[40:])
	h.reftableOffset = be.Uint64(b[48:])
	h.reftableClus = be.Uint32(b[56:])
	h.snapshots = be.Uint32(b[60:])
	h.snapshotsOffset = be.Uint64(b[64:])
	h.refcountOrder = 4
	length := uint32(headerBytesV2)
	if h.version == 3 {
		h.incompat = be.Uint64(b[72:])
		h.compat = be.Uint64(b[80:])
		h.autoclear = be.Uint64(b[88:])
		h.refcountOrder = be.Uint32(b[96:])
		length = be.Uint32(b[100:])
		if length < headerBytesV3 {
			return nil, 0, errors.New("qcow2 header too short")
		}
	}
	if int64(length) > h.clusterSize() {
		return nil, 0, errors.New("qcow2 header exceeds cluster size")
	}
	if length > headerBytesV3 {
		h.compression = b[104]
	}
	return h, length, nil
}

// decodeRest decodes what has no fixed place, and validates the whole.
func (h *header) decodeRest(b []byte, length uint32, o block.OpenOptions) (dropBitmaps bool, err error) {
	if length > headerBytes {
		h.unknownFields = bytes.Clone(b[headerBytes:length])
	}
	nameAt, nameLen := be.Uint64(b[8:]), be.Uint32(b[16:])
	if nameAt > uint64(len(b)) {
		return false, errors.New("Invalid backing file offset")
	}
	end := uint64(len(b))
	if nameAt != 0 {
		end = nameAt
	}
	if err := h.validateCompression(); err != nil {
		return false, err
	}
	if bad := h.incompat &^ incompatKnown; bad != 0 {
		return false, unsupportedFeatures(bad, featureTable(b, uint64(length), end))
	}
	if h.incompat&incompatCorrupt != 0 && !o.ReadOnly && !o.Check {
		return false, errors.New("qcow2: Image is corrupt; cannot be opened read/write")
	}
	if err := h.validate(o); err != nil {
		return false, err
	}
	if dropBitmaps, err = h.decodeExtensions(b, uint64(length), end); err != nil {
		return false, err
	}
	if h.crypt > cryptLUKS || h.crypt != 0 && !(o.NoIO && o.ReadOnly) {
		return false, errEncrypted(h.crypt)
	}
	if nameAt != 0 {
		if uint64(nameLen) > min(maxBackingName, uint64(len(b))-nameAt) {
			return false, errors.New("Backing file name too long")
		}
		h.backingFile = cString(b[nameAt : nameAt+uint64(nameLen)])
	}
	return dropBitmaps, nil
}

func (h *header) validateCompression() error {
	switch h.compression {
	case compressZlib, compressZstd:
	default:
		return fmt.Errorf("qcow2: unknown compression type: %d", h.compression)
	}
	if (h.compression != compressZlib) != (h.incompat&incompatCompression != 0) {
		if h.compression == compressZlib {
			return errors.New("qcow2: Compression type incompatible feature bit must not be set")
		}
		return errors.New("qcow2: Compression type incompatible feature bit must be set")
	}
	return nil
}

// validate checks the tables' places and sizes, with QEMU's words.
func (h *header) validate(o block.OpenOptions) error {
	if h.extL2() && h.clusterSize()/32 < 1<<minClusterBits {
		return fmt.Errorf("Unsupported subcluster size: %d", h.clusterSize()/32)
	}
	if h.refcountOrder > 6 {
		return errors.New("Reference count entry width too large; may not exceed 64 bits")
	}
	if h.reftableClus == 0 && !o.Check {
		return errors.New("Image does not contain a reference count table")
	}
	if err := h.validTable(h.reftableOffset, uint64(h.reftableClus), uint64(h.clusterSize()), maxReftable, "Reference count table"); err != nil {
		return err
	}
	if !o.Check {
		if err := h.validTable(h.snapshotsOffset, uint64(h.snapshots), snapshotMinimum, snapshotMinimum*maxSnapshots, "Snapshot table"); err != nil {
			return err
		}
	}
	if err := h.validTable(h.l1Offset, uint64(h.l1Size), 8, maxL1Bytes, "Active L1 table"); err != nil {
		return err
	}
	need := h.sizeToL1(h.size)
	if need > math.MaxInt32 || h.size > math.MaxInt64 {
		return errors.New("Image is too big")
	}
	if uint64(h.l1Size) < need {
		return errors.New("L1 table is too small")
	}
	return nil
}

// validTable checks a table of n entries of size bytes at off.
func (h *header) validTable(off, n, size, limit uint64, name string) error {
	if n > limit/size {
		return fmt.Errorf("%s too large", name)
	}
	if math.MaxInt64-n*size < off || off&uint64(h.clusterSize()-1) != 0 {
		return fmt.Errorf("%s offset invalid", name)
	}
	return nil
}

func errEncrypted(method uint32) error {
	switch method {
	case cryptAES:
		return errors.New("Image is encrypted with AES, which is not supported")
	case cryptLUKS:
		return errors.New("Image is encrypted with LUKS, which is not supported")
	}
	return fmt.Errorf("Unsupported encryption method %d", method)
}

// decodeExtensions reads the extensions in b[off:end].
func (h *header) decodeExtensions(b []byte, off, end uint64) (dropBitmaps bool, err error) {
	for off < end {
		if off+8 > end || uint64(be.Uint32(b[off+4:])) > end-off-8 {
			return false, errors.New("Header extension too large")
		}
		kind, n := be.Uint32(b[off:]), uint64(be.Uint32(b[off+4:]))
		data := b[off+8 : off+8+n]
		switch kind {
		case extEnd:
			return dropBitmaps, nil
		case extBackingFormat:
			if n >= 16 {
				return false, fmt.Errorf("ERROR: ext_backing_format: len=%d too large (>=16)", n)
			}
			h.backingFormat = cString(data)
		case extFeatureTable:
		case extCrypto:
			if err := h.decodeCrypto(data); err != nil {
				return false, err
			}
		case extBitmaps:
			drop, err := h.decodeBitmaps(data)
			if err != nil {
				return false, err
			}
			dropBitmaps = dropBitmaps || drop
		case extDataFile:
			h.dataFile = cString(data)
		default:
			h.unknownExts = append(h.unknownExts, extension{kind, bytes.Clone(data)})
		}
		off += 8 + (n+7)&^7
	}
	return dropBitmaps, nil
}

func (h *header) decodeBitmaps(b []byte) (drop bool, err error) {
	if len(b) != 24 {
		return false, errors.New("bitmaps_ext: Invalid extension length")
	}
	if h.autoclear&autoclearBitmaps == 0 {
		return true, nil
	}
	x := bitmapExt{count: be.Uint32(b), dirSize: be.Uint64(b[8:]), dirOffset: be.Uint64(b[16:])}
	switch {
	case be.Uint32(b[4:]) != 0:
		return false, errors.New("bitmaps_ext: Reserved field is not zero")
	case x.count > maxBitmaps:
		return false, fmt.Errorf("bitmaps_ext: Image has %d bitmaps, exceeding the QEMU supported maximum of %d", x.count, maxBitmaps)
	case x.count == 0:
		return false, errors.New("found bitmaps extension with zero bitmaps")
	case x.dirOffset&uint64(h.clusterSize()-1) != 0:
		return false, errors.New("bitmaps_ext: invalid bitmap directory offset")
	case x.dirSize > maxBitmapDir:
		return false, fmt.Errorf("bitmaps_ext: bitmap directory size (%d) exceeds the maximum supported size (%d)", x.dirSize, maxBitmapDir)
	}
	h.bitmaps = x
	return false, nil
}

// featureTable returns the feature name table in b[off:end], if there is one.
func featureTable(b []byte, off, end uint64) []byte {
	for off+8 <= end {
		kind, n := be.Uint32(b[off:]), uint64(be.Uint32(b[off+4:]))
		if n > end-off-8 || kind == extEnd {
			return nil
		}
		if kind == extFeatureTable {
			return b[off+8 : off+8+n]
		}
		off += 8 + (n+7)&^7
	}
	return nil
}

// unsupportedFeatures names the incompatible feature bits in mask by the image's own table.
func unsupportedFeatures(mask uint64, table []byte) error {
	var names []string
	for ; len(table) >= 48 && table[2] != 0; table = table[48:] {
		if bit := uint64(1) << (table[1] & 63); table[0] == 0 && mask&bit != 0 {
			names = append(names, cString(table[2:48]))
			mask &^= bit
		}
	}
	if mask != 0 {
		names = append(names, fmt.Sprintf("Unknown incompatible feature: %x", mask))
	}
	return fmt.Errorf("Unsupported qcow2 feature(s): %s", strings.Join(names, ", "))
}

// features are the names of all feature bits known here: type, bit, name.
var features = [...]struct {
	kind, bit byte
	name      string
}{
	{0, 0, "dirty bit"}, {0, 1, "corrupt bit"}, {0, 2, "external data file"}, {0, 3, "compression type"},
	{0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"}, {2, 0, "bitmaps"}, {2, 1, "raw external data"},
}

// encode is the first cluster. The error is errNoSpace if it does not fit.
func (h *header) encode() ([]byte, error) {
	b, err := h.content()
	if err != nil {
		return nil, err
	}
	return append(b, make([]byte, int(h.clusterSize())-len(b))...), nil
}

// content is encode without the zeros at its end.
func (h *header) content() ([]byte, error) {
	b := make([]byte, headerBytes, h.clusterSize())
	copy(b, magic)
	be.PutUint32(b[4:], h.version)
	be.PutUint32(b[20:], h.clusterBits)
	be.PutUint64(b[24:], h.size)
	be.PutUint32(b[32:], h.crypt)
	be.PutUint32(b[36:], h.l1Size)
	be.PutUint64(b[40:], h.l1Offset)
	be.PutUint64(b[48:], h.reftableOffset)
	be.PutUint32(b[56:], h.reftableClus)
	be.PutUint32(b[60:], h.snapshots)
	be.PutUint64(b[64:], h.snapshotsOffset)
	if h.version == 2 {
		b = b[:headerBytesV2]
	} else {
		be.PutUint64(b[72:], h.incompat)
		be.PutUint64(b[80:], h.compat)
		be.PutUint64(b[88:], h.autoclear)
		be.PutUint32(b[96:], h.refcountOrder)
		be.PutUint32(b[100:], uint32(headerBytes+len(h.unknownFields)))
		b[104] = h.compression
	}
	b = append(b, h.unknownFields...)
	b = h.appendExtensions(b)
	if h.backingFile != "" {
		be.PutUint64(b[8:], uint64(len(b)))
		be.PutUint32(b[16:], uint32(len(h.backingFile)))
		b = append(b, h.backingFile...)
	}
	if int64(len(b)) > h.clusterSize() {
		return nil, errNoSpace
	}
	return b, nil
}

func (h *header) appendExtensions(b []byte) []byte {
	if h.backingFormat != "" {
		b = appendExtension(b, extBackingFormat, []byte(h.backingFormat))
	}
	if h.external() && h.dataFile != "" {
		b = appendExtension(b, extDataFile, []byte(h.dataFile))
	}
	if h.version >= 3 && h.clusterSize() > 4096 && !h.nameless { // in small clusters the space is wanted for the backing file's name
		var t []byte
		for _, f := range features {
			e := make([]byte, 48)
			e[0], e[1] = f.kind, f.bit
			copy(e[2:], f.name)
			t = append(t, e...)
		}
		b = appendExtension(b, extFeatureTable, t)
	}
	if h.bitmaps.count > 0 {
		var e [24]byte
		be.PutUint32(e[0:], h.bitmaps.count)
		be.PutUint64(e[8:], h.bitmaps.dirSize)
		be.PutUint64(e[16:], h.bitmaps.dirOffset)
		b = appendExtension(b, extBitmaps, e[:])
	}
	for _, e := range h.unknownExts {
		b = appendExtension(b, e.magic, e.data)
	}
	return appendExtension(b, extEnd, nil)
}

func appendExtension(b []byte, kind uint32, data []byte) []byte {
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&7)...)
}

func cString(b []byte) string {
	if n := bytes.IndexByte(b, 0); n >= 0 {
		b = b[:n]
	}
	return string(b)
}
