package unpack

import (
	"bufio"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// maxWindow bounds what a stream may make a decompressor allocate. Linux's
// build uses at most 128 MiB (zstd --ultra) and 32 MiB (xz).
const maxWindow = 128 << 20

// bounded ends a stream one byte past its declared size, enough to tell that it
// is too long, and closes what lies under it.
type bounded struct {
	io.Reader
	close func()
}

func bound(r io.Reader, size uint64, close func()) io.ReadCloser {
	return &bounded{io.LimitReader(r, int64(size)+1), close}
}

func (b *bounded) Close() error {
	if b.close != nil {
		b.close()
	}
	return nil
}

// trimmed is the payload without the size word that the kernel's build appends.
func trimmed(p *io.SectionReader) *bufio.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(p, 0, p.Size()-4), 64<<10)
}

// gzip's own trailer ends in the size: the payload is one whole gzip file.
func openGzip(p *io.SectionReader, size uint64) (io.ReadCloser, error) {
	z, err := gzip.NewReader(bufio.NewReaderSize(io.NewSectionReader(p, 0, p.Size()), 64<<10))
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return bound(z, size, func() { _ = z.Close() }), nil
}

func openBzip2(p *io.SectionReader, size uint64) (io.ReadCloser, error) {
	return bound(bzip2.NewReader(trimmed(p)), size, nil), nil
}

func openZstd(p *io.SectionReader, size uint64) (io.ReadCloser, error) {
	z, err := zstd.NewReader(trimmed(p), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return bound(z, size, z.Close), nil
}

// lz4Block is the most one block of the legacy format decompresses to.
const lz4Block = 8 << 20

// lz4Reader reads lz4's legacy frame (lz4_Frame_format.md, "Legacy frame"):
//
//	0x184c2102 | blocks: compressed size u32, data; each 8 MiB but the last
type lz4Reader struct {
	src  *bufio.Reader
	in   []byte
	out  []byte
	rest []byte // of out, not read yet
	left uint64 // bytes still to come after rest
}

func openLZ4(p *io.SectionReader, size uint64) (io.ReadCloser, error) {
	src := trimmed(p)
	if _, err := src.Discard(4); err != nil {
		return nil, err
	}
	r := &lz4Reader{src: src, out: make([]byte, min(size, lz4Block)), left: size}
	return io.NopCloser(r), nil
}

func (r *lz4Reader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		// A whole block goes straight to where it is wanted.
		if len(p) >= lz4Block {
			return r.block(p[:lz4Block])
		}
		n, err := r.block(r.out)
		if err != nil {
			return 0, err
		}
		r.rest = r.out[:n]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// block decompresses the next block into dst.
func (r *lz4Reader) block(dst []byte) (int, error) {
	var word [4]byte
	if _, err := io.ReadFull(r.src, word[:]); err != nil {
		return 0, err
	}
	size := binary.LittleEndian.Uint32(word[:])
	if size == 0 || size > uint32(lz4.CompressBlockBound(lz4Block)) {
		return 0, fmt.Errorf("block of %d bytes", size)
	}
	if cap(r.in) < int(size) {
		r.in = make([]byte, size)
	}
	if _, err := io.ReadFull(r.src, r.in[:size]); err != nil {
		return 0, err
	}
	n, err := lz4.UncompressBlock(r.in[:size], dst)
	if err != nil {
		return 0, err
	}
	if n == 0 || uint64(n) > r.left {
		return 0, errors.New("block does not agree with the declared size")
	}
	r.left -= uint64(n)
	return n, nil
}
