package qcow2

import (
	"math/rand/v2"
	"testing"

	"berth/block"
)

// Each benchmark's peer is qemu-img on an image of the same options: convert for
// the sequential ones, bench for the random.

const benchSize = 256 << 20

func benchImage(b *testing.B, opts string) (*Image, []byte) {
	v := createImage(b, opts, benchSize)
	i := v.open(b, block.OpenOptions{})
	b.Cleanup(func() { _ = i.Close() })
	return i, proseLike(2 << 20)
}

// proseLike is what compresses about as texts and programs do.
func proseLike(n int) []byte {
	r := rand.New(rand.NewPCG(3, 3))
	words := make([][]byte, 2000)
	for k := range words {
		words[k] = make([]byte, 2+r.IntN(10))
		for m := range words[k] {
			words[k][m] = byte('a' + r.IntN(26))
		}
	}
	var p []byte
	for len(p) < n {
		k := r.IntN(len(words))
		p = append(append(p, words[r.IntN(k+1)]...), ' ')
	}
	return p[:n]
}

func fillSequentially(b *testing.B, i *Image, p []byte) {
	for off := int64(0); off < benchSize; off += int64(len(p)) {
		if err := i.Writev([][]byte{p}, off, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAllocatingWrite(b *testing.B) {
	b.SetBytes(benchSize)
	for range b.N {
		i, p := benchImage(b, "")
		fillSequentially(b, i, p)
	}
}

func BenchmarkSequentialRead(b *testing.B) {
	i, p := benchImage(b, "")
	fillSequentially(b, i, p)
	b.SetBytes(benchSize)
	for b.Loop() {
		for off := int64(0); off < benchSize; off += int64(len(p)) {
			if err := i.Readv([][]byte{p}, off); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkRandomRead4K(b *testing.B) {
	i, p := benchImage(b, "")
	fillSequentially(b, i, p)
	r := rand.New(rand.NewPCG(1, 2))
	b.SetBytes(4096)
	for b.Loop() {
		if err := i.Readv([][]byte{p[:4096]}, r.Int64N(benchSize/4096)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRandomWrite4K(b *testing.B) {
	i, p := benchImage(b, "")
	fillSequentially(b, i, p)
	r := rand.New(rand.NewPCG(1, 2))
	b.SetBytes(4096)
	for b.Loop() {
		if err := i.Writev([][]byte{p[:4096]}, r.Int64N(benchSize/4096)*4096, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	for _, opts := range []string{"compression_type=zlib", "compression_type=zstd"} {
		b.Run(opts, func(b *testing.B) {
			i, p := benchImage(b, opts)
			b.SetBytes(65536)
			var dst []byte
			for b.Loop() {
				c, err := i.Compress(dst[:0], p[:65536])
				if err != nil {
					b.Fatal(err)
				}
				dst = c
			}
			b.ReportMetric(float64(len(dst)), "bytes")
		})
	}
}

func BenchmarkReadCompressed(b *testing.B) {
	for _, opts := range []string{"compression_type=zlib", "compression_type=zstd"} {
		b.Run(opts, func(b *testing.B) {
			i, p := benchImage(b, opts)
			for off := int64(0); off < 8<<20; off += 65536 {
				if err := i.WriteCompressed(p[:65536], off); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(8 << 20)
			for b.Loop() {
				for off := int64(0); off < 8<<20; off += 65536 {
					if err := i.Readv([][]byte{p[:65536]}, off); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
