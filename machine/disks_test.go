package machine

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/block/uring"
	"berth/spec"
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
		root, err := openRoot(spec.Disk{File: path, Format: c.format, Cache: c.cache, AIO: c.aio, Snapshot: c.snapshot}, slog.New(slog.DiscardHandler))
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
