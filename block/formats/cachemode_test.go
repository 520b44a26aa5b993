package formats

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
	"berth/block/raw"
)

// The file of an image with cache=unsafe swallows flushes, that of its backing image too; the others' do not.
func TestCacheUnsafeOpensFilesWithoutFlushes(t *testing.T) {
	inDir(t)
	mustQEMU(t, "qemu-img", "create", "-q", "-f", "raw", "base", "1M")
	mustQEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top")
	for mode, want := range map[string]bool{"": false, "none": false, "writeback": false, "writethrough": false, "directsync": false, "unsafe": true} {
		n, err := Open(Options{Filename: "top", Format: "qcow2", Cache: mode})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []*Node{n.File, n.Backing.File} {
			if got := flushWithoutHost(t, f.Image.(*raw.File)); got != want {
				t.Errorf("cache=%s: flushes of %s are swallowed: %v, want %v", mode, f.Filename, got, want)
			}
		}
		_ = n.Close() // a flush that failed is remembered
	}
}

// flushWithoutHost tells whether a flush of f succeeds while its descriptor is one that the host refuses to flush.
func flushWithoutHost(t *testing.T, f *raw.File) bool {
	t.Helper()
	var pipe [2]int
	fd := int(f.OSFile().Fd())
	own, err := unix.Dup(fd)
	if err := errors.Join(err, unix.Pipe(pipe[:]), unix.Dup3(pipe[0], fd, 0)); err != nil {
		t.Fatal(err)
	}
	swallowed := f.Flush() == nil
	if err := errors.Join(unix.Dup3(own, fd, 0), unix.Close(own), unix.Close(pipe[0]), unix.Close(pipe[1])); err != nil {
		t.Fatal(err)
	}
	return swallowed
}

// What each cache mode does with writes and flushes is what docs/crash-safety.md says. The image's
// file is replaced by a recorded one, so that what unsafe differs in, a file that swallows flushes, is not seen.
func TestCacheModesFlush(t *testing.T) {
	format, _ := Find("qcow2")
	m := blocktest.NewMemFile(nil)
	if err := format.Create(m, block.Creation{Values: map[string]string{"size": "1048576"}}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.qcow2")
	if err := os.WriteFile(path, m.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for mode, through := range map[string]bool{"none": false, "writeback": false, "unsafe": false, "directsync": true, "writethrough": true} {
		t.Run(mode, func(t *testing.T) {
			n, err := Open(Options{Filename: path, Format: "qcow2", Cache: mode})
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Image.Close(); err != nil {
				t.Fatal(err)
			}
			log := &blocktest.Log{}
			if n.Image, err = format.Open(log.Record("image", m.Clone()), block.OpenOptions{}); err != nil {
				t.Fatal(err)
			}
			d := n.Disk(pool.Options{Workers: 1})
			defer d.Close()
			write := block.Request{Op: block.OpWrite, Len: 4096, IOV: [][]byte{make([]byte, 4096)}}
			for range 2 { // the second is to a cluster that is there
				before := log.Len()
				if err := blocktest.Do(t, d, write); err != nil {
					t.Fatal(err)
				}
				if got := stable(log.Events()[before:]); got != through {
					t.Errorf("a write that was done is on stable storage: %v", got)
				}
			}
			before := log.Len()
			if err := blocktest.Do(t, d, block.Request{Op: block.OpFlush}); err != nil {
				t.Fatal(err)
			}
			if !through && !stable(log.Events()[before:]) {
				t.Error("a flush did not reach the file")
			}
		})
	}
}

// stable tells whether nothing is left to be lost after events.
func stable(events []blocktest.Event) bool {
	if len(events) == 0 {
		return false
	}
	last := events[len(events)-1]
	return last.Act == blocktest.ActFlush || last.FUA
}
