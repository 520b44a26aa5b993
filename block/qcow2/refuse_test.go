package qcow2

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// TestRefusesAsQEMUDoes damages a header in one place after another: what we say
// of it is what qemu-img says.
func TestRefusesAsQEMUDoes(t *testing.T) {
	needQEMU(t)
	u32, u64 := be.AppendUint32, be.AppendUint64
	for _, c := range []struct {
		name, opts string
		off        int64
		value      []byte
	}{
		{"version 1", "", 4, u32(nil, 1)},
		{"version 4", "", 4, u32(nil, 4)},
		{"clusters too small", "", 20, u32(nil, 8)},
		{"clusters too large", "", 20, u32(nil, 22)},
		{"clusters absurd", "", 20, u32(nil, 0xffffffff)},
		{"header short", "", 100, u32(nil, 88)},
		{"header long", "", 100, u32(nil, 65537)},
		{"backing name far away", "", 8, u64(nil, 65537)},
		{"backing name long", "", 8, append(u64(nil, 65000), u32(nil, 600)...)},
		{"backing name longer", "", 8, append(u64(nil, 4000), u32(nil, 1024)...)},
		{"unknown feature", "", 72, u64(nil, 1<<60)},
		{"unknown features, one of them named", "", 72, u64(nil, 1<<60|1<<4|1<<9)},
		{"refcount width", "", 96, u32(nil, 7)},
		{"no refcount table", "", 56, u32(nil, 0)},
		{"refcount table too large", "", 56, u32(nil, 129)},
		{"refcount table unaligned", "", 48, u64(nil, 65537)},
		{"refcount table past the end of all", "", 48, u64(nil, 1<<63-65536)},
		{"snapshots too many", "", 60, u32(nil, 65537)},
		{"snapshot table unaligned", "", 60, append(u32(nil, 1), u64(nil, 513)...)},
		{"L1 too large", "", 36, u32(nil, 4<<20+1)},
		{"L1 unaligned", "", 40, u64(nil, 513)},
		{"L1 too small", "", 36, u32(nil, 0)},
		{"size absurd", "", 24, u64(nil, 1<<63)},
		{"size too large", "", 24, u64(nil, 1<<62)},
		{"compression type", "", 104, []byte{7}},
		{"compression without bit", "", 104, []byte{1}},
		{"compression bit without type", "", 72, u64(nil, incompatCompression)},
		{"subclusters too small", "cluster_size=8192", 72, u64(nil, incompatExtL2)},
		{"raw external without external", "", 88, u64(nil, autoclearDataFileRaw)},
		{"extension too long", "", 116, u32(nil, 65536)},
		{"backing format too long", "", 112, append(u32(nil, extBackingFormat), u32(nil, 16)...)},
		{"bitmaps of wrong length", "", 112, append(u32(nil, extBitmaps), u32(nil, 16)...)},
		{"bitmaps unaligned", "", 88, append(u64(nil, 1), bitmapsExtension(1, 24, 65537)...)},
		{"bitmaps none", "", 88, append(u64(nil, 1), bitmapsExtension(0, 24, 65536)...)},
		{"bitmaps too many", "", 88, append(u64(nil, 1), bitmapsExtension(65536, 24, 65536)...)},
		{"bitmap directory too large", "", 88, append(u64(nil, 1), bitmapsExtension(1, 1<<40, 65536)...)},
		{"crypto without encryption", "", 112, append(u32(nil, extCrypto), u32(nil, 16)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := createInMemory(t, c.opts, 1<<20)
			if err := writeFull(m, c.value, c.off); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "x.qcow2")
			if err := os.WriteFile(path, m.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := openImage(m, block.OpenOptions{ReadOnly: true})
			out, _ := exec.Command("qemu-img", "info", "-f", "qcow2", path).CombinedOutput()
			want := strings.TrimSpace(strings.TrimPrefix(string(out), "qemu-img: Could not open '"+path+"': "))
			got := "no error"
			if err != nil {
				got = err.Error()
			}
			if !strings.EqualFold(got, want) && !(err == nil && strings.HasPrefix(want, "image:")) {
				t.Errorf("we say\n%s\nqemu-img says\n%s", got, want)
			}
		})
	}
}

// bitmapsExtension goes from the refcount order, which it leaves at 16 bits, to the extension's end.
func bitmapsExtension(count uint32, size, off uint64) []byte {
	b := be.AppendUint32(nil, 4)
	b = be.AppendUint32(b, headerBytes)
	b = append(b, make([]byte, 8)...)
	b = be.AppendUint32(b, extBitmaps)
	b = be.AppendUint32(b, 24)
	b = be.AppendUint32(b, count)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint64(b, size)
	return be.AppendUint64(b, off)
}

// TestUnknownExtensionsStay has the header rewritten: what is not known in it is kept.
func TestUnknownExtensionsStay(t *testing.T) {
	m := createInMemory(t, "", 1<<20)
	i, err := openImage(m, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h := i.hdr
	h.unknownExts = []extension{{0x12345678, []byte("contents")}, {0x9abcdef0, []byte("x")}}
	h.unknownFields = []byte("fields12")
	h.autoclear = 1 << 40
	if err := i.writeHeader(h); err != nil {
		t.Fatal(err)
	}
	i, err = openImage(blocktest.NewMemFile(m.Bytes()), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.ChangeBackingFile("base", "raw"); err != nil {
		t.Fatal(err)
	}
	got, _, err := readHeader(i.file, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.unknownExts) != 2 || string(got.unknownExts[0].data) != "contents" || string(got.unknownFields) != "fields12" {
		t.Errorf("left of what is unknown: %+v", got)
	}
	if got.autoclear != 0 {
		t.Errorf("autoclear features %#x are still there", got.autoclear)
	}
	if got.backingFile != "base" || got.backingFormat != "raw" {
		t.Errorf("backing file %q, %q", got.backingFile, got.backingFormat)
	}
}
