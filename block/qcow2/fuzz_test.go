package qcow2

import (
	"math/rand/v2"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// FuzzHeader decodes what may be a header.
func FuzzHeader(f *testing.F) {
	for _, opts := range []string{"", "compat=0.10", "cluster_size=512", "compression_type=zstd,extended_l2=on", "lazy_refcounts=on,refcount_bits=1"} {
		m := blocktest.NewMemFile(nil)
		if err := create(m, block.Creation{Values: parseOptions(opts, 1<<20)}); err != nil {
			f.Fatal(err)
		}
		f.Add(m.Bytes()[:512])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, _, err := readHeader(blocktest.NewMemFile(b), block.OpenOptions{})
		if err != nil {
			return
		}
		e, err := h.encode()
		if err != nil {
			return // unknown extensions and a long name do not fit beside our feature names
		}
		again, _, err := readHeader(blocktest.NewMemFile(e), block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatalf("what was encoded is refused: %v", err)
		}
		if again.backingFile != h.backingFile || again.size != h.size || len(again.unknownExts) != len(h.unknownExts) {
			t.Fatal("what was encoded is read otherwise")
		}
	})
}

// FuzzTables has an image's L1, L2 and refcount tables say anything: patches is
// a list of a cluster, an entry of it, and a value. Which kind of image it is, the first byte says.
func FuzzTables(f *testing.F) {
	kinds := []string{"cluster_size=512", "cluster_size=16384,extended_l2=on", "compat=0.10,cluster_size=1024", "cluster_size=4096,refcount_bits=1", "cluster_size=512,refcount_bits=64,compression_type=zstd"}
	var images []*blocktest.MemFile
	for _, k := range kinds {
		images = append(images, usedImage(f, k))
	}
	f.Add([]byte{0})
	for k := range kinds {
		for cluster := range byte(8) {
			f.Add([]byte{byte(k), cluster, 0, 0x80, 0, 0, 0, 0, 0, 2, 0, cluster, 1, 0xc0, 0, 0, 0, 1, 2, 3, 4})
		}
	}
	f.Fuzz(func(t *testing.T, patches []byte) {
		if len(patches) == 0 {
			return
		}
		m := images[int(patches[0])%len(images)].Clone()
		size := int64(512)
		for range 6 {
			patches = patches[1:]
			for ; len(patches) >= 10; patches = patches[10:] {
				if err := writeFull(m, patches[2:10], int64(patches[0])*size+int64(patches[1])*8); err != nil {
					t.Fatal(err)
				}
			}
			if len(patches) == 0 {
				break
			}
			size *= 2
		}
		useHostile(m, block.OpenOptions{})
	})
}

// usedImage is a small image with clusters of all kinds.
func usedImage(f testing.TB, opts string) *blocktest.MemFile {
	m := blocktest.NewMemFile(nil)
	if err := create(m, block.Creation{Values: parseOptions(opts, 200<<10)}); err != nil {
		f.Fatal(err)
	}
	i, err := openImage(m, block.OpenOptions{})
	if err != nil {
		f.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	want := make([]byte, i.Size())
	for range 30 {
		if err := someOperation(i, want, r); err != nil {
			f.Fatal(err)
		}
	}
	if err := i.inactivate(); err != nil {
		f.Fatal(err)
	}
	return m
}

// useHostile does with the image what a user would. It may fail, and must end.
func useHostile(m *blocktest.MemFile, o block.OpenOptions) {
	i, err := openImage(m, o)
	if err != nil {
		return
	}
	if i.data == nil {
		i.SetDataFile(blocktest.NewMemFile(nil))
	}
	r := rand.New(rand.NewPCG(5, 6))
	b := make([]byte, min(i.Size(), 200<<10))
	_ = i.Readv([][]byte{b}, 0)
	for off := int64(0); off < int64(len(b)); {
		e, err := i.Extent(off, int64(len(b))-off)
		if err != nil || e.Len == 0 {
			break
		}
		off += e.Len
	}
	if len(b) > 0 {
		for range 20 {
			_ = someOperation(i, b, r)
		}
	}
	_ = i.Truncate(i.Size() + 512)
	_ = i.Truncate(i.Size() / 2 &^ 511)
	_ = i.Close()
}

// FuzzImage opens anything as an image.
func FuzzImage(f *testing.F) {
	for _, opts := range []string{"cluster_size=512", "compat=0.10,cluster_size=512", "cluster_size=512,refcount_bits=1"} {
		f.Add(usedImage(f, opts).Bytes(), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, check bool) {
		useHostile(blocktest.NewMemFile(b), block.OpenOptions{Check: check})
		useHostile(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
	})
}

// FuzzCompressed uncompresses anything.
func FuzzCompressed(f *testing.F) {
	for _, opts := range []string{"", "compression_type=zstd"} {
		i, err := openImage(createInFuzz(f, opts), block.OpenOptions{})
		if err != nil {
			f.Fatal(err)
		}
		c, err := i.Compress(nil, make([]byte, 65536))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c, opts != "")
	}
	zlib, err := openImage(createInFuzz(f, ""), block.OpenOptions{})
	if err != nil {
		f.Fatal(err)
	}
	zst, err := openImage(createInFuzz(f, "compression_type=zstd"), block.OpenOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, z bool) {
		i := zlib
		if z {
			i = zst
		}
		_ = i.decompress(make([]byte, 65536), b)
	})
}

func createInFuzz(f *testing.F, opts string) *blocktest.MemFile {
	m := blocktest.NewMemFile(nil)
	if err := create(m, block.Creation{Values: parseOptions(opts, 1<<20)}); err != nil {
		f.Fatal(err)
	}
	return m
}

// FuzzLUKS describes what may be a LUKS header.
func FuzzLUKS(f *testing.F) {
	b := make([]byte, luksBytes)
	copy(b, "LUKS\xba\xbe\x00\x01aes")
	copy(b[40:], "cbc-essiv:sha256")
	copy(b[72:], "sha1")
	for at, v := range map[int]uint32{104: 4040, 108: 32, 164: 1000, 208: luksActive, 212: 1000} {
		be.PutUint32(b[at:], v)
	}
	for n := range 8 {
		s := b[208+48*n:]
		if n > 0 {
			be.PutUint32(s, luksInactive)
		}
		be.PutUint32(s[40:], uint32(8+504*n))
		be.PutUint32(s[44:], luksStripes)
	}
	if _, err := readLUKS(blocktest.NewMemFile(b), cryptoExt{0, luksBytes}); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readLUKS(blocktest.NewMemFile(b), cryptoExt{0, uint64(len(b))})
		if err == nil {
			l.fields()
		}
	})
}
