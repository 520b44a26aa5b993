package vhdx_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/mapped/mappedtest"
	"berth/block/vhdx"
)

// TestAsQemuImg reads images that qemu-img writes.
func TestAsQemuImg(t *testing.T) {
	mappedtest.Need(t)
	for seed, c := range []struct {
		size    int64
		options string
	}{
		{512, "subformat=dynamic"}, {1 << 20, "subformat=fixed"}, {9<<20 + 512, "subformat=dynamic,block_size=1M"},
		{70 << 20, "subformat=dynamic"}, {70 << 20, "subformat=fixed,log_size=3M"}, {9<<20 + 512, "subformat=dynamic,block_size=2M,block_state_zero=off"},
	} {
		source := mappedtest.Source(t, uint64(seed), c.size)
		mappedtest.Compare(t, vhdx.Format(), mappedtest.Convert(t, source, "vhdx", c.options))
	}
}

// TestBitmapEntries: past 4 GiB of 1 MiB blocks, the table has other entries, too.
func TestBitmapEntries(t *testing.T) {
	mappedtest.Need(t)
	path := t.TempDir() + "/image"
	mappedtest.Img(t, "create", "-f", "vhdx", "-o", "block_size=1M", path, "9G")
	for k, at := range []int{0, 4095, 4096, 4097, 8193} {
		mappedtest.IO(t, "vhdx", path, fmt.Sprintf("write -P %d %dM 64k", k+1, at))
	}
	i, err := mappedtest.OpenImage(vhdx.Format(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for _, at := range []int64{0, 1, 4094, 4095, 4096, 4097, 4098, 8192, 8193, 8194} {
		p := make([]byte, 128<<10)
		if err := i.Readv([][]byte{p}, at<<20); err != nil {
			t.Fatal(err)
		}
		mappedtest.IO(t, "vhdx", path, fmt.Sprintf("read -P %d %dM 64k", p[0], at), fmt.Sprintf("read -P 0 %dk 64k", at<<10+64))
		if !bytes.Equal(p, append(bytes.Repeat(p[:1], 64<<10), make([]byte, 64<<10)...)) {
			t.Errorf("contents at %d MiB differ", at)
		}
	}
}

// image returns the bytes of one with a disk of that many MiB, in blocks of 1 MiB.
func image(t testing.TB, mib int) []byte {
	t.Helper()
	mappedtest.Need(t)
	path := t.TempDir() + "/image"
	mappedtest.Img(t, "create", "-f", "vhdx", "-o", "block_size=1M", path, fmt.Sprintf("%dM", mib))
	mappedtest.IO(t, "vhdx", path, "write -P 1 0 64k")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(p []byte) {
	clear(p[4:8])
	binary.LittleEndian.PutUint32(p[4:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
}

const (
	logOff = 1 << 20
	guidAt = 0x30
)

// dirty puts an entry into the log at byte at of it, and has the headers name it.
func dirty(b []byte, at int) {
	for _, h := range []int{64 << 10, 128 << 10} {
		copy(b[h+guidAt:], "the log's number")
		sign(b[h : h+4096])
	}
	e := b[logOff+at : logOff+at+8192]
	clear(e)
	copy(e, "loge")
	binary.LittleEndian.PutUint32(e[8:], 8192)
	binary.LittleEndian.PutUint64(e[16:], 5)
	binary.LittleEndian.PutUint32(e[24:], 1)
	copy(e[32:], "the log's number")
	binary.LittleEndian.PutUint64(e[48:], uint64(len(b)))
	binary.LittleEndian.PutUint64(e[56:], uint64(len(b)))
	copy(e[64:], "desc")
	binary.LittleEndian.PutUint64(e[80:], uint64(len(b)-4096))
	binary.LittleEndian.PutUint64(e[88:], 5)
	copy(e[4096:], "data")
	binary.LittleEndian.PutUint32(e[8188:], 5)
	sign(e)
}

// TestDirtyLog: an image whose log is to be replayed is refused as QEMU does; a
// torn entry is none.
func TestDirtyLog(t *testing.T) {
	for _, at := range []int{0, 4096, 1<<20 - 8192} {
		b := image(t, 3)
		dirty(b, at)
		mappedtest.QemuRefuses(t, "vhdx", b, "VHDX image file 'FILE' opened read-only, but contains a log that needs to be replayed\nTo replay the log, run:\nqemu-img check -r all 'FILE'")
		_, err := vhdx.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true, Filename: "F"})
		if want := "VHDX image file 'F' opened read-only, but contains a log that needs to be replayed\nTo replay the log, run:\nqemu-img check -r all 'F'"; err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
		_, err = vhdx.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{Check: true, Filename: "F"})
		if want := "VHDX image file 'F' contains a log that needs to be replayed, which is not supported here"; err == nil || err.Error() != want {
			t.Errorf("to be repaired: %v, want %q", err, want)
		}
		b[logOff+at+5000]++
		i, err := vhdx.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		i.Close()
	}
}

// TestTornEntryHidesNone: an entry that is torn may say that it is as long as
// the log, or have no length at all; the one behind it counts. (QEMU refuses
// such an image too, some for the torn entry.)
func TestTornEntryHidesNone(t *testing.T) {
	for _, length := range []uint32{1 << 20, 8192, 0} {
		b := image(t, 3)
		dirty(b, 4096)
		torn := b[logOff : logOff+64]
		copy(torn, b[logOff+4096:])
		binary.LittleEndian.PutUint32(torn[8:], length)
		_, err := vhdx.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
		if err == nil || !strings.Contains(err.Error(), "contains a log that needs to be replayed") {
			t.Errorf("behind %d bytes that are torn: %v", length, err)
		}
	}
}

// TestEntriesInOneAnother: the time that a log takes does not grow with the
// square of its length.
func TestEntriesInOneAnother(t *testing.T) {
	b := image(t, 3)
	dirty(b, 0)
	for at := logOff; at < logOff+1<<20; at += 4096 {
		copy(b[at:at+64], b[logOff:])
		binary.LittleEndian.PutUint32(b[at+4:], 0)
		binary.LittleEndian.PutUint32(b[at+8:], 1<<20)
	}
	_, err := vhdx.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
	if err == nil || err.Error() != "The VHDX log is not valid: its entries lie in one another" {
		t.Error(err)
	}
}

// TestErrors breaks an image in every way that it is checked for.
func TestErrors(t *testing.T) {
	good := image(t, 3)
	const regions = 192 << 10
	bat, metaTable := 0, 0
	for _, r := range []int{regions + 16, regions + 48} {
		off := int(binary.LittleEndian.Uint64(good[r+16:]))
		if string(good[off:off+8]) == "metadata" {
			metaTable = off
		} else {
			bat = off
		}
	}
	region := func(f func([]byte)) func([]byte) []byte {
		return func(b []byte) []byte { f(b[regions:]); sign(b[regions : regions+64<<10]); return b }
	}
	at := func(b []byte, id string) int { // the offset of a metadata item's entry
		k := bytes.Index(b[metaTable:metaTable+64<<10], []byte(id))
		if k < 0 {
			t.Fatalf("no item %x", id)
		}
		return metaTable + k
	}
	item := func(id string, v uint64) func([]byte) []byte {
		return func(b []byte) []byte {
			off := int(binary.LittleEndian.Uint32(b[at(b, id)+16:]))
			binary.LittleEndian.PutUint64(b[metaTable+off:], v)
			return b
		}
	}
	entry := func(v uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[bat:], v); return b }
	}
	const parameters, size, sector = "\x37\x67\xa1\xca\x36\xfa", "\x24\x42\xa5\x2f\x1b\xcd", "\x1d\xbf\x41\x81\x6f\xa9"
	for _, c := range []struct {
		change func([]byte) []byte
		want   string
	}{
		{func(b []byte) []byte { return make([]byte, 4096) }, "invalid argument"},
		{func(b []byte) []byte { b[64<<10+300]++; b[128<<10+300]++; return b }, "No valid VHDX header found"},
		{func(b []byte) []byte { b[regions+70]++; return b }, "The VHDX region table is not valid"},
		{region(func(r []byte) { r[9] = 8 }), "The VHDX region table is not valid"},
		{region(func(r []byte) { r[8] = 1 }), "The VHDX image lacks its block table or its metadata"},
		{region(func(r []byte) { r[16]++; r[16+28] = 1 }), "is required but not known"},
		{region(func(r []byte) { copy(r[16:32], r[48:64]) }), "A VHDX region occurs twice"},
		{region(func(r []byte) { copy(r[32:44], r[64:76]) }), "overlaps with region"},
		{region(func(r []byte) { r[16+23] = 0x7f }), "is beyond all files"},
		{func(b []byte) []byte { b[metaTable]++; return b }, "The VHDX metadata table is not valid"},
		{func(b []byte) []byte { b[metaTable+11] = 0xff; return b }, "The VHDX metadata table is not valid"},
		{func(b []byte) []byte { b[at(b, size)]++; return b }, "is required but not known"},
		{func(b []byte) []byte { copy(b[at(b, size):], b[at(b, parameters):][:16]); return b }, "occurs twice"},
		{func(b []byte) []byte { b[metaTable+10] = 1; return b }, "is missing"},
		{item(parameters, 1<<20|2<<32), "Differencing VHDX images are not supported"},
		{item(parameters, 3<<20), "Invalid VHDX block size 3145728"},
		{item(parameters, 512<<20), "Invalid VHDX block size 536870912"},
		{item(sector, 4096), "VHDX images with a sector size of 4096 are not supported"},
		{item(size, 65<<40), "is not one that the format allows"},
		{item(size, 0), "The VHDX image's size of 0 is not one that the format allows"},
		{item(size, 64<<40), "The VHDX block table has 1048576 bytes but the disk needs"},
		{entry(0x7ffffffffff00006), "VHDX BAT entry 0 offset overflow."},
		{entry(64<<20 | 6), "VHDX BAT entry 0 start offset 67108864 points after end of file"},
		{entry(6), "VHDX BAT entry 0 points into the header"},
		{entry(1<<20 | 6), "overlaps with region"},
	} {
		_, err := vhdx.Format().Open(blocktest.NewMemFile(c.change(bytes.Clone(good))), block.OpenOptions{ReadOnly: true})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	for _, c := range [][2]string{{"7", "state 7"}, {"4", "state 4"}} {
		i, err := vhdx.Format().Open(blocktest.NewMemFile(entry(uint64(c[0][0]-'0'))(bytes.Clone(good))), block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Readv([][]byte{make([]byte, 9)}, 0); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%v, want %q", err, c[1])
		}
	}
	if _, err := vhdx.Format().Open(blocktest.NewMemFile(good), block.OpenOptions{}); err == nil {
		t.Error("opened to be written to")
	}
}

// TestTruncated: an image cut off is refused in QEMU's words, and checked in them.
func TestTruncated(t *testing.T) {
	b := image(t, 3)
	b = b[:len(b)-1<<20+4096]
	want := fmt.Sprintf("VHDX BAT entry 0 end offset %d points after end of file (%d). Image has probably been truncated.", len(b)-4096+1<<20-1, len(b))
	_, err := vhdx.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true})
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	i, err := vhdx.Format().Open(blocktest.NewMemFile(b), block.OpenOptions{ReadOnly: true, Check: true})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	var lines []string
	if _, err := i.(block.Checker).Check(0, func(s string) { lines = append(lines, s) }); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 1 || lines[0] != want {
		t.Errorf("check: %q", lines)
	}
	mappedtest.QemuFinds(t, "vhdx", b, lines)
}

// FuzzOpen puts what it is given where the parts of an image are, and makes the
// checksums right, which else hide what is behind them.
func FuzzOpen(f *testing.F) {
	f.Fuzz(func(_ *testing.T, head, regions, metadata, items, table, log []byte) {
		b := make([]byte, 5<<20)
		copy(b, "vhdxfile")
		copy(b[64<<10:68<<10], head)
		copy(b[192<<10:256<<10], regions)
		copy(b[1<<20:1<<20+8192], log)
		copy(b[2<<20:2<<20+64<<10], metadata)
		copy(b[2<<20+64<<10:3<<20], items)
		copy(b[3<<20:4<<20], table)
		sign(b[64<<10 : 68<<10])
		sign(b[192<<10 : 256<<10])
		sign(b[1<<20 : 1<<20+8192])
		mappedtest.Fuzz(vhdx.Format(), b, block.OpenOptions{ReadOnly: true})
		mappedtest.Fuzz(vhdx.Format(), b, block.OpenOptions{ReadOnly: true, Check: true})
	})
}

// TestMutations gives each field of the headers, the region table, the metadata
// and the block table its extreme values.
func TestMutations(t *testing.T) {
	b := image(t, 3)
	var bat, meta int
	for _, r := range []int{192<<10 + 16, 192<<10 + 48} {
		if off := int(binary.LittleEndian.Uint64(b[r+16:])); string(b[off:off+8]) == "metadata" {
			meta = off
		} else {
			bat = off
		}
	}
	newer := 64 << 10
	if binary.LittleEndian.Uint64(b[128<<10+8:]) > binary.LittleEndian.Uint64(b[newer+8:]) {
		newer = 128 << 10
	}
	items := int(binary.LittleEndian.Uint32(b[meta+32+16:]))
	for k := range 5 {
		items = min(items, int(binary.LittleEndian.Uint32(b[meta+32+32*k+16:])))
	}
	fields := slices.Concat(mappedtest.Fields(4, newer, newer+8), mappedtest.Fields(8, newer+8, newer+16), mappedtest.Fields(8, newer+0x30, newer+0x40),
		mappedtest.Fields(2, newer+0x40, newer+0x44), mappedtest.Fields(4, newer+0x44, newer+0x48), mappedtest.Fields(8, newer+0x48, newer+0x50),
		mappedtest.Fields(4, 192<<10, 192<<10+12), mappedtest.Fields(2, meta+8, meta+12), mappedtest.Fields(4, meta+items, meta+items+40), mappedtest.Fields(8, bat, bat+24))
	for k := range 2 {
		r := 192<<10 + 16 + 32*k
		fields = append(fields, mappedtest.Field{Off: r, Len: 4}, mappedtest.Field{Off: r + 16, Len: 8}, mappedtest.Field{Off: r + 24, Len: 4}, mappedtest.Field{Off: r + 28, Len: 4})
	}
	for k := range 5 {
		e := meta + 32 + 32*k
		fields = append(fields, mappedtest.Field{Off: e, Len: 4}, mappedtest.Field{Off: e + 16, Len: 4}, mappedtest.Field{Off: e + 20, Len: 4}, mappedtest.Field{Off: e + 24, Len: 4})
	}
	mappedtest.Mutation{
		Format: vhdx.Format(), Image: b, Order: binary.LittleEndian, Samples: []int64{1 << 20, 2<<20 - 512, 2 << 20},
		Fields: fields,
		Reasons: []string{
			"log's offset 9223372036854775808 is not valid", "is not one that the format allows", "beyond the end of the file", "is missing",
		},
		Sign: func(b []byte) {
			sign(b[64<<10 : 68<<10])
			sign(b[128<<10 : 132<<10])
			sign(b[192<<10 : 256<<10])
		},
	}.Run(t)
}
