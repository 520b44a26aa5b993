package formats

import (
	"os"
	"path/filepath"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
)

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
