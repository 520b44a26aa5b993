// Package mappedtest compares the engines of formats that are only read with qemu-img.
package mappedtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
	"berth/block/blocktest"
)

// Fuzz opens image as an image of that format, and reads of what it opens the
// beginning, the end and a little of what is between: nothing may panic, and
// time and memory are to depend on the file's length alone.
func Fuzz(f block.Format, image []byte, o block.OpenOptions) {
	if f.Probe != nil {
		f.Probe(image[:min(len(image), 2048)])
	}
	i, err := f.Open(blocktest.NewMemFile(image), o)
	if err != nil {
		return
	}
	defer func() { _ = i.Close() }()
	p := make([]byte, 4096)
	for _, off := range []int64{0, 512, i.Size() / 2, i.Size() - 4096} {
		if off < 0 || off > i.Size()-int64(len(p)) {
			continue
		}
		_ = i.Readv([][]byte{p[:1], p[1:]}, off)
	}
	if e, ok := i.(block.Extenter); ok {
		for off, k := int64(0), 0; off < i.Size() && k < 100; k++ {
			x, err := e.Extent(off, i.Size()-off)
			if err != nil {
				break
			}
			if x.Len <= 0 || x.Len > i.Size()-off {
				panic("an extent of no length, or past the end")
			}
			off += x.Len
		}
	}
	if c, ok := i.(block.Checker); ok {
		_, _ = c.Check(0, func(string) {})
	}
	if n, ok := i.(block.Informer); ok {
		n.Info()
	}
}

// Img runs qemu-img in the test's directory and returns what it prints.
func Img(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("qemu-img", args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("qemu-img %q: %v\n%s", args, err, errs.Bytes())
	}
	return out
}

// Need skips the test where there is no qemu-img.
func Need(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("no qemu-img here (Debian: qemu-utils)")
	}
}

// Source makes a raw disk of that many bytes, some of which are random and the
// others holes, and returns its path.
func Source(t testing.TB, seed uint64, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(seed, 1))
	for off := int64(0); off < size; off += r.Int64N(size/8+1) + 512 {
		p := make([]byte, min(size-off, 512*(1+r.Int64N(400))))
		for i := range p[:len(p)/2] { // half of it compresses well
			p[i] = byte(r.Uint32())
		}
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

// Convert makes an image of that format of a raw disk.
func Convert(t testing.TB, source, format, options string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image."+format)
	args := []string{"convert", "-f", "raw", "-O", format}
	if options != "" {
		args = append(args, "-o", options)
	}
	Img(t, append(args, source, path)...)
	return path
}

// file is one on the disk, to read only.
type file struct{ f *os.File }

// Open opens a file of the disk as what an image lies in.
func Open(path string) (block.File, error) {
	f, err := os.Open(path)
	return file{f}, err
}

func (f file) Readv(iov [][]byte, off int64) error {
	for _, p := range iov {
		n, err := f.f.ReadAt(p, off)
		clear(p[n:])
		if n < len(p) && off+int64(n) < f.Size() {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

func (f file) Size() int64 {
	s, err := f.f.Stat()
	if err != nil {
		return 0
	}
	return s.Size()
}

func (f file) Extent(off, n int64) (block.Extent, error) {
	e := block.Extent{Allocated: true, Data: true, HasOffset: true, Off: off}
	fd, size := int(f.f.Fd()), f.Size()
	data, err := unix.Seek(fd, off, unix.SEEK_DATA)
	if err != nil {
		data = size
	}
	end := data
	if data == off {
		if end, err = unix.Seek(fd, off, unix.SEEK_HOLE); err != nil {
			return e, err
		}
	}
	e.Zero = data != off
	e.Len = min(n, end-off)
	e.EOF = off+e.Len == size
	return e, nil
}

func (f file) Close() error                              { return f.f.Close() }
func (file) Flush() error                                { return nil }
func (file) Writev([][]byte, int64, block.Flags) error   { return block.ErrReadOnly }
func (file) Truncate(int64) error                        { return block.ErrReadOnly }
func (file) WriteZeroes(int64, int64, block.Flags) error { return block.ErrReadOnly }
func (file) Discard(int64, int64) error                  { return block.ErrReadOnly }

// OpenImage opens an image, with its siblings.
func OpenImage(f block.Format, path string, values block.Values) (block.Image, error) {
	file, err := Open(path)
	if err != nil {
		return nil, err
	}
	i, err := f.Open(file, block.OpenOptions{
		ReadOnly: true, Filename: path, Values: values,
		Sibling: func(name string) (block.File, string, error) {
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(path), name)
			}
			f, err := Open(name)
			return f, name, err
		},
	})
	if err != nil {
		_ = file.Close()
	}
	return i, err
}

// Compare fails the test where an image's contents, map or description differ
// from what qemu-img says.
func Compare(t *testing.T, f block.Format, path string) {
	t.Helper()
	i, err := OpenImage(f, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = i.Close() }()
	Contents(t, f, i, path)
	if i.Size() > 0 {
		CompareMap(t, f, i, path)
	}
	CompareInfo(t, f, i, path)
	if err := i.Writev([][]byte{make([]byte, 1)}, 0, 0); i.Size() > 0 && err == nil {
		t.Error("an image that is only read took a write")
	}
}

// Contents compares only those.
func Contents(t *testing.T, f block.Format, i block.Image, path string) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	Img(t, "convert", "-f", f.Name, "-O", "raw", path, raw)
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if i.Size() != int64(len(want)) {
		t.Fatalf("%d bytes, by qemu-img %d", i.Size(), len(want))
	}
	got := bytes.Repeat([]byte{0xa5}, len(want))
	if err := i.Readv([][]byte{got}, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("contents differ from qemu-img's")
	}
	r := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		off := r.Int64N(i.Size() + 1)
		p := bytes.Repeat([]byte{0xa5}, int(min(i.Size()-off, r.Int64N(300000))))
		k := r.IntN(len(p) + 1)
		if err := i.Readv([][]byte{p[:k], {}, p[k:]}, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, want[off:off+int64(len(p))]) {
			t.Fatalf("%d bytes at %d differ from qemu-img's", len(p), off)
		}
	}
	for _, o := range [][2]int64{{-1, 1}, {i.Size(), 1}, {1<<63 - 1, 1}} {
		if err := i.Readv([][]byte{make([]byte, o[1])}, o[0]); !errors.Is(err, block.ErrRange) {
			t.Errorf("a read at %d: %v", o[0], err)
		}
	}
}

type mapEntry struct {
	Start, Length       int64
	Present, Zero, Data bool
	Offset              *int64
}

// CompareMap compares the extents.
func CompareMap(t *testing.T, f block.Format, i block.Image, path string) {
	t.Helper()
	var want, got []mapEntry
	if err := json.Unmarshal(Img(t, "map", "-f", f.Name, "--output", "json", path), &want); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < i.Size(); {
		e, err := i.(block.Extenter).Extent(off, i.Size()-off)
		if err != nil {
			t.Fatal(err)
		}
		m := mapEntry{Start: off, Length: e.Len, Present: e.Allocated, Zero: e.Zero || !e.Allocated, Data: e.Data}
		if e.HasOffset {
			m.Offset = &e.Off
		}
		if off += e.Len; e.EOF != (off == i.Size()) {
			t.Errorf("the run that ends at %d of %d says EOF: %v", off, i.Size(), e.EOF)
		}
		if k := len(got) - 1; k >= 0 && follows(&got[k], &m) {
			got[k].Length += m.Length
			continue
		}
		got = append(got, m)
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		t.Errorf("map:\n%s\nqemu-img:\n%s", g, w)
	}
}

func follows(a, b *mapEntry) bool {
	if a.Present != b.Present || a.Zero != b.Zero || a.Data != b.Data || (a.Offset == nil) != (b.Offset == nil) {
		return false
	}
	return a.Offset == nil || *a.Offset+a.Length == *b.Offset
}

// CompareInfo compares what an image says of itself.
func CompareInfo(t *testing.T, f block.Format, i block.Image, path string) {
	t.Helper()
	var want struct {
		Size     int64 `json:"virtual-size"`
		Cluster  int64 `json:"cluster-size"`
		Specific struct {
			Data map[string]any
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(Img(t, "info", "-f", f.Name, "--output", "json", path), &want); err != nil {
		t.Fatal(err)
	}
	n := i.(block.Informer).Info()
	if i.Size() != want.Size || n.ClusterSize != want.Cluster {
		t.Errorf("size %d, clusters of %d; by qemu-img %d and %d", i.Size(), n.ClusterSize, want.Size, want.Cluster)
	}
	var got map[string]any
	if n.Specific != nil {
		b, err := json.Marshal(object(n.Specific))
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(got, want.Specific.Data) {
		t.Errorf("format-specific: %v\nby qemu-img: %v", got, want.Specific.Data)
	}
}

func object(fields []block.Field) map[string]any {
	m := map[string]any{}
	for _, f := range fields {
		switch v := f.Value.(type) {
		case []block.Field:
			m[f.Name] = object(v)
		case [][]block.Field:
			var list []any
			for _, e := range v {
				list = append(list, object(e))
			}
			m[f.Name] = list
		default:
			m[f.Name] = v
		}
	}
	return m
}

// QemuRefuses fails the test if qemu-img opens the image, or refuses it in
// other words.
func QemuRefuses(t *testing.T, format string, image []byte, want string) {
	t.Helper()
	Need(t)
	path := save(t, image)
	out, err := exec.Command("qemu-img", "info", "-f", format, path).CombinedOutput()
	if want = "qemu-img: Could not open '" + path + "': " + strings.ReplaceAll(want, "FILE", path) + "\n"; err == nil || string(out) != want {
		t.Errorf("qemu-img: %s, here %s", out, want)
	}
}

// QemuFinds fails the test if qemu-img's check finds anything else.
func QemuFinds(t *testing.T, format string, image []byte, want []string) {
	t.Helper()
	Need(t)
	cmd := exec.Command("qemu-img", "check", "-q", "-f", format, save(t, image))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); (err == nil) != (len(want) == 0) {
		t.Error(err)
	}
	var got []string
	for l := range strings.Lines(errs.String()) {
		if l = strings.TrimSpace(strings.TrimPrefix(l, "qemu-img: ")); l != "" {
			got = append(got, l)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("qemu-img check: %q, here %q", got, want)
	}
}

func save(t *testing.T, image []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// IO runs commands of qemu-io on an image, and fails the test where one fails.
func IO(t testing.TB, format, path string, commands ...string) {
	t.Helper()
	args := []string{"-f", format}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("qemu-io", append(args, path)...).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("ailed")) {
		t.Fatalf("qemu-io %q: %v\n%s", commands, err, out)
	}
}
