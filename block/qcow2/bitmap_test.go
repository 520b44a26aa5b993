package qcow2

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

type span struct{ Off, N int64 }

// dirtyByQEMU is what QEMU finds dirty in a bitmap.
func dirtyByQEMU(t testing.TB, path, name string) []span {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	nbd := exec.Command("qemu-nbd", "-r", "-k", sock, "-B", name, "-x", "x", "-t", path)
	out := &strings.Builder{}
	nbd.Stdout, nbd.Stderr = out, out
	if err := nbd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = nbd.Process.Kill(); _ = nbd.Wait() }()
	var b []byte
	for range 200 {
		var err error
		cmd := exec.Command("qemu-img", "map", "--output=json", "--image-opts",
			fmt.Sprintf("driver=nbd,export=x,server.type=unix,server.path=%s,x-dirty-bitmap=qemu:dirty-bitmap:%s", sock, name))
		if b, err = cmd.Output(); err == nil {
			break
		}
		_ = exec.Command("sleep", "0.05").Run()
	}
	var m []struct {
		Start, Length int64
		Data          bool
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var all []span
	for _, e := range m {
		if e.Data { // x-dirty-bitmap says data for what is clean
			continue
		}
		if k := len(all) - 1; k >= 0 && all[k].Off+all[k].N == e.Start {
			all[k].N += e.Length
			continue
		}
		all = append(all, span{e.Start, e.Length})
	}
	return all
}

func dirtyByUs(t testing.TB, i *Image, name string) []span {
	t.Helper()
	var all []span
	if err := i.DirtyRanges(name, func(off, n int64) bool { all = append(all, span{off, n}); return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

// model is a bitmap as a plain list of bits.
type model struct {
	bits        []bool
	granularity int64
	size        int64
	on          bool
}

func (m *model) mark(off, n int64) {
	for k := off / m.granularity; n > 0 && k <= (off+n-1)/m.granularity; k++ {
		m.bits[k] = true
	}
}

func (m *model) resize(size int64) {
	bits := make([]bool, (size+m.granularity-1)/m.granularity)
	copy(bits, m.bits)
	m.bits, m.size = bits, size
}

func (m *model) spans() (all []span) {
	for k, d := range m.bits {
		if !d {
			continue
		}
		off := int64(k) * m.granularity
		n := min(m.granularity, m.size-off)
		if l := len(all) - 1; l >= 0 && all[l].Off+all[l].N == off {
			all[l].N += n
			continue
		}
		all = append(all, span{off, n})
	}
	return all
}

func TestRandomBitmaps(t *testing.T) {
	needQEMU(t)
	for _, opts := range []string{"", "cluster_size=512", "cluster_size=4096,extended_l2=off", "lazy_refcounts=on", "data_file=@"} {
		t.Run(testName(opts), func(t *testing.T) { randomBitmaps(t, opts) })
	}
}

func randomBitmaps(t *testing.T, opts string) {
	r := rand.New(rand.NewPCG(uint64(len(opts)), 11))
	size := int64(6 << 20)
	v := createImage(t, opts, size)
	models := map[string]*model{}
	var names []string
	i := v.open(t, block.OpenOptions{})
	for step := range 60 {
		name := ""
		if len(names) > 0 {
			name = names[r.IntN(len(names))]
		}
		m := models[name]
		var err error
		switch op := r.IntN(12); {
		case op == 0 || name == "":
			name = fmt.Sprintf("bitmap-%d", step)
			g := int64(512) << r.IntN(9)
			err = i.AddBitmap(block.BitmapInfo{Name: name, Granularity: g, Auto: true})
			names = append(names, name)
			models[name] = &model{granularity: g, on: true}
			models[name].resize(size)
		case op == 1 && len(names) > 2:
			err = i.RemoveBitmap(name)
			delete(models, name)
			for k := range names {
				if names[k] == name {
					names = append(names[:k], names[k+1:]...)
					break
				}
			}
		case op == 2:
			err = i.ClearBitmap(name)
			clear(m.bits)
		case op == 3:
			m.on = !m.on
			err = i.EnableBitmap(name, m.on)
		case op == 4:
			off := r.Int64N(size)
			n := r.Int64N(size-off) / 8
			err = i.MarkBitmap(name, off, n)
			m.mark(off, n)
		case op == 5 && v.data == "" || op == 5 && opts != "data_file=@":
			size = 512 * (1 + r.Int64N(16<<11))
			err = i.Truncate(size)
			for _, m := range models {
				m.resize(size)
			}
		case op == 6:
			if err := i.Close(); err != nil {
				t.Fatal(err)
			}
			checkClean(t, v.path)
			if name != "" && r.IntN(3) == 0 {
				if got, want := fmt.Sprint(dirtyByQEMU(t, v.path, name)), fmt.Sprint(m.spans()); got != want {
					t.Fatalf("step %d: QEMU finds %s dirty, want %s", step, got, want)
				}
			}
			i = v.open(t, block.OpenOptions{})
		default:
			off := r.Int64N(size)
			n := min(size-off, 1+r.Int64N(200<<10))
			switch r.IntN(3) {
			case 0:
				err = i.WriteZeroes(off, n, 0)
			case 1:
				err = i.Discard(off, n)
			default:
				err = i.Writev([][]byte{make([]byte, n)}, off, 0)
			}
			for _, m := range models {
				if m.on {
					m.mark(off, n)
				}
			}
		}
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		for name, m := range models {
			if got, want := fmt.Sprint(dirtyByUs(t, i, name)), fmt.Sprint(m.spans()); got != want {
				t.Fatalf("step %d: %s: %s, want %s", step, name, got, want)
			}
		}
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	checkClean(t, v.path)
}

// Bitmaps that QEMU made are read, and recorded into.
func TestBitmapsOfQEMU(t *testing.T) {
	needQEMU(t)
	path := filepath.Join(t.TempDir(), "x.qcow2")
	qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "4G")
	qemu(t, "qemu-img", "bitmap", "--add", "-g", "512", path, "fine")
	qemu(t, "qemu-img", "bitmap", "--add", "-g", "1M", path, "coarse")
	qemu(t, "qemu-img", "bitmap", "--add", "--disable", path, "off")
	qemu(t, "qemu-io", "-c", "write 1M 1k", "-c", "write 3G 64k", "-c", "write 4294966784 512", path)
	v := variantImage{path: path}
	i := v.open(t, block.OpenOptions{})
	if got := fmt.Sprint(dirtyByUs(t, i, "fine"), dirtyByUs(t, i, "coarse"), dirtyByUs(t, i, "off")); got !=
		"[{1048576 1024} {3221225472 65536} {4294966784 512}] [{1048576 1048576} {3221225472 1048576} {4293918720 1048576}] []" {
		t.Error(got)
	}
	if err := i.Writev([][]byte{make([]byte, 512)}, 2<<20, 0); err != nil {
		t.Fatal(err)
	}
	if out := qemu(t, "qemu-img", "info", "-U", path); strings.Count(out, "in-use") != 3 {
		t.Errorf("not in use while open:\n%s", out)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	checkClean(t, path)
	if got := fmt.Sprint(dirtyByQEMU(t, path, "fine")); got != "[{1048576 1024} {2097152 512} {3221225472 65536} {4294966784 512}]" {
		t.Error(got)
	}
	if out := qemu(t, "qemu-img", "info", path); strings.Contains(out, "in-use") {
		t.Errorf("in use after close:\n%s", out)
	}
}

// After a crash a bitmap is not to be trusted: it cannot be used, only removed.
func TestBitmapsAfterACrashAreInUse(t *testing.T) {
	needQEMU(t)
	v := createImage(t, "", 1<<20)
	i := v.open(t, block.OpenOptions{})
	if err := i.AddBitmap(block.BitmapInfo{Name: "b", Auto: true}); err != nil {
		t.Fatal(err)
	}
	i.Close()
	crashed := v.open(t, block.OpenOptions{})
	crashed.file.(*testFile).Close()
	i = v.open(t, block.OpenOptions{})
	if b := i.Bitmaps(); len(b) != 1 || !b[0].InUse {
		t.Fatalf("%+v", b)
	}
	if err := i.ClearBitmap("b"); err == nil || err.Error() != "Bitmap 'b' is inconsistent and cannot be used" {
		t.Error(err)
	}
	if err := i.Truncate(2 << 20); err == nil {
		t.Error("resized")
	}
	if err := i.Writev([][]byte{make([]byte, 512)}, 0, 0); err != nil {
		t.Error(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	if out := qemu(t, "qemu-img", "info", v.path); !strings.Contains(out, "in-use") {
		t.Error(out)
	}
	checkClean(t, v.path)
	i = v.open(t, block.OpenOptions{})
	if err := i.RemoveBitmap("b"); err != nil {
		t.Fatal(err)
	}
	i.Close()
	checkClean(t, v.path)
}

func FuzzBitmapDirectory(f *testing.F) {
	g := (&header{clusterBits: 16, version: 3}).geometry()
	f.Add(encodeBitmapDir([]bitmapDirEntry{{tableOff: 65536, tableSize: 1, bits: 16, name: "b"}, {tableOff: 131072, tableSize: 9, flags: 3, bits: 9, name: "second"}}), uint32(2))
	f.Add([]byte{0: 0, 23: 255}, uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, n uint32) {
		list, err := decodeBitmapDir(b, n, &g, 1<<20)
		if err != nil {
			return
		}
		again, err := decodeBitmapDir(encodeBitmapDir(list), n, &g, 1<<20)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(list) {
			t.Fatalf("%v\n%v\n%v", err, list, again)
		}
	})
}

func FuzzSnapshotTable(f *testing.F) {
	b, err := encodeSnapshots([]snapshotEntry{{id: "1", name: "a", l1Offset: 65536, l1Size: 1, unknown: []byte("more")}, {id: "2"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint32(2))
	f.Fuzz(func(t *testing.T, b []byte, n uint32) {
		n %= 256
		file := blocktest.NewMemFile(b)
		for _, repair := range []bool{false, true} {
			got, err := readSnapshotTable(file, 0, n, 1<<20, repair)
			if err != nil {
				continue
			}
			if _, err := encodeSnapshots(got.list); err != nil {
				t.Fatal(err)
			}
		}
	})
}
