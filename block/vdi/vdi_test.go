package vdi_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/mapped/mappedtest"
	"berth/block/vdi"
)

// TestAsQemuImg reads images that qemu-img writes.
func TestAsQemuImg(t *testing.T) {
	mappedtest.Need(t)
	for seed, size := range []int64{0, 512, 1 << 20, 70<<20 + 512} {
		for _, o := range []string{"static=off", "static=on"} {
			source := mappedtest.Source(t, uint64(seed), size)
			mappedtest.Compare(t, vdi.Format(), mappedtest.Convert(t, source, "vdi", o))
		}
	}
}

// small is an image of three blocks of which the second is allocated.
func small() []byte {
	b := make([]byte, 1024+1<<20)
	put := func(off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }
	put(0x40, 0xbeda107f)
	put(0x44, 0x10001)
	put(0x48, 0x180)
	put(0x4c, 1)
	put(0x154, 512)
	put(0x158, 1024)
	put(0x168, 512)
	put(0x170, 3<<20-100)
	put(0x178, 1<<20)
	put(0x180, 3)
	put(0x184, 1)
	put(512, 0xffffffff)
	put(516, 0)
	put(520, 0xfffffffe)
	for i := range b[1024:] {
		b[1024+i] = byte(i>>8 + i + 1)
	}
	return b
}

// TestErrors compares the words with qemu-img's, and refuses what QEMU would misread.
func TestErrors(t *testing.T) {
	u32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[off:], v); return b }
	}
	for _, c := range []struct {
		change func([]byte) []byte
		want   string
		ours   bool // QEMU says nothing
	}{
		{u32(0x40, 1), "Image not in VDI format (bad signature 00000001)", false},
		{u32(0x44, 0x10002), "unsupported VDI image (version 1.2)", false},
		{u32(0x154, 513), "unsupported VDI image (unaligned block map offset 0x201)", false},
		{u32(0x158, 513), "unsupported VDI image (unaligned data offset 0x201)", false},
		{u32(0x168, 4096), "unsupported VDI image (sector size 4096 is not 512)", false},
		{u32(0x174, 0x7fffffff), "Unsupported VDI image size (size is 0x7fffffff002fff9c, max supported is 0x1fffff8000000)", false},
		{u32(0x178, 65536), "unsupported VDI image (block size 65536 is not 1048576)", false},
		{u32(0x180, 2), "unsupported VDI image (disk size 3145728, image bitmap has room for 2097152)", false},
		{u32(0x180, 0xffffffff), "unsupported VDI image (too many blocks 4294967295, max is 536870784)", false},
		{u32(0x1a8, 1), "unsupported VDI image (non-NULL link UUID)", false},
		{u32(0x1b8, 1), "unsupported VDI image (non-NULL parent UUID)", false},
		{u32(0x180, 0x1000000), "unsupported VDI image (block map: 67108864 bytes at 512 are beyond the end of the file)", true},
		{u32(0x4c, 3), "unsupported VDI image (type 3)", true},
		{u32(0x4c, 4), "unsupported VDI image (type 4)", true},
		{u32(0x17c, 512), "unsupported VDI image (512 extra bytes in each block)", true},
		{func(b []byte) []byte { return b[:100] }, "unsupported VDI image (sector size 0 is not 512)", false},
	} {
		b := c.change(small())
		_, err := vdi.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
		if err == nil || err.Error() != c.want {
			t.Errorf("%v, want %q", err, c.want)
		}
		if !c.ours {
			mappedtest.QemuRefuses(t, "vdi", b, c.want)
		}
	}
	if _, err := vdi.Format().Open(blocktest.NewMemFile(small()), block.OpenOptions{}); err == nil {
		t.Error("opened to be written to")
	}
}

// TestBlockBeyondTheEnd: where QEMU reads zeros, data are lost; that is an error here.
func TestBlockBeyondTheEnd(t *testing.T) {
	for _, kind := range []byte{1, 2} { // dynamic, static
		b := small()
		b[0x4c], b[516] = kind, 2
		i, err := vdi.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		if err := i.Readv([][]byte{make([]byte, 512)}, 1<<20); err == nil || !strings.Contains(err.Error(), "beyond the end of the file") {
			t.Errorf("read, of type %d: %v", kind, err)
		}
		if err := i.Readv([][]byte{make([]byte, 512)}, 0); err != nil {
			t.Errorf("read of what is not allocated, of type %d: %v", kind, err)
		}
		var lines []string
		if _, err := i.(block.Checker).Check(0, func(s string) { lines = append(lines, s) }); err != nil || !slices.Equal(lines, []string{"ERROR: block index 1 points after EOF"}) {
			t.Errorf("check, of type %d: %q, %v", kind, lines, err)
		}
	}
}

// TestCheck compares findings with qemu-img's.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		change func([]byte)
		want   []string
	}{
		{func([]byte) {}, nil},
		{func(b []byte) { b[0x184] = 7 }, []string{"ERROR: allocated blocks mismatch, is 1, should be 7"}},
		{func(b []byte) { b[512], b[513], b[514], b[515], b[0x184] = 0, 0, 0, 0, 2 }, []string{"ERROR: block index 0 also used by 0"}},
		{func(b []byte) { b[516] = 3 }, []string{"ERROR: block index 1 too large, is 3", "ERROR: allocated blocks mismatch, is 0, should be 1"}},
	} {
		b := small()
		c.change(b)
		i, err := vdi.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true, Check: true})
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		res, err := i.(block.Checker).Check(0, func(s string) { lines = append(lines, s) })
		if err != nil || !slices.Equal(lines, c.want) || res.Corruptions != int64(len(c.want)) {
			t.Errorf("%v %q, want %q", err, lines, c.want)
		}
		mappedtest.QemuFinds(t, "vdi", b, c.want)
		if _, err := i.(block.Checker).Check(block.FixAll, nil); err == nil {
			t.Error("repaired")
		}
		i.Close()
	}
}

func FuzzOpen(f *testing.F) {
	f.Fuzz(func(_ *testing.T, b []byte) {
		mappedtest.Fuzz(vdi.Format(), b, block.OpenOptions{ReadOnly: true})
		mappedtest.Fuzz(vdi.Format(), b, block.OpenOptions{ReadOnly: true, Check: true})
	})
}

// TestMutations gives each field of the header and of the map its extreme values.
func TestMutations(t *testing.T) {
	for _, kind := range []byte{1, 2} {
		b := small()
		b[0x4c] = kind
		mappedtest.Mutation{
			Format: vdi.Format(), Image: b, Order: binary.LittleEndian, Samples: []int64{1 << 20, 2<<20 - 512, 2 << 20},
			Fields: slices.Concat(mappedtest.Fields(4, 0x40, 0x54), mappedtest.Fields(4, 0x154, 0x170), mappedtest.Fields(8, 0x170, 0x178),
				mappedtest.Fields(4, 0x178, 0x188), mappedtest.Fields(8, 0x188, 0x1c8), mappedtest.Fields(4, 0x1c8, 0x1d8), mappedtest.Fields(4, 512, 524)),
			Reasons: []string{"beyond the end of the file", "(type ", "extra bytes in each block"},
		}.Run(t)
	}
}
