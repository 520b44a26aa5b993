package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/klauspost/compress/zlib"
)

// A compressed grain begins with a marker, if the extent has them, and goes on
// as a zlib stream:
//
//	0  first sector of the disk, 8    8  bytes of the stream, 4    12  the stream
const markerSize = 12

type buffers struct {
	in, out []byte
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

// inflate returns what the first n bytes of in say; it has to end there.
func (b *buffers) inflate(n int64) ([]byte, error) {
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
		case errors.Is(err, io.EOF):
			return b.out[:have], nil
		case err != nil:
			return nil, err
		}
	}
	return nil, errors.New("more data than a grain holds")
}
