package image

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/formats"
)

// What commit wrote to the base is on stable storage before the image above it is emptied.
func TestCommitFlushesTheBaseLast(t *testing.T) {
	format, _ := formats.Find("qcow2")
	m := blocktest.NewMemFile(nil)
	if err := format.Create(m, block.Creation{Values: map[string]string{"size": "1048576"}}); err != nil {
		t.Fatal(err)
	}
	overlay, err := format.Open(m.Clone(), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	log := &blocktest.Log{}
	base := log.Record("base", blocktest.NewMemFile(make([]byte, 1<<20)))
	b, ok := overlay.(block.Backed)
	if !ok {
		t.Fatal("no backing image can be set")
	}
	b.SetBacking(base)
	want := bytes.Repeat([]byte{7}, 200<<10)
	if err := overlay.Writev([][]byte{want}, 64<<10, 0); err != nil {
		t.Fatal(err)
	}
	c := &call{ctx: t.Context(), stdout: bufio.NewWriter(io.Discard), stderr: io.Discard}
	p := newProgress(c, false, 1)
	defer p.end()
	k := committer{chain: chain{{Image: overlay}}, base: base, progress: p}
	if err := k.run(c); err != nil {
		t.Fatal(err)
	}
	events := log.Events()
	if len(events) < 2 || events[len(events)-1].Act != blocktest.ActFlush {
		t.Errorf("the base saw %d events, the last of which is no flush", len(events))
	}
	got := make([]byte, len(want))
	if err := base.Readv([][]byte{got}, 64<<10); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the base has not what the image had: %v", err)
	}
}
