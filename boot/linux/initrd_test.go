package linux

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"berth/boot/boottest"
	"berth/tests/guest"
)

func TestInitrdFormats(t *testing.T) {
	cpio, err := os.ReadFile(guest.Need(t).Initrd)
	if err != nil {
		t.Fatal(err)
	}
	small := cpio[:300_000] // any bytes will do inside a compressed part
	zstd := boottest.Compress(t, small, "zstd", "-c")
	lz4 := boottest.Compress(t, small, "lz4", "-l", "-c")
	xz := boottest.Compress(t, small, "xz", "-0", "--check=crc32")
	gzip := boottest.Compress(t, small, "gzip", "-1")
	pad := make([]byte, 1000)
	for name, c := range map[string]struct {
		parts [][]byte
		whole bool // truncation cannot be told
	}{
		"cpio":                 {[][]byte{cpio}, false},
		"two cpio":             {[][]byte{cpio, pad, cpio}, false},
		"microcode and zstd":   {[][]byte{cpio, pad, zstd}, false},
		"zstd":                 {[][]byte{zstd}, false},
		"zstd, no checksum":    {[][]byte{boottest.Compress(t, small, "zstd", "--no-check", "-c")}, false},
		"zstd, two frames":     {[][]byte{zstd, zstd}, false},
		"lz4":                  {[][]byte{lz4}, false},
		"lz4 and zeros":        {[][]byte{lz4, pad}, true},
		"xz":                   {[][]byte{xz}, false},
		"gzip":                 {[][]byte{gzip}, true},
		"zeros before an cpio": {[][]byte{pad, cpio}, false},
	} {
		b := bytes.Join(c.parts, nil)
		if err := checkInitrd(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.whole {
			continue
		}
		last := len(c.parts[len(c.parts)-1])
		for _, cut := range []int{600, last / 2, last - 200} { // cpio pads its end with zeros up to 512
			if err := checkInitrd(b[:len(b)-cut]); !errors.Is(err, errInitrdTruncated) {
				t.Errorf("%s, %d bytes cut off: %v", name, cut, err)
			}
		}
	}
}

func TestInitrdOfOtherKinds(t *testing.T) {
	ext2 := make([]byte, 4096)
	ext2[1080], ext2[1081] = 0x53, 0xef
	for _, b := range [][]byte{[]byte("hsqs rest"), []byte("-rom1fs-"), ext2} {
		if err := checkInitrd(b); err != nil {
			t.Errorf("% x: %v", b[:4], err)
		}
	}
	header := fmt.Sprintf("070701%0104x", 0)
	for _, b := range []string{"random bytes", "\x00\x00\x00", "07070", header + "\x00\x00damaged", "070701" + string(make([]byte, 200))} {
		if err := checkInitrd([]byte(b)); err == nil {
			t.Errorf("%q: accepted", b)
		}
	}
}

// FuzzInitrd: no initrd makes the check run past its end.
func FuzzInitrd(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) { checkInitrd(b) })
}
