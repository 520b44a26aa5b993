package vmdk_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/mapped/mappedtest"
	"berth/block/vmdk"
)

func subformats() []string {
	return []string{"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"}
}

// TestAsQemuImg reads images that qemu-img writes.
func TestAsQemuImg(t *testing.T) {
	mappedtest.Need(t)
	for seed, size := range []int64{512, 65536 + 512, 9<<20 + 1536, 70 << 20} {
		for _, s := range subformats() {
			source := mappedtest.Source(t, uint64(seed), size)
			mappedtest.Compare(t, vmdk.Format(), mappedtest.Convert(t, source, "vmdk", "subformat="+s))
		}
	}
}

// TestSeveralExtents: from 2 GiB on, the disk is in several files.
func TestSeveralExtents(t *testing.T) {
	mappedtest.Need(t)
	for _, s := range []string{"twoGbMaxExtentSparse", "twoGbMaxExtentFlat"} {
		path := filepath.Join(t.TempDir(), "disk.vmdk")
		mappedtest.Img(t, "create", "-f", "vmdk", "-o", "subformat="+s, path, "5G")
		mappedtest.IO(t, "vmdk", path, "write -P 1 0 64k", "write -P 2 2047M 2M", "write -P 3 4097M 1M", "write -P 4 5119M 1M")
		i, err := mappedtest.OpenImage(vmdk.Format(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer i.Close()
		for _, c := range []struct{ off, n, want int64 }{{0, 64 << 10, 1}, {64 << 10, 1 << 20, 0}, {2047 << 20, 2 << 20, 2}, {4097 << 20, 1 << 20, 3}, {5119 << 20, 1 << 20, 4}} {
			p := bytes.Repeat([]byte{0xa5}, int(c.n))
			if err := i.Readv([][]byte{p[:100], p[100:]}, c.off); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(c.want)}, len(p))) {
				t.Errorf("%s at %d: %v", s, c.off, err)
			}
		}
		e, err := i.(block.Extenter).Extent(2048<<20, 1<<20)
		if err != nil || !strings.HasSuffix(e.File, "002.vmdk") || !e.HasOffset {
			t.Errorf("%s: %+v %v", s, e, err)
		}
		mappedtest.CompareMap(t, vmdk.Format(), i, path)
		mappedtest.CompareInfo(t, vmdk.Format(), i, path)
	}
}

// TestZeroedGrains reads grains that say that they are zeros.
func TestZeroedGrains(t *testing.T) {
	mappedtest.Need(t)
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	mappedtest.Img(t, "create", "-f", "vmdk", "-o", "zeroed_grain=on", path, "1M")
	mappedtest.IO(t, "vmdk", path, "write -P 1 0 1M", "write -z 128k 256k")
	mappedtest.Compare(t, vmdk.Format(), path)
}

// TestBacking reads a delta link: what it has not is its parent's, if that is
// still what it was made on.
func TestBacking(t *testing.T) {
	mappedtest.Need(t)
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base.vmdk"), filepath.Join(dir, "top.vmdk")
	mappedtest.Img(t, "create", "-f", "vmdk", base, "1M")
	mappedtest.IO(t, "vmdk", base, "write -P 1 0 1M")
	mappedtest.Img(t, "create", "-f", "vmdk", "-b", base, "-F", "vmdk", "-o", "zeroed_grain=on", top, "2M")
	mappedtest.IO(t, "vmdk", top, "write -P 2 128k 100k", "write -z 512k 128k")
	b, err := mappedtest.OpenImage(vmdk.Format(), base, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	i, err := mappedtest.OpenImage(vmdk.Format(), top, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if name, format := i.(block.Backed).BackingFile(); name != base || format != "vmdk" {
		t.Errorf("backing file %q, %q", name, format)
	}
	if err := i.(block.Backed).ChangeBackingFile("", ""); err == nil {
		t.Error("the backing file of what is only read was changed")
	}
	i.(block.Backed).SetBacking(b)
	mappedtest.Contents(t, vmdk.Format(), i, top)
	mappedtest.CompareInfo(t, vmdk.Format(), i, top)

	mappedtest.IO(t, "vmdk", base, "write -P 3 0 1M") // another CID
	changed, err := mappedtest.OpenImage(vmdk.Format(), base, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer changed.Close()
	i.(block.Backed).SetBacking(changed)
	p := make([]byte, 512)
	if err := i.Readv([][]byte{p}, 0); err == nil || !strings.Contains(err.Error(), "CID differs") {
		t.Errorf("read from a parent that has changed: %v", err)
	}
	if e, err := i.(block.Extenter).Extent(0, 512); err == nil {
		t.Errorf("what lies in a parent that has changed: %+v", e)
	}
	if err := i.Readv([][]byte{p}, 128<<10); err != nil || p[0] != 2 {
		t.Errorf("read of what needs no parent: %v", err)
	}
}

func TestProbe(t *testing.T) {
	for head, want := range map[string]int{
		"KDMV": 100, "COWD": 100, "KDM": 0, "": 0, "version=1\n": 100, "version=3\r\nx": 100, "version=4\n": 0, "version=1": 0,
		"# c\n# d\nversion=2\n": 100, "# c\n  \nversion=1\n": 100, "  \r\nversion=1\n": 100, "  x\nversion=1\n": 0, "\nversion=1\n": 0, "# only": 0, "    ": 0,
	} {
		if got := vmdk.Format().Probe([]byte(head)); got != want {
			t.Errorf("%q: %d, want %d", head, got, want)
		}
	}
}

func siblings(files map[string][]byte) func(string) (block.File, string, error) {
	return func(name string) (block.File, string, error) {
		b, ok := files[name]
		if !ok {
			return nil, name, os.ErrNotExist
		}
		return blocktest.NewMemFile(b), name, nil
	}
}

const head = "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"

// TestDescriptors: each that is wrong gets one line.
func TestDescriptors(t *testing.T) {
	mappedtest.Need(t)
	for _, c := range []struct {
		text, want string
		ours       bool // QEMU says nothing, or no more than an errno's words
	}{
		{"", "File is too small, not a valid image", false},
		{"abc", "invalid VMDK image descriptor", false},
		{"version=1\n", "invalid VMDK image descriptor", false},
		{strings.Replace(head, "monolithicFlat", "custom", 1), "Unsupported image type 'custom'", false},
		{head + "RW 2 FLAT \"f\"\n", "Invalid extent line: RW 2 FLAT \"f\"", false},
		{head + "RW 2 FLAT \"f\" -1\n", "Invalid extent line: RW 2 FLAT \"f\" -1", false},
		{head + "RW 2 VMFS \"f\" 0\n", "Invalid extent line: RW 2 VMFS \"f\" 0", false},
		{head + "RW 2 SPARSE \"f\" 0\n", "Invalid extent line: RW 2 SPARSE \"f\" 0", false},
		{head, "invalid VMDK image descriptor: it names no extents", true},
		{head + "RDONLY 1 FLAT \"f\" 0\n", "Unsupported extent access 'RDONLY'", true},
		{head + "RW 1 FLAT \"f\" 0\nNOACCESS 1 FLAT \"f\" 0\n", "Unsupported extent access 'NOACCESS'", true},
		{head + "RW 1 ZERO\nRW 1 FLAT \"f\" 0\n", "Unsupported extent type 'ZERO'", true},
		{head + "RW 1 VMFSRDM \"f\"\nRW 1 FLAT \"f\" 0\n", "Unsupported extent type 'VMFSRDM'", true},
		{head + "RW -1 FLAT \"f\" 0\n", "Invalid extent line: RW -1 FLAT \"f\" 0", true},
		{head + "RW 0 FLAT \"f\" 0\nRW 1 FLAT \"f\n", "Invalid extent line: RW 1 FLAT \"f", true},
		{head + "RW 99 SPARSE \"s\"\nRW 1 FLAT \"f\" 0\n", "The VMDK extent 's' has 128 sectors, and by the descriptor 99: where the next begins is not known", true},
		{head + "RW 99 SPARSE \"s\"\n", "", true},
		{strings.Replace(head, "ffffffff", "1", 1) + "RW 1 FLAT \"f\" 0\n", "The VMDK image is a delta link (parentCID 00000001) but names no parent", true},
		{head + "RW 9 FLAT \"f\" 0\n", "File truncated: the VMDK extent 'f' has 2 sectors, 9 from 0 on are to be in it", true},
		{head + "RW 1 FLAT \"f\" 9000000000000000000\n", "File truncated: the VMDK extent 'f' has 2 sectors, 1 from 9000000000000000000 on are to be in it", true},
		{head + "RW 1 VMFSSPARSE \"f\"\n", "Unsupported extent type 'VMFSSPARSE'", true},
		{head + "RW 1 SESPARSE \"f\"\n", "Unsupported extent type 'SESPARSE'", true},
		{head + "RW 1 SPARSE \"f\"\n", "Image not in VMDK format", true},
		{head + "RW 1 FLAT \"gone\" 0\n", "file does not exist", true},
		{strings.Replace(head, "CID=1234abcd\n", "", 1) + "RW 1 FLAT \"f\" 0\n", "", true},
		{strings.NewReplacer("parentCID", "p", "CID", "c").Replace(head) + "RW 1 FLAT \"f\" 0\n", "invalid VMDK image descriptor: it has no CID (an extent is opened by the descriptor that names it)", true},
		{strings.Replace(head, "1234abcd", "x", 1) + "RW 1 FLAT \"f\" 0\n", "invalid VMDK image descriptor: CID is not a number", true},
		{head + "RW 1 FLAT \"f\" 0\nparentFileNameHint=\"x", "invalid VMDK image descriptor: parentFileNameHint does not end", true},
		{head + strings.Repeat("RW 1 FLAT \"f\" 0\n", 5000), "VMDK images of more than 4096 extents are not supported", true},
	} {
		i, err := vmdk.Format().Open(blocktest.NewMemFile([]byte(c.text)), block.OpenOptions{ReadOnly: true, Sibling: siblings(map[string][]byte{"f": make([]byte, 1024), "s": small()})})
		if c.want == "" && err == nil {
			i.Close()
			continue
		}
		if err == nil || err.Error() != c.want {
			t.Errorf("%.200q: %v, want %q", c.text, err, c.want)
		}
		if !c.ours {
			mappedtest.QemuRefuses(t, "vmdk", []byte(c.text), c.want)
		}
	}
	_, err := vmdk.Format().Open(blocktest.NewMemFile([]byte(head+"RW 1 FLAT \"f\" 0\n")), block.OpenOptions{ReadOnly: true})
	if err == nil || !strings.Contains(err.Error(), "not opened here") {
		t.Errorf("extents where other files are refused: %v", err)
	}
}

// small is a sparse image of 64 KiB in grains of 4 KiB, 4 in a table; of the
// first table, the second grain is there.
func small() []byte {
	b := make([]byte, 32<<10)
	put := func(off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }
	copy(b, "KDMV")
	put(4, 1)
	put(0x0c, 128)
	put(0x14, 8)
	put(0x1c, 1)
	put(0x24, 20)
	put(0x2c, 4)
	put(0x38, 24)
	put(0x40, 32)
	copy(b[512:], head)
	put(24*512, 25)
	put(25*512+4, 32)
	for i := range b[16<<10 : 20<<10] {
		b[16<<10+i] = byte(i>>8 + i + 1)
	}
	return b
}

// TestSparseErrors compares the words with qemu-img's.
func TestSparseErrors(t *testing.T) {
	u32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[off:], v); return b }
	}
	both := func(f, g func([]byte) []byte) func([]byte) []byte { return func(b []byte) []byte { return g(f(b)) } }
	for _, c := range []struct {
		change func([]byte) []byte
		want   string
		ours   bool
	}{
		{u32(4, 4), "Unsupported VMDK version 4", false},
		{u32(0x2c, 513), "L2 table size too big", false},
		{u32(0x2c, 0), "L1 entry size is invalid", false},
		{u32(0x14, 0), "L1 entry size is invalid", false},
		{u32(0x14, 0x200001), "Invalid granularity, image may be corrupt", false},
		{u32(0x10, 0x80), "L1 size too big", true},
		{u32(0x0c, 0x40000001), "L1 size too big", false},
		{u32(0x40, 65), "File truncated, expecting at least 33280 bytes", false},
		{both(u32(0x38, 0xffffffff), u32(0x3c, 0xffffffff)), "Invalid footer", false},
		{u32(0x3c, 0x7fffffff), "Could not read l1 table from extent 'F': sector 9223372032559808536 is beyond the end of the file", true},
		{u32(0x38, 64), "Could not read l1 table from extent 'F': 16 bytes at 32768 are beyond the end of the file", true},
		{func(b []byte) []byte { return append([]byte("COWD"), b[4:]...) }, "Unsupported image type 'vmfsSparse'", true},
		{func(b []byte) []byte { return u32(0x0c, 0)(bytes.ReplaceAll(b, []byte("Flat"), []byte("Spar"))) }, "Unsupported image type 'monolithicSpar'", false},
		{u32(8, 1), "The VMDK file was changed when it was copied as text", true},
		{u32(8, 1<<17), "VMDK grains with markers are not supported unless they are compressed", true},
		{u32(0x4c, 0x200), "Unsupported VMDK compression 2", true},
		{both(u32(8, 2), u32(0x30, 64)), "Could not read l1 backup table from extent 'F': 16 bytes at 32768 are beyond the end of the file", true},
		{both(u32(0x4c, 0x100), u32(0x14, 8192)), "Invalid granularity, image may be corrupt", true},
	} {
		b := c.change(small())
		_, err := vmdk.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true, Filename: "F"})
		if err == nil || err.Error() != c.want {
			t.Errorf("%v, want %q", err, c.want)
		}
		if !c.ours {
			mappedtest.QemuRefuses(t, "vmdk", b, c.want)
		}
	}
	if _, err := vmdk.Format().Open(blocktest.NewMemFile(small()), block.OpenOptions{}); err == nil {
		t.Error("opened to be written to")
	}
}

// TestSmall: what the errors above are made from is a good image, and tables
// and grains past its end are errors where QEMU reads zeros.
func TestSmall(t *testing.T) {
	open := func(b []byte) block.Image {
		i, err := vmdk.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true, Check: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { i.Close() })
		return i
	}
	check := func(i block.Image) (lines []string) {
		_, _ = i.(block.Checker).Check(0, func(s string) { lines = append(lines, s) })
		return lines
	}
	i, p := open(small()), make([]byte, 64<<10)
	if err := i.Readv([][]byte{p}, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p[4096:8192], small()[16<<10:20<<10]) || !bytes.Equal(p[8192:], make([]byte, 56<<10)) {
		t.Error("contents differ")
	}
	if lines := check(i); lines != nil {
		t.Errorf("check: %q", lines)
	}
	b := small()
	b[25*512+5] = 1
	i = open(b)
	if err := i.Readv([][]byte{p[:512]}, 4096); err == nil || !strings.Contains(err.Error(), "beyond the end") {
		t.Errorf("a grain past the end: %v", err)
	}
	mappedtest.QemuFinds(t, "vmdk", b, append(check(i), "Check failed: Invalid argument"))
	b[24*512+1] = 1
	i = open(b)
	if err := i.Readv([][]byte{p[:512]}, 4096); err == nil || !strings.Contains(err.Error(), "beyond the end") {
		t.Errorf("a table past the end: %v", err)
	}
	if lines := check(i); len(lines) != 1 || lines[0] != "ERROR: could not get cluster_offset for sector 0" {
		t.Errorf("check: %q", lines)
	}
}

// TestCheckOfATableNamedOften: to check 4 Mi entries of a directory that all
// name one table of 512 lone grains takes no longer than to check that table.
func TestCheckOfATableNamedOften(t *testing.T) {
	const entries, table = 4 << 20, 64
	b := make([]byte, (table+16)*512+4*entries)
	copy(b, small()[:24*512])
	le := binary.LittleEndian
	le.PutUint64(b[0x0c:], entries*512)
	le.PutUint64(b[0x14:], 1)
	le.PutUint32(b[0x2c:], 512)
	le.PutUint64(b[0x38:], table+16)
	for k := range entries {
		le.PutUint32(b[(table+16)*512+4*k:], table)
	}
	for k := range 512 {
		le.PutUint32(b[table*512+4*k:], uint32(40+k%2*2))
	}
	i, err := vmdk.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true, Check: true})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if _, err := i.(block.Checker).Check(0, func(s string) { t.Error(s) }); err != nil {
		t.Error(err)
	}
}

// TestZeroedGrainWithoutItsFlag: what is meant cannot be known, and what stands
// in sector 1 is not the guest's.
func TestZeroedGrainWithoutItsFlag(t *testing.T) {
	b := small()
	b[25*512] = 1
	i, err := vmdk.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Readv([][]byte{make([]byte, 512)}, 0); err == nil || !strings.Contains(err.Error(), "grain of zeros") {
		t.Error(err)
	}
}

// TestCutOffInARun: of grains that lie together, the file has but the first.
func TestCutOffInARun(t *testing.T) {
	b := small()
	binary.LittleEndian.PutUint32(b[25*512+8:], 40)
	i, err := vmdk.Format().Open(blocktest.NewMemFile(b[:20<<10]), block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Readv([][]byte{make([]byte, 4096)}, 4096); err != nil {
		t.Error(err)
	}
	if err := i.Readv([][]byte{make([]byte, 8192)}, 4096); err == nil || !strings.Contains(err.Error(), "beyond the end") {
		t.Errorf("two grains, of which one is there: %v", err)
	}
}

// TestAsVMDKstream reads what Debian's python3-vmdkstream writes: version 3,
// with grains elsewhere than qemu-img's are.
func TestAsVMDKstream(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import VMDKstream").Run(); err != nil {
		t.Skip("no VMDKstream here (Debian: python3-vmdkstream)")
	}
	mappedtest.Need(t)
	source, path := mappedtest.Source(t, 9, 9<<20), filepath.Join(t.TempDir(), "disk.vmdk")
	if out, err := exec.Command(python, "-c", "import sys, VMDKstream; VMDKstream.convert_to_stream(sys.argv[1], sys.argv[2])", source, path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mappedtest.Compare(t, vmdk.Format(), path)
}

// TestBrokenGrains: a compressed grain that does not hold what it says is an error.
func TestBrokenGrains(t *testing.T) {
	mappedtest.Need(t)
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	source := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(source, bytes.Repeat([]byte("abcdefgh"), 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	mappedtest.Img(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", source, path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	grain := bytes.Index(good, []byte{0x78, 0x9c})
	for _, c := range []struct {
		off int
		v   byte
	}{{grain, 0}, {grain + 1, 0x9d}, {grain + 5, 0xff}, {grain - 4, 0}, {grain - 4, 20}, {grain - 2, 0xff}} {
		b := bytes.Clone(good)
		b[c.off] = c.v
		i, err := vmdk.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Readv([][]byte{make([]byte, 512)}, 1024); err == nil {
			t.Errorf("byte %d of the grain is %#x: no error", c.off-grain, c.v)
		}
		i.Close()
	}
}

func FuzzOpen(f *testing.F) {
	f.Fuzz(func(_ *testing.T, b []byte) {
		o := block.OpenOptions{ReadOnly: true, Sibling: siblings(map[string][]byte{"a": make([]byte, 4096), "b": b, "c": small()})}
		mappedtest.Fuzz(vmdk.Format(), b, o)
	})
}

// TestMutations gives each field of the header, of a directory and of tables
// its extreme values.
func TestMutations(t *testing.T) {
	grain := small()
	grain[8], grain[0x34], grain[25*512] = 7, 0, 1
	copy(grain[0x49:], "\n \r\n")
	binary.LittleEndian.PutUint32(grain[0x30:], 24)
	fields := slices.Concat(mappedtest.Fields(4, 0, 12), mappedtest.Fields(8, 12, 0x2c), mappedtest.Fields(4, 0x2c, 0x30),
		mappedtest.Fields(8, 0x30, 0x48), mappedtest.Fields(1, 0x48, 0x50), mappedtest.Fields(4, 24*512, 24*512+8), mappedtest.Fields(4, 25*512, 25*512+12))
	m := mappedtest.Mutation{
		Format: vmdk.Format(), Image: grain, Order: binary.LittleEndian, Fields: fields, Samples: []int64{512, 4096, 8192, 16384},
		Reasons: []string{
			"beyond the end of the file", "copied as text", "with markers", "Unsupported VMDK compression", "it names no extents", "L1 size too big", "VMDK grain of zeros",
		},
	}
	m.Run(t)
	var err error
	if m.Image, err = os.ReadFile(mappedtest.Convert(t, mappedtest.Source(t, 5, 128<<10), "vmdk", "subformat=streamOptimized")); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(m.Image, []byte{0x78, 0x9c}) - 12
	m.Fields = slices.Concat(fields[:13], mappedtest.Fields(4, at+8, at+12), mappedtest.Fields(2, at+12, at+14))
	m.Samples = []int64{512, 65536}
	m.Run(t)
	m.Fields = slices.Concat(mappedtest.Fields(4, len(m.Image)+8, len(m.Image)+16), mappedtest.Fields(8, len(m.Image)+1024, len(m.Image)+1032),
		mappedtest.Fields(4, len(m.Image)+1032, len(m.Image)+1040), mappedtest.Fields(8, 0x38, 0x40))
	for _, f := range fields[:13] {
		m.Fields = append(m.Fields, mappedtest.Field{Off: len(m.Image) + 512 + f.Off, Len: f.Len})
	}
	m.Image = slices.Concat(m.Image, make([]byte, 512), m.Image[:512], make([]byte, 512))
	m.Image[len(m.Image)-1536+12] = 3
	binary.LittleEndian.PutUint64(m.Image[0x38:], 1<<64-1)
	m.Run(t)
}
