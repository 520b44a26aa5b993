package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"berth/boot/boottest"
	"berth/tests/guest"
)

// sized appends the size word that Linux's build puts after every payload but gzip's.
func sized(b []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(b), uint32(n))
}

// kernelPart is some of Debian's kernel as it lies in its bzImage, unpacked:
// machine code and data of a kind that compressors meet in practice.
func kernelPart(t testing.TB, n int) []byte {
	t.Helper()
	image, err := os.ReadFile(guest.Need(t).Kernel)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	start := (uint32(image[0x1f1])+1)*512 + le.Uint32(image[0x248:])
	r, err := NewReader(boottest.Section(image[start:start+le.Uint32(image[0x24c:])]), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, n)
	if _, err := r.ReadAt(part, 2<<20); err != nil { // .text starts there
		t.Fatal(err)
	}
	return part
}

// builds are the commands of Linux's scripts/Makefile.lib and xz_wrap.sh, with
// smaller levels where only time depends on them.
func builds() map[string][]string {
	return map[string][]string{
		"gzip":             {"gzip", "-n", "-1"},
		"bzip2":            {"bzip2", "-1"},
		"lzma":             {"xz", "--format=lzma", "-1"},
		"lz4":              {"lz4", "-l", "-c"},
		"zstd":             {"zstd", "-3", "--long=27", "-c"},
		"xz, BCJ and CRC":  {"xz", "--check=crc32", "--x86", "--lzma2=preset=1,dict=32MiB"},
		"xz, LZMA2 alone":  {"xz", "--check=crc64", "-1"},
		"xz, no check":     {"xz", "--check=none", "-0"},
		"xz, SHA-256":      {"xz", "--check=sha256", "-0"},
		"xz, blocks":       {"xz", "--check=crc32", "--x86", "--lzma2=preset=0", "--block-size=1MiB"},
		"xz, small window": {"xz", "--check=crc32", "--x86", "--lzma2=preset=0,dict=64KiB"},
		"xz, other lc":     {"xz", "--check=crc32", "--lzma2=preset=0,lc=1,lp=3,pb=0"},
		"lzma, window":     {"xz", "--format=lzma", "--lzma1=preset=0,dict=64KiB"},
	}
}

func TestEveryFormatOfLinuxsBuild(t *testing.T) {
	part := kernelPart(t, 9<<20)
	for name, command := range builds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := part
			if name != "lz4" { // whose blocks are of 8 MiB
				want = part[:3<<20]
			}
			b := boottest.Compress(t, want, command...)
			if name != "gzip" {
				b = sized(b, len(want))
			}
			r, err := NewReader(boottest.Section(b), uint64(len(want)))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got := make([]byte, len(want))
			// Headers first and once more, then the rest in pieces with gaps.
			for _, cut := range [][2]int{{0, 64}, {64, 4096}, {0, 200 << 10}, {300 << 10, 301 << 10}, {301 << 10, len(want) - 1000}} {
				if _, err := r.ReadAt(got[cut[0]:cut[1]], int64(cut[0])); err != nil {
					t.Fatalf("bytes %d to %d: %v", cut[0], cut[1], err)
				}
				if !bytes.Equal(got[cut[0]:cut[1]], want[cut[0]:cut[1]]) {
					t.Fatalf("bytes %d to %d differ", cut[0], cut[1])
				}
			}
			if err := r.Finish(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Bytes in which nearly every position looks like a branch reach all of the
// filter's rules about instructions that overlap.
func TestBCJOnDenseBranches(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	alphabet := []byte{0xe8, 0xe9, 0x00, 0xff, 0x01, 0x80}
	for _, n := range []int{1, 4, 5, 6, 100, 3*bcjBuffer + 7} {
		want := make([]byte, n)
		for i := range want {
			want[i] = alphabet[rng.IntN(len(alphabet))]
		}
		b := sized(boottest.Compress(t, want, "xz", "--check=crc32", "--x86", "--lzma2=preset=0"), n)
		r, err := NewReader(boottest.Section(b), uint64(n))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, n)
		if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %v, equal %v", n, err, bytes.Equal(got, want))
		}
	}
}

func TestDeclaredSizeBoundsWhatIsUnpacked(t *testing.T) {
	data := bytes.Repeat([]byte("berth "), 100_000)
	for name, command := range builds() {
		b := boottest.Compress(t, data, command...)
		declare := func(n int) []byte {
			if name == "gzip" {
				return sized(b[:len(b)-4], n)
			}
			return sized(b, n)
		}
		if _, err := NewReader(boottest.Section(declare(len(data))), uint64(len(data)-1)); err == nil {
			t.Errorf("%s: more than the limit accepted", name)
		}
		for _, n := range []int{len(data) - 1, len(data) - 50_000, len(data) + 1} {
			r, err := NewReader(boottest.Section(declare(n)), 1<<30)
			if err == nil {
				err = r.Finish()
			}
			if err == nil {
				t.Errorf("%s: %d bytes declared as %d accepted", name, len(data), n)
			}
		}
	}
}

func TestDamageIsFound(t *testing.T) {
	data := kernelPart(t, 1<<20)
	for name, command := range builds() {
		good := boottest.Compress(t, data, command...)
		for _, cut := range []int{len(good) / 2, len(good) - 40} {
			r, err := NewReader(boottest.Section(sized(good[:cut], len(data))), 1<<30)
			if err == nil {
				err = r.Finish()
			}
			if err == nil {
				t.Errorf("%s: cut to %d of %d bytes and accepted", name, cut, len(good))
			}
		}
	}
}

func TestFormatsLeftToTheGuest(t *testing.T) {
	for name, b := range map[string][]byte{
		"lzo":        sized([]byte("\x89LZO\x00\r\n\x1a\n"), 100),
		"unknown":    sized([]byte("something else"), 100),
		"xz for ARM": sized(boottest.Compress(t, []byte("data"), "xz", "--arm", "--lzma2=preset=0"), 4),
	} {
		if _, err := NewReader(boottest.Section(b), 1<<30); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadAtGoesForward(t *testing.T) {
	data := kernelPart(t, 1<<20)
	r, err := NewReader(boottest.Section(sized(boottest.Compress(t, data, "lz4", "-l", "-c"), len(data))), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := r.ReadAt(b, 500_000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(b, 400_000); err == nil {
		t.Error("went backwards past the kept start")
	}
	if n, err := r.ReadAt(b, int64(len(data))-5); n != 5 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

// FuzzUnpack: whatever the payload, the decompressors yield at most what it
// declares, and end.
func FuzzUnpack(f *testing.F) {
	const limit = 1 << 20
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(boottest.Section(b), limit)
		if err != nil {
			return
		}
		defer r.Close()
		p := make([]byte, 1000)
		r.ReadAt(p, 0)
		r.ReadAt(p, int64(r.Size()/2))
		if r.Finish() == nil && r.pos != r.Size() {
			t.Errorf("finished after %d of %d bytes", r.pos, r.Size())
		}
		if r.pos > limit+1 {
			t.Errorf("unpacked %d bytes of at most %d", r.pos, limit)
		}
	})
}

func BenchmarkXZ(b *testing.B) {
	data := kernelPart(b, 9<<20)
	payload := sized(boottest.Compress(b, data, builds()["xz, BCJ and CRC"]...), len(data))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		r, err := NewReader(boottest.Section(payload), 1<<30)
		if err == nil {
			err = r.Finish()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
