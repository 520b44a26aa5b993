package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"

	"berth/block"
)

// TestZstdKeepsToTheBuffer has a hostile cluster hold more than a cluster: what
// lies in memory behind the reader's buffer, a guest's perhaps, stays as it is.
func TestZstdKeepsToTheBuffer(t *testing.T) {
	const size = 4096
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	unsized := func(p []byte) []byte { // without a content size in the frame's header
		var b bytes.Buffer
		w.Reset(&b)
		_, _ = w.Write(p[:len(p)/2])
		_ = w.Flush()
		_, _ = w.Write(p[len(p)/2:])
		_ = w.Close()
		return b.Bytes()
	}
	for name, n := range map[string]int{"whole": size, "double": 2 * size, "less": size / 2} {
		for kind, packed := range map[string][]byte{"sized": w.EncodeAll(pattern(int64(n)), nil), "unsized": unsized(pattern(int64(n)))} {
			m := createInMemory(t, "cluster_size=4096,compression_type=zstd", 16*size)
			i, err := openImage(m, block.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := i.writePacked(packed, 0); err != nil {
				t.Fatal(err)
			}
			memory := bytes.Repeat([]byte{0xee}, 4*size)
			err = i.Readv([][]byte{memory[:size]}, 0)
			if (err == nil) != (n == size) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			if err == nil {
				same(t, pattern(size), memory[:size])
			}
			if !bytes.Equal(memory[size:], bytes.Repeat([]byte{0xee}, 3*size)) {
				t.Errorf("%s, %s: what lies behind the buffer has changed", name, kind)
			}
			_ = i.Close()
		}
	}
}

// writeCompressed stores p compressed, or as it is where something is allocated.
func writeCompressed(i *Image, p []byte, off int64) error {
	err := i.WriteCompressed(p, off)
	if errors.Is(err, syscall.EIO) {
		return i.Writev([][]byte{p}, off, 0)
	}
	return err
}

// TestCompressedOverwriteIsRefused has compressed writes meet clusters of all
// kinds, and qemu-io the same: where something is allocated both answer EIO, and it stays.
func TestCompressedOverwriteIsRefused(t *testing.T) {
	needQEMU(t)
	const size = 8 << 16
	v := createImage(t, "", size)
	qemu(t, "qemu-io", "-f", "qcow2", "-c", "write -P 1 64k 64k", "-c", "write -c -P 2 128k 64k",
		"-c", "write 192k 64k", "-c", "write -z 192k 64k", "-c", "write -z -u 256k 64k", v.path)
	peer := filepath.Join(t.TempDir(), "peer")
	qemu(t, "cp", v.path, peer)
	img := v.open(t, block.OpenOptions{})
	before := make([]byte, size)
	if err := img.Readv([][]byte{before}, 0); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; off += 1 << 16 {
		err := img.WriteCompressed(bytes.Repeat([]byte{9}, 1<<16), off)
		out, _ := exec.Command("qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -c -P 9 %d 64k", off), peer).CombinedOutput()
		if refused := strings.Contains(string(out), "Input/output error"); refused != errors.Is(err, syscall.EIO) || !refused && err != nil {
			t.Errorf("at %#x: %v, qemu-io says %s", off, err, out)
		}
		got := make([]byte, 1<<16)
		if e := img.Readv([][]byte{got}, off); e != nil {
			t.Fatal(e)
		}
		if err != nil {
			same(t, before[off:off+1<<16], got)
		} else if got[0] != 9 {
			t.Errorf("at %#x nothing was written", off)
		}
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	checkClean(t, v.path)
}

// TestCompressedClusterTooFarOff has the free clusters of a hostile image begin
// where no entry of a compressed cluster can point: the write fails, and says why.
func TestCompressedClusterTooFarOff(t *testing.T) {
	const size = 2 << 20
	i, err := openImage(createInMemory(t, "cluster_size=2097152", 2*size), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Writev([][]byte{pattern(512)}, 0, 0); err != nil { // for the L2 table
		t.Fatal(err)
	}
	i.alloc.next = 1 << (i.packedShift() - i.clusterBits)
	if err := i.WriteCompressed(pattern(size), size); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("a cluster is stored compressed at %#x: %v", i.alloc.next<<i.clusterBits, err)
	}
	got := make([]byte, size)
	if err := i.Readv([][]byte{got}, size); err != nil {
		t.Fatal(err)
	}
	same(t, make([]byte, size), got)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
}
