package raw

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
)

// image makes a file of n zero bytes.
func image(t *testing.T, n int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(n), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// options says how open makes a disk of a file.
type options struct {
	ReadOnly, Discard bool
	Workers           int
}

// open returns a guest's disk: nobody else writes to its file or changes its size.
func open(path string, o options) (*pool.Disk, error) {
	l := Lock{Uses: PermRead, Denies: PermWrite}
	if !o.ReadOnly {
		l = Lock{Uses: PermRead | PermWrite, Denies: PermWrite | PermResize}
	}
	f, err := OpenFile(path, FileOptions{ReadOnly: o.ReadOnly, Lock: l})
	if err != nil {
		return nil, err
	}
	return pool.New(f, pool.Options{ReadOnly: o.ReadOnly, Workers: o.Workers, Discard: o.Discard}), nil
}

func mustOpen(t *testing.T, path string, o options) *pool.Disk {
	t.Helper()
	d, err := open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	for _, o := range []options{{Workers: 1}, {}, {Discard: true}} {
		blocktest.Run(t, func(t *testing.T) block.Disk { return mustOpen(t, image(t, blocktest.Size), o) })
	}
}

func TestOpenErrorsAreOneClearLine(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"):           "no such file or directory",
		dir:                                  "is a directory",
		fifo:                                 "is neither a file nor a block device",
		"/dev/tty":                           "is neither a file nor a block device",
		filepath.Join(dir, "none", "deeper"): "no such file or directory",
	} {
		_, err := open(path, options{})
		if err == nil || err.Error() != want {
			t.Errorf("Open(%s): %v, want %q", path, err, want)
		}
	}
}

func TestOpenWithoutPermission(t *testing.T) {
	path := image(t, 512)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	// Root may open anything: this thread gives that up for a while.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		if err := unix.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Setfsuid(0) }()
	}
	if _, err := open(path, options{}); err == nil || err.Error() != "permission denied" {
		t.Errorf("Open: %v", err)
	}
}

func TestReadOnlyRefusesChanges(t *testing.T) {
	path := image(t, 4096)
	d := mustOpen(t, path, options{ReadOnly: true})
	defer d.Close()
	for _, op := range []block.Op{block.OpWrite, block.OpDiscard, block.OpWriteZeroes} {
		r := block.Request{Op: op, Len: 512, IOV: [][]byte{make([]byte, 512)}}
		if err := blocktest.Do(t, d, r); !errors.Is(err, block.ErrReadOnly) {
			t.Errorf("op %d: %v", op, err)
		}
	}
	if err := block.Flush(d); err != nil {
		t.Errorf("flush: %v", err)
	}
}

func TestZeroBytesAreWrittenWhereTheStorageKnowsNothingBetter(t *testing.T) {
	d := mustOpen(t, image(t, 4<<20), options{})
	defer d.Close()
	if _, err := block.WriteAt(d, bytes.Repeat([]byte{1}, 4<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Image().(*File).writeZeroBytes(512, 512+3<<20+512); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4<<20)
	if _, err := block.ReadAt(d, p, 0); err != nil {
		t.Fatal(err)
	}
	end := 512 + 3<<20 + 512
	if p[511] != 1 || p[end] != 1 || bytes.Count(p[512:end], []byte{0}) != end-512 {
		t.Error("the wrong bytes were zeroed")
	}
}

func TestRequestsCostNoAllocation(t *testing.T) {
	d := mustOpen(t, image(t, 1<<20), options{Workers: 1})
	defer d.Close()
	done := make(chan error, 1)
	r := block.Request{Op: block.OpWrite, Len: 4096, IOV: [][]byte{make([]byte, 4096)}, Done: func(err error) { done <- err }}
	submit := func() {
		d.Submit(&r)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	submit()
	if n := testing.AllocsPerRun(200, submit); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// A guest asks for far more than the storage can read in a day.
func TestAbandonEndsTransfers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Fatal(err)
	}
	d, err := open(path, options{})
	if err != nil {
		t.Fatal(err)
	}
	const requests, buffers = 256, 512
	buf := make([]byte, 8<<20)
	iov := make([][]byte, buffers)
	for i := range iov {
		iov[i] = buf[:len(buf):len(buf)]
	}
	var failed atomic.Int32
	for range requests {
		d.Submit(&block.Request{Op: block.OpRead, Len: buffers * int64(len(buf)), IOV: iov, Done: func(err error) {
			if errors.Is(err, block.ErrClosed) {
				failed.Add(1)
			}
		}})
	}
	d.Abandon()
	begin := time.Now()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n, took := failed.Load(), time.Since(begin); n != requests || took > 20*time.Second {
		t.Errorf("%d of %d requests failed, after %s", n, requests, took)
	}
}
