package formats

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
)

// With Snapshot a disk of any format takes writes, and when it is closed its file
// is as it was and nothing else is there.
func TestSnapshotKeepsTheImageAsItIs(t *testing.T) {
	for name, create := range map[string][]string{
		"raw": {"-f", "raw", "disk", "1M"}, "qcow2": {"-f", "qcow2", "disk", "1M"}, "vmdk": {"-f", "vmdk", "disk", "1M"},
	} {
		t.Run(name, func(t *testing.T) {
			inDir(t)
			if err := os.Mkdir("tmp", 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("TMPDIR", "tmp")
			mustQEMU(t, append([]string{"qemu-img", "create", "-q"}, create...)...)
			before := sum(t, "disk")
			blocktest.Run(t, func(t *testing.T) block.Disk {
				n, err := Open(Options{Filename: "disk", Format: name, NoShare: true, Snapshot: true})
				if err != nil {
					t.Fatal(err)
				}
				return n.Disk(pool.Options{Discard: true})
			})
			if left, err := os.ReadDir("tmp"); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v (%v)", left, err)
			}
			if sum(t, "disk") != before {
				t.Error("the image has been written to")
			}
		})
	}
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// The image below shows through, nobody else writes to it, and others may read it.
func TestSnapshotStandsOnTheImage(t *testing.T) {
	inDir(t)
	if err := os.WriteFile("disk", bytes.Repeat([]byte{7}, 1<<16), 0o644); err != nil {
		t.Fatal(err)
	}
	n, err := Open(Options{Filename: "disk", Cache: "none", NoShare: true, Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Image.Writev([][]byte{{9}}, 5, 0); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1<<16)
	if err := n.Image.Readv([][]byte{p}, 0); err != nil || p[5] != 9 || bytes.Count(p, []byte{7}) != 1<<16-1 {
		t.Errorf("the disk does not read as it should (%v)", err)
	}
	if _, err := Open(Options{Filename: "disk"}); !errors.Is(err, block.ErrInUse) {
		t.Errorf("somebody else opens it to write: %v", err)
	}
	other, err := Open(Options{Filename: "disk", NoShare: true, Snapshot: true})
	if err != nil {
		t.Fatalf("a second disk on the same image: %v", err)
	}
	other.Close()
	read, err := Open(Options{Filename: "disk", ReadOnly: true, Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := blocktest.Do(t, read.Disk(pool.Options{}), block.Request{Op: block.OpWriteZeroes, Len: 512}); !errors.Is(err, block.ErrReadOnly) {
		t.Errorf("a disk that is only read: %v", err)
	}
	t.Setenv("TMPDIR", "none")
	if _, err := Open(Options{Filename: "disk", Snapshot: true}); err == nil || err.Error() != "Could not open temporary file 'none/vl.XXXXXX': No such file or directory" {
		t.Errorf("no place for temporary files: %v", err)
	}
}

// aio=native past the page cache only, in QEMU's words.
func TestNativeAIONeedsDirect(t *testing.T) {
	inDir(t)
	images(t)
	_, err := Open(Options{Filename: "a.raw", Format: "raw", Values: map[string]string{"file.aio": "native"}})
	if err == nil {
		t.Fatal("it was opened")
	}
	out, _ := exec.Command("qemu-img", "info", "--image-opts", "driver=raw,file.driver=file,file.filename=a.raw,file.aio=native").CombinedOutput()
	if want := err.Error() + "\n"; !bytes.HasSuffix(out, []byte(want)) {
		t.Errorf("berth says %q, qemu-img %q", want, out)
	}
	n, err := Open(Options{Filename: "a.raw", Format: "raw", Cache: "none", Values: map[string]string{"file.aio": "native"}})
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}
