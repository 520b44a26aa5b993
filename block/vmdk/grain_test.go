package vmdk

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zlib"
)

// packed is a grain of words by chance, and what zlib makes of it.
func packed(t testing.TB, n int) (plain, stream []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for len(plain) < n {
		plain = append(plain, []string{"the ", "grain ", "table ", "directory ", "of ", "extent\n"}[r.IntN(6)]...)
		plain = append(plain, byte(r.Uint32()))
	}
	plain = plain[:n]
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return plain, b.Bytes()
}

func buffersOf(stream []byte) *buffers {
	return &buffers{in: append(bytes.Clone(stream), make([]byte, 100)...), out: make([]byte, 65537)}
}

// TestInflate: whole grains, the last of a disk, and streams that do not end
// where they are said to.
func TestInflate(t *testing.T) {
	for _, n := range []int{1, 512, 65535, 65536} {
		plain, stream := packed(t, n)
		b := buffersOf(stream)
		for _, length := range []int{len(stream), len(stream) + 1, len(stream) + 100} {
			if got, err := b.inflate(int64(length)); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes in %d of %d: %d bytes, %v", n, length, len(stream), len(got), err)
			}
		}
		for _, length := range []int{1, 2, 5, len(stream) / 2, len(stream) - 1} {
			if _, err := b.inflate(int64(length)); err == nil {
				t.Errorf("%d bytes in %d of %d: no error", n, length, len(stream))
			}
		}
		for _, at := range []int{0, 1, len(stream) - 1} {
			b := buffersOf(stream)
			b.in[at] ^= 0x21
			if _, err := b.inflate(int64(len(stream))); err == nil {
				t.Errorf("%d bytes with byte %d of %d changed: no error", n, at, len(stream))
			}
		}
	}
	_, stream := packed(t, 65537)
	if _, err := buffersOf(stream).inflate(int64(len(stream))); err == nil {
		t.Error("more than a grain holds was taken")
	}
}

// BenchmarkInflate is a grain's way beside that of any zlib stream.
func BenchmarkInflate(b *testing.B) {
	_, stream := packed(b, 65536)
	s := buffersOf(stream)
	for _, c := range []struct {
		name string
		f    func(int64) ([]byte, error)
	}{{"grain", s.inflate}, {"stream", s.stream}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(65536)
			for b.Loop() {
				if _, err := c.f(int64(len(stream))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
