package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

var (
	errInitrdKind      = errors.New("initrd is neither a cpio archive nor compressed nor a file system that Linux takes")
	errInitrdTruncated = errors.New("initrd is truncated")
)

// checkInitrd refuses what Linux could not use as an initrd: it would unpack
// what it can, and panic much later for want of a root. An initrd is cpio
// archives and compressed ones one after the other, zeros between them
// (Documentation/driver-api/early-userspace/buffer-format.rst), or a file
// system. Truncation is found wherever the format tells without unpacking:
// cpio, zstd, lz4 and xz, not gzip, bzip2, lzma and lzo.
func checkInitrd(b []byte) error {
	if fileSystem(b) {
		return nil
	}
	for first := true; ; first = false {
		b = bytes.TrimLeft(b, "\x00")
		if len(b) == 0 && !first {
			return nil
		}
		walk := partWalker(b)
		if walk == nil {
			return errInitrdKind
		}
		n, err := walk(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
}

// fileSystem recognises the images that Linux mounts from a RAM disk.
func fileSystem(b []byte) bool {
	for _, m := range []string{"hsqs", "-rom1fs-", "\x45\x3d\xcd\x28"} { // squashfs, romfs, cramfs
		if bytes.HasPrefix(b, []byte(m)) {
			return true
		}
	}
	const ext2Magic = 1024 + 56
	return len(b) > ext2Magic+1 && b[ext2Magic] == 0x53 && b[ext2Magic+1] == 0xef
}

// partWalker returns the function that measures the part at b, by its magic;
// nil for one that Linux does not know.
func partWalker(b []byte) func([]byte) (int, error) {
	all := func(b []byte) (int, error) { return len(b), nil }
	for _, k := range []struct {
		magic string
		walk  func([]byte) (int, error)
	}{
		{"070701", cpioEnd}, {"070702", cpioEnd},
		{"\x28\xb5\x2f\xfd", zstdEnd}, {"\x02\x21\x4c\x18", lz4End}, {"\xfd7zXZ\x00", xzEnd},
		{"\x1f\x8b", all}, {"\x1f\x9e", all}, {"BZh", all}, {"\x5d\x00\x00", all}, {"\x89LZO", all},
	} {
		if bytes.HasPrefix(b, []byte(k.magic)) {
			return k.walk
		}
	}
	return nil
}

// cpioEnd returns the length of the newc archive at b, its trailer included.
//
//	0 magic [6] | 13 fields of 8 hex digits: size of file at 54, of name at 94 |
//	110 name with NUL, padded to 4 | file, padded to 4
func cpioEnd(b []byte) (int, error) {
	const header = 110
	up := func(n uint64) uint64 { return (n + 3) &^ 3 }
	for off := uint64(0); ; {
		h := b[min(off, uint64(len(b))):]
		if len(h) < header {
			return 0, errInitrdTruncated
		}
		if !bytes.HasPrefix(h, []byte("07070")) {
			return 0, errors.New("initrd's cpio archive is damaged")
		}
		file, err1 := strconv.ParseUint(string(h[54:62]), 16, 32)
		name, err2 := strconv.ParseUint(string(h[94:102]), 16, 32)
		if err1 != nil || err2 != nil {
			return 0, errors.New("initrd's cpio archive is damaged")
		}
		end := up(header+name) + file
		if end > uint64(len(h)) {
			return 0, errInitrdTruncated
		}
		if strings.TrimRight(string(h[header:header+min(name, 16)]), "\x00") == "TRAILER!!!" {
			return int(off + end), nil
		}
		off += up(end)
	}
}

// zstdEnd returns the length of the zstd frame at b (RFC 8878 §3.1.1).
//
//	magic | descriptor u8 (7..6 size of content size, 5 single segment, 2 checksum, 1..0 dictionary ID) |
//	window u8 unless single segment | dictionary ID | content size | blocks | checksum u32
//	block: last (bit 0), type (2..1), size (23..3), data
func zstdEnd(b []byte) (int, error) {
	if len(b) < 5 {
		return 0, errInitrdTruncated
	}
	d := b[4]
	single := d>>5&1 != 0
	off := 5 + [4]int{0, 1, 2, 4}[d&3] + [4]int{0, 2, 4, 8}[d>>6]
	if !single {
		off++
	} else if d>>6 == 0 {
		off++
	}
	for last := false; !last; {
		if off+3 > len(b) {
			return 0, errInitrdTruncated
		}
		h := int(b[off]) | int(b[off+1])<<8 | int(b[off+2])<<16
		last = h&1 != 0
		if off += 3; h>>1&3 == 1 { // one byte, repeated
			off++
		} else {
			off += h >> 3
		}
	}
	if d>>2&1 != 0 {
		off += 4
	}
	if off > len(b) {
		return 0, errInitrdTruncated
	}
	return off, nil
}

// lz4End returns the length of the legacy lz4 stream at b: its magic, then
// blocks with their sizes before them. A size of 0 is padding after the end.
func lz4End(b []byte) (int, error) {
	off := 4
	for off < len(b) {
		if off+4 > len(b) {
			return 0, errInitrdTruncated
		}
		n := binary.LittleEndian.Uint32(b[off:])
		switch {
		case n == 0:
			return off, nil
		case n == 0x184c2102: // another stream
			off += 4
			continue
		case uint64(n) > uint64(len(b)-off-4):
			return 0, errInitrdTruncated
		}
		off += 4 + int(n)
	}
	return off, nil
}

// xzEnd takes the xz stream at b to be the last part: its footer ends in "YZ".
func xzEnd(b []byte) (int, error) {
	if !bytes.HasSuffix(bytes.TrimRight(b, "\x00"), []byte("YZ")) {
		return 0, errInitrdTruncated
	}
	return len(b), nil
}
