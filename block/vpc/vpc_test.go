package vpc_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/mapped/mappedtest"
	"berth/block/vpc"
)

// TestAsQemuImg reads images that qemu-img writes: sizes that fit a geometry,
// sizes that do not, and one too large for any.
func TestAsQemuImg(t *testing.T) {
	mappedtest.Need(t)
	for seed, size := range []int64{68 * 512, 1 << 20, 9<<20 + 512, 70 << 20} {
		for _, o := range []string{"subformat=dynamic", "subformat=fixed", "subformat=dynamic,force_size", "subformat=fixed,force_size"} {
			source := mappedtest.Source(t, uint64(seed), size)
			mappedtest.Compare(t, vpc.Format(), mappedtest.Convert(t, source, "vpc", o))
		}
	}
}

// TestSizeModes is the option force_size_calc, and who made the image.
func TestSizeModes(t *testing.T) {
	mappedtest.Need(t)
	path := mappedtest.Convert(t, mappedtest.Source(t, 1, 5<<20), "vpc", "subformat=fixed,force_size")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		creator, mode string
		want          int64
	}{
		{"qem2", "", 5 << 20}, {"qemu", "", 5222400}, {"vpc ", "", 5222400}, {"win ", "", 5 << 20}, {"d2v ", "", 5 << 20},
		{"CTXS", "", 5 << 20}, {"tap\x00", "", 5 << 20}, {"tap ", "", 5222400}, {"qem2", "chs", 5222400}, {"qemu", "current_size", 5 << 20},
	} {
		foot := b[len(b)-512:]
		copy(foot[0x1c:], c.creator)
		copy(foot[0x38:], []byte{0, 150, 4, 17})
		sign(foot)
		i, err := vpc.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true, Values: block.Values{"force_size_calc": c.mode}})
		if err != nil {
			t.Fatal(err)
		}
		if i.Size() != c.want {
			t.Errorf("%q %q: %d bytes, want %d", c.creator, c.mode, i.Size(), c.want)
		}
		i.Close()
	}
	_, err = vpc.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true, Values: block.Values{"force_size_calc": "x"}})
	if err == nil || err.Error() != "Invalid size calculation mode: 'x'" {
		t.Error(err)
	}
}

func sign(foot []byte) { signAt(foot[:512], 0x40) }

// signHeader makes the checksum of the dynamic header right, which is the second sector.
func signHeader(b []byte) { signAt(b[512:1536], 0x24) }

func signAt(p []byte, at int) {
	clear(p[at : at+4])
	var sum uint32
	for _, c := range p {
		sum += uint32(c)
	}
	binary.BigEndian.PutUint32(p[at:], ^sum)
}

// small is a dynamic image of 4 blocks of 4 KiB, the second of which is allocated.
func small() []byte {
	b := make([]byte, 2048+512+4096+512)
	put := func(off int, v uint32) { binary.BigEndian.PutUint32(b[off:], v) }
	copy(b, "conectix")
	put(0x14, 512)
	copy(b[0x1c:], "qem2")
	put(0x34, 4*4096)
	put(0x3c, 3)
	sign(b)
	copy(b[512:], "cxsparse")
	put(512+0x14, 1536)
	put(512+0x1c, 4)
	put(512+0x20, 4096)
	signHeader(b)
	copy(b[1536:], bytes.Repeat([]byte{0xff}, 512))
	put(1540, 4)
	for i := range b[2560 : 2560+4096] {
		b[2560+i] = byte(i>>8 + i + 1)
	}
	copy(b[len(b)-512:], b[:512])
	return b
}

// TestErrors compares the words with qemu-img's.
func TestErrors(t *testing.T) {
	u32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[off:], v); sign(b); signHeader(b); return b }
	}
	truncated := "block-vpc: free_data_block_offset points after the end of file. The image has been truncated."
	for _, c := range []struct {
		change func([]byte) []byte
		want   string
		ours   bool // QEMU says nothing, or no more than an errno's words
	}{
		{func(b []byte) []byte { b[9]++; return b }, "Incorrect header checksum", false},
		{func(b []byte) []byte { b[512+0x13]++; return b }, "Incorrect checksum of the dynamic VHD header", true},
		{func(b []byte) []byte { copy(b[0x1c:], "vpc "); sign(b); return b }, "The VHD image has no geometry: open it with force_size_calc=current_size", true},
		{func(b []byte) []byte { b[9], b[0x3f] = 1, 4; return b }, "Incorrect header checksum", false},
		{func(b []byte) []byte { return make([]byte, 1024) }, "invalid VPC image", false},
		{func(b []byte) []byte { return nil }, "File too small for a VHD header", false},
		{func(b []byte) []byte { return b[:6000] }, truncated, false},
		{u32(0x10, 0xffffffff), "Error reading dynamic VHD header", false},
		{u32(0x14, 1024), "Invalid header magic", false},
		{u32(512+0x20, 4097), "Invalid block size 4097", false},
		{u32(512+0x20, 256), "Invalid block size 256", false},
		{u32(512+0x1c, 3), "Page table too small", false},
		{u32(512+0x1c, 0x20000000), "Max Table Entries too large (536870912)", false},
		{u32(512+0x1c, 0xffffffff), "Max Table Entries too large (-1)", false},
		{u32(512+0x1c, 0x1fffffff), "Error reading pagetable", false},
		{u32(512+0x1c, 0x10000000), truncated, false},
		{u32(512+0x10, 0x80000000), "Error reading pagetable", false},
		{u32(512+0x10, 0x70000000), truncated, false},
		{u32(1536, 0x7fffffff), truncated, false},
		{u32(0x30, 0x400), "file too large", true},
		{u32(0x3c, 4), "Differencing VHD images are not supported", true},
		{u32(0x3c, 2), "invalid VPC image", true},
	} {
		b := c.change(small())
		_, err := vpc.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
		if err == nil || err.Error() != c.want {
			t.Errorf("%v, want %q", err, c.want)
		}
		if !c.ours {
			mappedtest.QemuRefuses(t, "vpc", b, c.want)
		}
	}
	if _, err := vpc.Format().Open(blocktest.NewMemFile(small()), block.OpenOptions{}); err == nil {
		t.Error("opened to be written to")
	}
}

// TestSmall: what the errors above are made from is a good image.
func TestSmall(t *testing.T) {
	i, err := vpc.Format().Open(blocktest.NewMemFile(small()), block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	p := make([]byte, i.Size())
	if err := i.Readv([][]byte{p}, 0); err != nil {
		t.Fatal(err)
	}
	if want := append(append(make([]byte, 4096), small()[2560:2560+4096]...), make([]byte, 8192)...); !bytes.Equal(p, want) {
		t.Error("contents differ")
	}
}

// TestLastByteMissing: old fixed disks have a footer of 511 bytes.
func TestLastByteMissing(t *testing.T) {
	mappedtest.Need(t)
	path := mappedtest.Convert(t, mappedtest.Source(t, 1, 1<<20), "vpc", "subformat=fixed")
	s, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, s.Size()-1)
	}
	if err != nil {
		t.Fatal(err)
	}
	mappedtest.Compare(t, vpc.Format(), path)
}

// TestFixedCutOff: where QEMU reads the footer as the guest's, and zeros behind
// it, there is no image.
func TestFixedCutOff(t *testing.T) {
	for missing := range 3 {
		b := make([]byte, (10-missing)*512)
		foot := b[len(b)-512:]
		copy(foot, small())
		binary.BigEndian.PutUint32(foot[0x34:], 9*512)
		binary.BigEndian.PutUint32(foot[0x3c:], 2)
		sign(foot)
		i, err := vpc.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
		if missing == 0 {
			if err != nil {
				t.Fatal(err)
			}
			i.Close()
			continue
		}
		if want := fmt.Sprintf("The VHD image has %d sectors, 9 are to be in it", 9-missing); err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) > 512 { // else the checksum hides what is behind it
			sign(b)
			sign(b[len(b)-512:])
		}
		if len(b) > 1536 {
			signHeader(b)
		}
		mappedtest.Fuzz(vpc.Format(), b, block.OpenOptions{ReadOnly: true})
	})
}

// TestMutations gives each field of the headers and of the table its extreme values.
func TestMutations(t *testing.T) {
	footer := slices.Concat(mappedtest.Fields(8, 0, 24), mappedtest.Fields(4, 24, 0x28), mappedtest.Fields(8, 0x28, 0x38),
		mappedtest.Fields(2, 0x38, 0x3a), mappedtest.Fields(1, 0x3a, 0x3c), mappedtest.Fields(4, 0x3c, 0x44), mappedtest.Fields(8, 0x44, 0x5c))
	m := mappedtest.Mutation{
		Format: vpc.Format(), Image: small(), Order: binary.BigEndian, Samples: []int64{4096, 8192 - 512, 8192},
		Fields: slices.Concat(footer, mappedtest.Fields(8, 512, 512+0x18), mappedtest.Fields(4, 512+0x18, 512+0x28), mappedtest.Fields(4, 1536, 1536+16)),
		Sign:   func(b []byte) { sign(b); signHeader(b) },
		Reasons: []string{ // of a type but dynamic, QEMU takes it for that
			"invalid VPC image", "Differencing VHD images", "checksum of the dynamic VHD header", "has no geometry", "sectors, 8 are to be in it",
		},
	}
	m.Run(t)
	m.Sign, m.Fields = nil, []mappedtest.Field{{Off: 0x40, Len: 4}, {Off: 512 + 0x24, Len: 4}}
	m.Run(t)
	b := make([]byte, 2560)
	copy(b[2048:], small())
	binary.BigEndian.PutUint32(b[2048+0x34:], 2048)
	binary.BigEndian.PutUint32(b[2048+0x3c:], 2)
	sign(b[2048:])
	m.Image, m.Fields, m.Sign = b, nil, func(b []byte) { sign(b[2048:]) }
	for _, f := range footer {
		m.Fields = append(m.Fields, mappedtest.Field{Off: 2048 + f.Off, Len: f.Len})
	}
	m.Run(t)
}
