package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"syscall"

	"github.com/klauspost/compress/zlib"

	"berth/block/inflate"
)

// A compressed grain begins with a marker, if the extent has them, and goes on
// as a zlib stream:
//
//	0  first sector of the disk, 8    8  bytes of the stream, 4    12  the stream
const markerSize = 12

// A zlib stream (RFC 1950) has two bytes before the deflate data, of which the
// first is this for the usual window, and an Adler-32 of what they say behind them.
const (
	zlibHeader     = 2
	zlibTrailer    = 4
	zlibFirst      = 0x78
	zlibDictionary = 1 << 5 // of the second
)

// buffers serve one grain at a time; out has room for a byte too many.
type buffers struct {
	in, out []byte
	fast    inflate.Decoder
	z       io.ReadCloser
}

// unpack fills iov with what begins in bytes into the grain at off of the file.
func (e *extent) unpack(iov [][]byte, off, in int64) error {
	b, _ := e.buffers.Get().(*buffers)
	if b == nil {
		b = &buffers{in: make([]byte, 2*e.grain), out: make([]byte, e.grain+1)}
	}
	defer e.buffers.Put(b)
	n := e.grain
	if e.markers {
		var m [markerSize]byte
		if err := e.f.Readv([][]byte{m[:]}, off); err != nil {
			return err
		}
		n, off = int64(binary.LittleEndian.Uint32(m[8:])), off+markerSize
	}
	if n == 0 || n > int64(len(b.in)) || off >= e.f.Size() {
		return fmt.Errorf("VMDK grain at %d: %d bytes of compressed data: %w", off, n, syscall.EINVAL)
	}
	if err := e.f.Readv([][]byte{b.in[:n]}, off); err != nil {
		return err
	}
	plain, err := b.inflate(n)
	if err != nil {
		return fmt.Errorf("VMDK grain at %d: %w: %w", off, err, syscall.EINVAL)
	}
	for _, p := range iov {
		if in > int64(len(plain)) || copy(p, plain[in:]) < len(p) {
			return fmt.Errorf("VMDK grain at %d: %d bytes are too few: %w", off, len(plain), syscall.EINVAL)
		}
		in += int64(len(p))
	}
	return nil
}

// inflate returns what the first n bytes of in say. Most are a whole grain, and
// end with its checksum.
func (b *buffers) inflate(n int64) ([]byte, error) {
	if whole := b.out[:len(b.out)-1]; n > zlibHeader+zlibTrailer && b.in[0] == zlibFirst && b.in[1]&zlibDictionary == 0 && binary.BigEndian.Uint16(b.in)%31 == 0 {
		sum := binary.BigEndian.Uint32(b.in[n-zlibTrailer:])
		if b.fast.Decode(whole, b.in[zlibHeader:n]) == nil && adler32.Checksum(whole) == sum {
			return whole, nil
		}
	}
	return b.stream(n)
}

// stream returns what any zlib stream in the first n bytes of in says.
func (b *buffers) stream(n int64) ([]byte, error) {
	src := bytes.NewReader(b.in[:n])
	var err error
	if b.z == nil {
		b.z, err = zlib.NewReader(src)
	} else {
		err = b.z.(zlib.Resetter).Reset(src, nil)
	}
	if err != nil {
		return nil, err
	}
	for have := 0; have < len(b.out); {
		k, err := b.z.Read(b.out[have:])
		have += k
		switch {
		case errors.Is(err, io.EOF) && have < len(b.out):
			return b.out[:have], nil
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		}
	}
	return nil, errors.New("more data than a grain holds")
}
