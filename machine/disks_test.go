package machine

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
	"berth/block/backend"
	"berth/block/blocktest"
	"berth/block/formats"
	"berth/block/uring"
	"berth/spec"
	"berth/virtio/blk"
	"berth/virtio/virtiotest"
)

// Who serves a disk: io_uring where it is faster, or where its user says so, or not at all.
func TestWhoServesADisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	const refused = "aio=io_uring needs format=raw and cache=none, writeback or unsafe"
	for _, c := range []struct {
		format, cache, aio string
		snapshot           bool
		ring               bool
		err                string
	}{
		{"raw", "writeback", "", false, false, ""},
		{"raw", "none", "", false, true, ""},
		{"raw", "none", "native", false, true, ""},
		{"raw", "none", "threads", false, false, ""},
		{"raw", "none", "io_uring", false, true, ""},
		{"raw", "writeback", "io_uring", false, true, ""},
		{"raw", "directsync", "", false, false, ""},
		{"", "none", "", false, false, ""},
		{"raw", "none", "", true, false, ""},
		{"", "none", "io_uring", false, false, refused},
		{"raw", "writethrough", "io_uring", false, false, refused},
		{"raw", "none", "io_uring", true, false, refused},
		{"raw", "writeback", "native", false, false, "aio=native was specified, but it requires cache.direct=on, which was not specified."},
	} {
		root, err := testBoard().openRoot(&Drive{}, spec.Disk{File: path, Format: c.format, Cache: c.cache, AIO: c.aio, Snapshot: c.snapshot}, slog.New(slog.DiscardHandler))
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		case err != nil:
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if _, ring := root.Disk.(*uring.Disk); ring != c.ring {
			t.Errorf("%+v: io_uring serves it: %v", c, ring)
		}
		if err := root.Disk.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A running disk of any kind grows and shrinks: the driver gets an interrupt, a new
// generation and the new capacity, and what lies beyond it is refused.
func TestResizeOfARunningDisk(t *testing.T) {
	for _, c := range []spec.Disk{
		{Format: "raw", Cache: "writeback"}, {Format: "raw", Cache: "none", AIO: "io_uring"}, {Format: "qcow2", Cache: "writeback"},
	} {
		t.Run(c.Format+" "+c.Cache, func(t *testing.T) {
			c.File = filepath.Join(t.TempDir(), "disk")
			b, d := runningDisk(t, c)
			for n, size := range []int64{4 << 20, 512 << 10} {
				before := d.Generation()
				if err := b.Resize(size); err != nil {
					t.Fatal(err)
				}
				if got := d.DeviceConfig(0, 8); got != uint64(size/512) || d.Generation() == before {
					t.Errorf("%d bytes: capacity %d, generation %d as before", size, got, before)
				}
				if got := d.MSIs.Count(0x40); got != n+1 {
					t.Errorf("%d bytes: %d interrupts", size, got)
				}
				last := make([]byte, 4096)
				if _, err := block.WriteAt(b, last, size-4096); err != nil {
					t.Error(err)
				}
				if _, err := block.WriteAt(b, last, size); !errors.Is(err, block.ErrRange) {
					t.Errorf("%d bytes: a write at the end: %v", size, err)
				}
			}
			d.Dev.Reset()
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			n, err := formats.Open(formats.Options{Filename: c.File, Format: c.Format})
			if err != nil || n.Image.Size() != 512<<10 {
				t.Fatalf("what is left is not 512 KiB long (%v)", err)
			}
			n.Close()
		})
	}
}

// runningDisk makes an image of 1 MiB as c says, and gives it to a driver.
func runningDisk(t *testing.T, c spec.Disk) (*backend.Backend, *virtiotest.Driver) {
	t.Helper()
	f, err := formats.CreateFile(c.File, 0)
	if err != nil {
		t.Fatal(err)
	}
	format, _ := formats.Find(c.Format)
	if err := errors.Join(format.Create(f, block.Creation{Values: block.Values{"size": "1048576"}}), f.Close()); err != nil {
		t.Fatal(err)
	}
	root, err := testBoard().openRoot(&Drive{}, c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b := backend.New(root, backend.Options{})
	dev, err := blk.New(b, blk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, dev, nil)
	d.Begin(0, 16)
	return b, d
}

// TestEveryDriveErrorIsTold: the log gets the first, whoever controls the VM all.
func TestEveryDriveErrorIsTold(t *testing.T) {
	var log strings.Builder
	var h heard
	b := testBoard()
	full := &blocktest.Faulty{Disk: blocktest.NewMem(1 << 20), Fail: func(*block.Request) error { return unix.ENOSPC }}
	d := &Drive{Name: "d0", File: "disk.img"}
	b.hold(d, backend.Root{Node: "n", Disk: full}, backend.Options{}, Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Notify: h.add})
	defer d.Close()
	for range 2 {
		if err := blocktest.Do(t, d, block.Request{Op: block.OpWrite, Len: 512, IOV: [][]byte{make([]byte, 512)}}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("a write to a full disk: %v", err)
		}
	}
	if n := strings.Count(log.String(), "disk.img"); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	want := Notice{Kind: NoticeDriveError, Guest: true, Drive: DriveError{d, block.OpWrite, unix.ENOSPC}}
	if len(h.list) != 2 || h.list[0] != want || h.list[1] != want {
		t.Errorf("told %+v", h.list)
	}
}

// testBoard has what disks are opened in.
func testBoard() *board { return &board{graph: formats.NewNodes(nil)} }
