package image

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/formats"
)

var updateOrder = flag.Bool("order.update", false, "write testdata/order anew")

const cluster = 64 << 10

// What commit wrote to the base, and what maps it there, is on stable storage before anything of the image above it
// changes, and that is emptied in the order of any discard: the text is the order agreed on, of both files.
func TestCommitOrder(t *testing.T) {
	log := &blocktest.Log{}
	baseFile, overlayFile := qcow2File(t, nil), qcow2File(t, bytes.Repeat([]byte{7}, 2*cluster))
	base, overlay := openQcow2(t, log.Record("base", baseFile)), openQcow2(t, log.Record("image", overlayFile))
	b, ok := overlay.(block.Backed)
	if !ok {
		t.Fatal("no backing image can be set")
	}
	b.SetBacking(base)
	c := &call{ctx: t.Context(), stdout: bufio.NewWriter(io.Discard), stderr: io.Discard}
	p := newProgress(c, false, 1)
	defer p.end()
	before := qcow2Sectors(overlayFile)
	k := committer{chain: chain{{Image: overlay}}, base: base, progress: p}
	if err := k.run(c); err != nil {
		t.Fatal(err)
	}
	if err := empty(&formats.Node{Image: overlay}); err != nil {
		t.Fatal(err)
	}
	got := "# commit: what the image has goes to its backing image, and then the image is emptied\n\n" +
		orderText(log.Events(), map[string]map[int64]string{"base": qcow2Sectors(baseFile), "image": before})
	const path = "testdata/order/commit.txt"
	if *updateOrder {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("order is\n%s\nagreed on was\n%s\nif the new one is as safe: go test ./image -run TestCommitOrder -order.update", got, want)
	}
	data := make([]byte, 2*cluster)
	if err := base.Readv([][]byte{data}, 0); err != nil || !bytes.Equal(data, bytes.Repeat([]byte{7}, 2*cluster)) {
		t.Errorf("the base has not what the image had: %v", err)
	}
}

// qcow2File is a file with an image that holds data.
func qcow2File(t *testing.T, data []byte) *blocktest.MemFile {
	t.Helper()
	format, _ := formats.Find("qcow2")
	m := blocktest.NewMemFile(nil)
	if err := format.Create(m, block.Creation{Values: map[string]string{"size": "1048576"}}); err != nil {
		t.Fatal(err)
	}
	i := openQcow2(t, m)
	if err := i.Writev([][]byte{data}, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil { // which ends the file, so that a copy is worked on
		t.Fatal(err)
	}
	return m.Clone()
}

func openQcow2(t *testing.T, f block.File) block.Image {
	t.Helper()
	format, _ := formats.Find("qcow2")
	i, err := format.Open(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// qcow2Sectors names the clusters of metadata of a small image, by the specification alone (docs/interop/qcow2.txt
// of QEMU). All else is data.
func qcow2Sectors(m *blocktest.MemFile) map[int64]string {
	b := m.Bytes()
	at := func(off int64) int64 { return int64(binary.BigEndian.Uint64(b[off:]) &^ (1<<63 | 511)) }
	names := map[int64]string{0: "header", at(48): "refcount table", at(at(48)): "refcount block", at(40): "L1 table"}
	if l2 := at(at(40)); l2 != 0 {
		names[l2] = "L2 table"
	}
	return names
}

// orderText is a line for each event, or for several alike.
func orderText(events []blocktest.Event, names map[string]map[int64]string) string {
	var lines []string
	for _, e := range events {
		what := ""
		if e.Act != blocktest.ActFlush && e.Act != blocktest.ActTruncate {
			if what = names[e.File][e.Off&^(cluster-1)]; what == "" {
				what = "data"
			}
			what += " of "
		}
		l := fmt.Sprintf("%v %s%s\n", e.Act, what, e.File)
		if n := len(lines); n == 0 || lines[n-1] != l {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "")
}
