package inflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// samples are buffers of many kinds.
func samples() [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n, values int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(r.IntN(values))
		}
		return p
	}
	all := [][]byte{{}, {1}, make([]byte, 65536), random(65536, 256), random(65536, 4), random(65536, 60), random(300, 256), random(3000, 2)}
	for range 40 {
		var p []byte
		words := [][]byte{random(3, 256), random(5, 30), random(20, 200), random(300, 256), make([]byte, 40), random(1, 256)}
		for len(p) < 65536 {
			p = append(p, words[r.IntN(len(words))]...)
			if r.IntN(50) == 0 {
				p = append(p, random(r.IntN(400), 256)...)
			}
		}
		all = append(all, p[:65536-r.IntN(3)])
	}
	return all
}

func deflated(t testing.TB, p []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecode(t *testing.T) {
	var d Decoder
	for i, p := range samples() {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			c := deflated(t, p, level)
			for _, tail := range []int{0, 1, 300} {
				got := make([]byte, len(p))
				if err := d.Decode(got, append(bytes.Clone(c), make([]byte, tail)...)); err != nil {
					t.Fatalf("sample %d, level %d, %d bytes behind: %v", i, level, tail, err)
				}
				if !bytes.Equal(got, p) {
					t.Fatalf("sample %d, level %d, %d bytes behind: other contents", i, level, tail)
				}
			}
		}
	}
}

func TestDecodeTruncated(t *testing.T) {
	var d Decoder
	p := samples()[9]
	c := deflated(t, p, 6)
	dst := make([]byte, len(p))
	for n := range c[:len(c)-8] {
		if err := d.Decode(dst, c[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: error %v", n, len(c), err)
		}
	}
	if err := d.Decode(make([]byte, len(p)+1), c); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("more wanted than there is: error %v", err)
	}
}

// FuzzDecode compares every outcome with compress/flate's, but for what only that takes.
func FuzzDecode(f *testing.F) {
	for i, p := range samples() {
		p = p[:min(len(p), 2000)]
		f.Add(deflated(f, p, i%10), uint16(len(p)))
	}
	f.Add([]byte{1, 5, 0, 250, 255, 'h', 'e', 'l', 'l', 'o'}, uint16(5))
	f.Add([]byte{1, 5, 0, 250, 254, 'h', 'e', 'l', 'l', 'o'}, uint16(5))
	f.Add([]byte{7}, uint16(5))
	f.Fuzz(func(t *testing.T, src []byte, size uint16) {
		var d Decoder
		got, want := make([]byte, size), make([]byte, size)
		err := d.Decode(got, src)
		if errors.Is(err, errEndless) {
			return
		}
		if err == nil { // compress/flate wants as many bits for each code as the one that ends the block has
			src = append(bytes.Clone(src), 0, 0)
		}
		n, wanted := io.ReadFull(flate.NewReader(bytes.NewReader(src)), want)
		if (err == nil) != (wanted == nil) {
			t.Fatalf("error %v; compress/flate has %v after %d bytes", err, wanted, n)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatal("other contents than compress/flate's")
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	p := samples()[10]
	c := deflated(b, p, 6)
	dst := make([]byte, len(p))
	b.Run("inflate", func(b *testing.B) {
		var d Decoder
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			if err := d.Decode(dst, c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("compress/flate", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		z := flate.NewReader(nil)
		for b.Loop() {
			if err := z.(flate.Resetter).Reset(bytes.NewReader(c), nil); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(z, dst); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestDecodeFixedAgain has blocks with the fixed codes follow one another, and others, in one decoder.
func TestDecodeFixedAgain(t *testing.T) {
	var d Decoder
	short := []byte("abcabcabcabd")
	long := samples()[10]
	for _, p := range [][]byte{short, short, long, short, long, short, short} {
		got := make([]byte, len(p))
		if err := d.Decode(got, deflated(t, p, 6)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, p) {
			t.Fatal("other contents")
		}
	}
	empty := bytes.Repeat([]byte{0x02, 0x08, 0x20, 0x80, 0x00}, 1000) // fixed blocks of ten bits, of nothing
	if err := d.Decode(make([]byte, 1), empty); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("nothing, often: %v", err)
	}
}
