// Package unpack decompresses a kernel's payload as a stream that never yields more than the payload declares.
package unpack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrFormat is wrapped by the error for a payload whose compression is not known here.
var ErrFormat = errors.New("compression not supported on the host")

// keep is how many bytes from the start stay readable at any time: an ELF
// file's headers are read before and while its segments stream past.
const keep = 128 << 10

// Reader is a decompressed payload. ReadAt works for ascending offsets, and for
// any within the first 128 KiB. It is not safe for concurrent use.
type Reader struct {
	src    io.ReadCloser
	format string
	size   uint64
	head   []byte // the first bytes, at most keep
	pos    uint64 // how far src has been read
}

// NewReader starts decompressing payload, which ends in its decompressed size
// as a little-endian u32 (Linux boot protocol, payload_length). Not more than
// limit bytes may be declared.
func NewReader(payload *io.SectionReader, limit uint64) (*Reader, error) {
	if payload.Size() < 8 {
		return nil, errors.New("too short to hold anything")
	}
	var magic [6]byte
	var last [4]byte
	if _, err := payload.ReadAt(magic[:], 0); err != nil {
		return nil, err
	}
	if _, err := payload.ReadAt(last[:], payload.Size()-4); err != nil {
		return nil, err
	}
	size := uint64(binary.LittleEndian.Uint32(last[:]))
	f := recognise(string(magic[:]))
	if f == nil {
		return nil, fmt.Errorf("unknown format (% x): %w", magic, ErrFormat)
	}
	if f.open == nil {
		return nil, fmt.Errorf("%s: %w", f.name, ErrFormat)
	}
	if size > limit {
		return nil, fmt.Errorf("%s: unpacks to %d MiB, more than the guest's %d MiB of memory", f.name, size>>20, limit>>20)
	}
	src, err := f.open(payload, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	r := &Reader{src: src, format: f.name, size: size}
	r.head = make([]byte, min(size, keep))
	if err := r.next(r.head); err != nil {
		src.Close()
		return nil, err
	}
	return r, nil
}

// Format names the compression.
func (r *Reader) Format() string { return r.format }

// Size returns the declared decompressed size in bytes.
func (r *Reader) Size() uint64 { return r.size }

// Close releases the decompressor.
func (r *Reader) Close() error { return r.src.Close() }

// Finish decompresses the rest, so that the format's checksum is compared, and
// fails unless the payload holds exactly what it declares.
func (r *Reader) Finish() error {
	n, err := io.Copy(io.Discard, r.src)
	if r.pos += uint64(n); err == nil && r.pos != r.size {
		err = fmt.Errorf("unpacks to other than the declared %d bytes", r.size)
	}
	if err != nil {
		return fmt.Errorf("%s: corrupt: %w", r.format, err)
	}
	return nil
}

// next reads all of p from src.
func (r *Reader) next(p []byte) error {
	n, err := io.ReadFull(r.src, p)
	r.pos += uint64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("ends after %d of %d bytes", r.pos, r.size)
	}
	if err != nil {
		return fmt.Errorf("%s: corrupt: %w", r.format, err)
	}
	return nil
}

// ReadAt reads len(p) bytes at off, decompressing and discarding what lies between.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || uint64(off) > r.size {
		return 0, io.EOF
	}
	if end := r.size - uint64(off); uint64(len(p)) > end {
		n, err := r.ReadAt(p[:end], off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	n := 0
	if off < int64(len(r.head)) {
		n = copy(p, r.head[off:])
	}
	if n == len(p) {
		return n, nil
	}
	at := uint64(off) + uint64(n)
	if at < r.pos {
		return n, errors.New("segments of the payload overlap in the file")
	}
	if _, err := io.CopyN(io.Discard, r.src, int64(at-r.pos)); err != nil {
		return n, fmt.Errorf("%s: corrupt: %w", r.format, err)
	}
	r.pos = at
	if err := r.next(p[n:]); err != nil {
		return n, err
	}
	return len(p), nil
}

// format is one compression.
type format struct {
	name  string
	magic string
	// open returns a stream that ends, or fails, after at most size+1 bytes;
	// nil when the format is only recognised.
	open func(payload *io.SectionReader, size uint64) (io.ReadCloser, error)
}

// formats are those of Linux's CONFIG_KERNEL_*.
func formats() []format {
	return []format{
		{"gzip", "\x1f\x8b", openGzip},
		{"bzip2", "BZh", openBzip2},
		{"lzma", "\x5d\x00\x00", openLZMA},
		{"xz", "\xfd7zXZ\x00", openXZ},
		{"lzo", "\x89LZO", nil},
		{"lz4", "\x02\x21\x4c\x18", openLZ4},
		{"zstd", "\x28\xb5\x2f\xfd", openZstd},
	}
}

func recognise(start string) *format {
	for _, f := range formats() {
		if len(start) >= len(f.magic) && start[:len(f.magic)] == f.magic {
			return &f
		}
	}
	return nil
}
