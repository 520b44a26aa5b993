package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"berth/block"
)

// snapshotVariants are those of the variants that can have internal snapshots of the same cluster.
var snapshotVariants = []string{"", "compat=0.10", "cluster_size=512", "refcount_bits=4,cluster_size=4096", "refcount_bits=64",
	"extended_l2=on", "lazy_refcounts=on", "cluster_size=2097152"}

// contentsOf reads the whole image by QEMU; snapshot "": as it is now.
func contentsOf(t testing.TB, path, snapshot string) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	args := []string{"qemu-img", "convert", "-O", "raw", path, raw}
	if snapshot != "" {
		args = []string{"qemu-img", "convert", "-l", "snapshot.name=" + snapshot, "-O", "raw", path, raw}
	}
	qemu(t, args...)
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func scribble(t testing.TB, i *Image, r *rand.Rand, model []byte) {
	t.Helper()
	for range 6 {
		off := r.Int64N(int64(len(model)) - 1)
		n := 1 + r.Int64N(min(int64(len(model))-off, 300<<10))
		switch r.IntN(4) {
		case 0:
			if err := i.WriteZeroes(off, n, block.FlagUnmap); err != nil {
				t.Fatal(err)
			}
			clear(model[off : off+n])
		case 1:
			off = i.clusterOf(off)
			n = min(i.clusterSize, int64(len(model))-off)
			copy(model[off:off+n], bytes.Repeat([]byte{byte(r.Uint32())}, int(n)))
			if err := writeCompressed(i, model[off:off+n], off); err != nil {
				t.Fatal(err)
			}
		default:
			for k := range n {
				model[off+k] = byte(r.Uint32())
			}
			if err := i.Writev([][]byte{model[off : off+n]}, off, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRandomSnapshots(t *testing.T) {
	needQEMU(t)
	for _, opts := range snapshotVariants {
		for _, who := range []string{"own", "mixed"} {
			t.Run(testName(opts)+" "+who, func(t *testing.T) { randomSnapshots(t, opts, who == "mixed") })
		}
	}
}

// randomSnapshots makes, applies and deletes snapshots, mixed: sometimes by
// QEMU, and compares with what the image was each time.
func randomSnapshots(t *testing.T, opts string, mixed bool) {
	r := rand.New(rand.NewPCG(7, uint64(len(opts))))
	v := createImage(t, opts, 3<<20)
	model := make([]byte, 3<<20)
	kept := map[string][]byte{}
	var names []string
	i := v.open(t, block.OpenOptions{})
	reopen := func() {
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
		i = nil
	}
	for step := range 24 {
		if i == nil {
			i = v.open(t, block.OpenOptions{})
		}
		scribble(t, i, r, model)
		op := r.IntN(4)
		byQEMU := mixed && r.IntN(2) == 0
		if byQEMU {
			reopen()
		}
		switch {
		case op < 2 || len(names) == 0:
			name := fmt.Sprintf("snap-%d", step)
			names, kept[name] = append(names, name), bytes.Clone(model)
			if byQEMU {
				qemu(t, "qemu-img", "snapshot", "-c", name, v.path)
			} else if err := i.CreateSnapshot(block.Snapshot{Name: name, Date: time.Unix(1e9, 5000), ICount: -1}); err != nil {
				t.Fatal(err)
			}
		case op == 2:
			name := names[r.IntN(len(names))]
			model = bytes.Clone(kept[name])
			if byQEMU {
				qemu(t, "qemu-img", "snapshot", "-a", name, v.path)
			} else if err := i.ApplySnapshot(name); err != nil {
				t.Fatal(err)
			}
		default:
			k := r.IntN(len(names))
			if byQEMU {
				qemu(t, "qemu-img", "snapshot", "-d", names[k], v.path)
			} else if err := i.DeleteSnapshot(names[k]); err != nil {
				t.Fatal(err)
			}
			delete(kept, names[k])
			names = append(names[:k], names[k+1:]...)
		}
		if i != nil && r.IntN(3) == 0 && opts != "compat=0.10" {
			size := int64(1+r.IntN(8)) << 19
			if err := i.Truncate(size); err != nil {
				t.Fatal(err)
			}
			model = append(model, make([]byte, max(0, size-int64(len(model))))...)[:size]
		}
		if i != nil {
			reopen()
		}
		checkClean(t, v.path)
		if !bytes.Equal(contentsOf(t, v.path, ""), model) {
			t.Fatalf("step %d: contents differ", step)
		}
	}
	for name, want := range kept {
		i := v.open(t, block.OpenOptions{ReadOnly: true})
		if err := i.LoadSnapshot(name); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, min(int64(len(want)), i.Size()))
		if err := i.Readv([][]byte{got}, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[:len(got)]) {
			t.Errorf("%s is not what it was", name)
		}
		i.Close()
		if q := contentsOf(t, v.path, name); !bytes.Equal(q[:len(got)], got) {
			t.Errorf("QEMU finds something else in %s", name)
		}
	}
}

func TestSnapshotListAsQEMU(t *testing.T) {
	needQEMU(t)
	v := createImage(t, "", 1<<20)
	qemu(t, "qemu-img", "snapshot", "-c", "one", v.path)
	i := v.open(t, block.OpenOptions{})
	for _, s := range []block.Snapshot{
		{Name: "two", VMStateSize: 1 << 33, VMClock: 3 * time.Hour, ICount: 12345, Date: time.Unix(1700000000, 0)},
		{ID: "9", Name: "named", ICount: -1, Date: time.Unix(1700000000, 0)},
		{Name: "after", ICount: -1, Date: time.Unix(1700000000, 0)},
	} {
		if err := i.CreateSnapshot(s); err != nil {
			t.Fatal(err)
		}
	}
	list := i.Snapshots()
	i.Close()
	out := qemu(t, "qemu-img", "snapshot", "-l", v.path)
	for k, want := range []string{"1 one", "2 two", "9 named", "10 after"} {
		if got := list[k].ID + " " + list[k].Name; got != want {
			t.Errorf("snapshot %d is %s, want %s", k, got, want)
		}
		f := strings.Fields(want)
		if ok, _ := regexp.MatchString(`(?m)^`+f[0]+` +`+f[1]+` `, out); !ok {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}
	if !strings.Contains(out, "8 GiB") || !strings.Contains(out, "03:00:00.000") || !strings.Contains(out, "12345") {
		t.Errorf("QEMU lists\n%s", out)
	}
	checkClean(t, v.path)
}

// A snapshot of VM state, which lies behind the disk, keeps it, and the active
// table is rid of it.
func TestVMStateBelongsToTheSnapshot(t *testing.T) {
	needQEMU(t)
	v := createImage(t, "cluster_size=4096", 3<<20)
	if out, err := exec.Command("qemu-io", "-c", "write -b -P 0x5a 0 100k", "-c", "write -P 1 0 64k", v.path).CombinedOutput(); err != nil {
		t.Skipf("qemu-io: %v\n%s", err, out)
	}
	i := v.open(t, block.OpenOptions{})
	if err := i.CreateSnapshot(block.Snapshot{Name: "s", VMStateSize: 100 << 10, ICount: -1}); err != nil {
		t.Fatal(err)
	}
	i.Close()
	checkClean(t, v.path)
	if out := qemu(t, "qemu-io", "-c", "read -b -P 0 0 100k", v.path); strings.Contains(out, "verification failed") {
		t.Error("the active table still has the VM state")
	}
	i = v.open(t, block.OpenOptions{})
	if err := i.ApplySnapshot("s"); err != nil {
		t.Fatal(err)
	}
	i.Close()
	checkClean(t, v.path)
	if out := qemu(t, "qemu-io", "-c", "read -b -P 0x5a 0 100k", v.path); strings.Contains(out, "verification failed") {
		t.Error("the VM state has not come back")
	}
}

// With refcounts of one bit nothing can be shared; what was begun is undone.
func TestSnapshotOfOneBitRefcountsIsRefused(t *testing.T) {
	needQEMU(t)
	v := createImage(t, "refcount_bits=1", 3<<20)
	i := v.open(t, block.OpenOptions{})
	model := make([]byte, 3<<20)
	scribble(t, i, rand.New(rand.NewPCG(1, 1)), model)
	if err := i.CreateSnapshot(block.Snapshot{Name: "s"}); err == nil {
		t.Error("a snapshot was made")
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	checkClean(t, v.path)
	if !bytes.Equal(contentsOf(t, v.path, ""), model) {
		t.Error("contents differ")
	}
}

func TestUnknownExtraDataIsKept(t *testing.T) {
	list := []snapshotEntry{
		{l1Offset: 65536, l1Size: 3, id: "1", name: "a", vmStateSize: 1 << 40, diskSize: 5 << 20, unknown: []byte("12345678xyz"), extraSize: knownExtra + 11},
		{l1Offset: 131072, id: "2", name: "ä", icount: 7, extraSize: knownExtra},
	}
	b, err := encodeSnapshots(list)
	if err != nil {
		t.Fatal(err)
	}
	f := openTestFile(t, filepath.Join(t.TempDir(), "table"))
	if err := writeFull(f, b, 512); err != nil {
		t.Fatal(err)
	}
	got, err := readSnapshotTable(f, 512, 2, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	again, err := encodeSnapshots(got.list)
	if err != nil || !bytes.Equal(again, b) || got.bytes != int64(len(b)) {
		t.Errorf("%d bytes, %v\n%x\n%x", got.bytes, err, again, b)
	}
}
