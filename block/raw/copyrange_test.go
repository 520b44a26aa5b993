package raw

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"berth/block"
)

func TestCopyRange(t *testing.T) {
	dir := t.TempDir()
	want := bytes.Repeat([]byte("berth disk image"), 8192)
	open := func(name string, contents []byte) *File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, contents, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := OpenFile(path, FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	from, to := open("from", want), open("to", nil)
	if err := to.CopyRange(from, 100, 5000, 70000); err != nil {
		t.Skipf("this file system does not copy within the kernel: %v", err)
	}
	if to.Size() != 75000 {
		t.Errorf("the file is %d bytes long", to.Size())
	}
	got := make([]byte, 70000)
	if err := to.Readv([][]byte{got}, 5000); err != nil || !bytes.Equal(got, want[100:70100]) {
		t.Errorf("other contents (%v)", err)
	}
	if err := to.CopyRange(from, int64(len(want))-10, 0, 11); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("past the end: %v", err)
	}
	if err := to.CopyRange(struct{ block.Image }{from}, 0, 0, 10); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("another image: %v", err)
	}
}
