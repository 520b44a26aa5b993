package formats

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
	"berth/block/raw"
)

// add adds what text, a JSON object, says.
func add(s *Nodes, text string) error {
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return err
	}
	return s.Add(Options{Values: Flatten(m), Stated: true})
}

func nodeNames(s *Nodes) (list []string) {
	s.Each(func(n *Node) { list = append(list, n.Name) })
	return list
}

// TestNodesCloseWithTheirLastUser: a node that several use stays until none does,
// whatever they end in, and then nothing is left.
func TestNodesCloseWithTheirLastUser(t *testing.T) {
	inDir(t)
	images(t)
	s := NewNodes(nil)
	before := openFiles(t)
	for _, text := range []string{
		`{"driver": "file", "node-name": "f", "filename": "a.raw"}`,
		`{"driver": "raw", "node-name": "r1", "file": "f"}`,
		`{"driver": "raw", "node-name": "r2", "file": "f"}`,
		`{"driver": "qcow2", "node-name": "base", "read-only": true, "file": {"driver": "file", "filename": "b.qcow2"}}`,
		`{"driver": "qcow2", "node-name": "top", "file": {"driver": "file", "filename": "over.qcow2"}, "backing": "base"}`,
		`{"driver": "file", "node-name": "data", "filename": "d.raw"}`,
		`{"driver": "qcow2", "node-name": "ext", "file": {"driver": "file", "filename": "c.qcow2"}, "data-file": "data"}`,
	} {
		if err := add(s, text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	use, err := s.Find("r1").Attach("/machine/peripheral/a", false)
	if err != nil {
		t.Fatal(err)
	}
	disk := use.Disk(pool.Options{})
	for _, name := range []string{"f", "base", "data", "r1"} {
		if err := s.Delete(name); err == nil {
			t.Errorf("%s is deleted", name)
		}
	}
	for _, name := range []string{"r2", "top", "ext", "data", "base"} {
		if err := s.Delete(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := blocktest.Do(t, disk, block.Request{Op: block.OpWrite, Len: 512, IOV: [][]byte{make([]byte, 512)}}); err != nil {
		t.Errorf("writing to what is still used: %v", err)
	}
	if err := disk.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"r1", "f"} {
		if err := s.Delete(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := nodeNames(s); len(left) > 0 || openFiles(t) != before {
		t.Errorf("nodes %q and %d files are left", left, openFiles(t)-before)
	}
}

// TestCloseWritesBack: an image that nobody has deleted is closed properly.
func TestCloseWritesBack(t *testing.T) {
	inDir(t)
	images(t)
	dirty := func(o Options) bool {
		t.Helper()
		o.Filename, o.Format = "b.qcow2", "qcow2"
		n, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		return n.Describe().Dirty
	}
	s := NewNodes(nil)
	if err := add(s, `{"driver": "qcow2", "node-name": "q", "lazy-refcounts": true, "file": {"driver": "file", "filename": "b.qcow2"}}`); err != nil {
		t.Fatal(err)
	}
	use, err := s.Find("q").Attach("/machine/peripheral/a", false)
	if err != nil {
		t.Fatal(err)
	}
	disk := use.Disk(pool.Options{})
	if err := blocktest.Do(t, disk, block.Request{Op: block.OpWrite, Len: 512, IOV: [][]byte{[]byte(strings.Repeat("x", 512))}}); err != nil {
		t.Fatal(err)
	}
	if !dirty(Options{ReadOnly: true, ForceShare: true}) {
		t.Error("not dirty while it is written")
	}
	if err := errors.Join(disk.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if dirty(Options{}) || len(nodeNames(s)) > 0 {
		t.Errorf("dirty or open afterwards: %q", nodeNames(s))
	}
}

// TestWhatFailsLeavesNothing: options that are wrong at any depth.
func TestWhatFailsLeavesNothing(t *testing.T) {
	inDir(t)
	images(t)
	s := NewNodes(nil)
	if err := add(s, `{"driver": "raw", "node-name": "there", "file": {"driver": "file", "filename": "a.raw", "node-name": "file"}, "size": 512}`); err != nil {
		t.Fatal(err)
	}
	nodes, before := len(nodeNames(s)), openFiles(t)
	for _, text := range []string{
		`{"driver": "raw", "node-name": "there", "file": {"driver": "file", "filename": "a.raw"}}`,
		`{"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "a.raw"}}`,
		`{"driver": "qcow2", "node-name": "x", "file": "file"}`,
		`{"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "over.qcow2"}, "backing": "nope"}`,
		`{"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "over.qcow2"}, "backing": {"driver": "qcow2", "file": "file"}}`,
		`{"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "over.qcow2"}, "nope": 1}`,
		`{"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "c.qcow2"}, "data-file": "nope"}`,
		`{"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "c.qcow2"}, "data-file": "there"}`,
		`{"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "lost.qcow2"}}`,
		`{"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "b.qcow2", "node-name": "x"}}`,
		`{"driver": "raw", "node-name": "x", "file": "there"}`,
		`{"driver": "file", "node-name": "x", "filename": "/dev/fdset/1"}`,
	} {
		if err := add(s, text); err == nil {
			t.Errorf("%s: no error", text)
		}
		if len(nodeNames(s)) != nodes || openFiles(t) != before {
			t.Fatalf("%s: nodes %q and %d files are left", text, nodeNames(s), openFiles(t)-before)
		}
	}
}

// oneSet is a set, 7, of one file that is open for reading and for writing.
type oneSet struct {
	path   string
	copies int
}

func (o *oneSet) Open(id int64, flags int) (*os.File, func(), error) {
	if id != 7 {
		return nil, nil, syscall.ENOENT
	}
	f, err := os.OpenFile(o.path, flags, 0)
	o.copies++
	return f, func() { o.copies-- }, err
}

// TestFilesOfDescriptorSets: a file that is written only while somebody writes is a
// copy of the one descriptor, and then of the other; each is given back.
func TestFilesOfDescriptorSets(t *testing.T) {
	inDir(t)
	images(t)
	sets := &oneSet{path: "b.qcow2"}
	s := NewNodes(sets)
	before := openFiles(t)
	if err := add(s, `{"driver": "file", "node-name": "f", "filename": "/dev/fdset/7", "auto-read-only": true}`); err != nil {
		t.Fatal(err)
	}
	f := s.Find("f").Image.(*raw.File)
	if !f.ReadOnly() || sets.copies != 1 {
		t.Errorf("at first: read-only %t, %d copies", f.ReadOnly(), sets.copies)
	}
	if err := add(s, `{"driver": "qcow2", "node-name": "q", "file": "f"}`); err != nil {
		t.Fatal(err)
	}
	if f.ReadOnly() || sets.copies != 1 || f.Lock().Uses&raw.PermWrite == 0 {
		t.Errorf("with a writer: read-only %t, %d copies, locks %+v", f.ReadOnly(), sets.copies, f.Lock())
	}
	if _, err := Open(Options{Filename: "b.qcow2", Format: "qcow2"}); !errors.Is(err, block.ErrInUse) {
		t.Errorf("opened beside it: %v", err)
	}
	if err := s.Delete("q"); err != nil {
		t.Error(err)
	}
	if !f.ReadOnly() || sets.copies != 1 || f.Lock() != (raw.Lock{}) {
		t.Errorf("without: read-only %t, %d copies, locks %+v", f.ReadOnly(), sets.copies, f.Lock())
	}
	if err := s.Delete("f"); err != nil || sets.copies != 0 || openFiles(t) != before {
		t.Errorf("%v; %d copies and %d files are left", err, sets.copies, openFiles(t)-before)
	}
}

// FuzzNodes adds and deletes nodes of all that lies in one folder: whatever fails,
// in the end nothing is open.
func FuzzNodes(f *testing.F) {
	f.Add(`[{"driver":"file","node-name":"f","filename":"a.raw"},{"driver":"raw","node-name":"r","file":"f"},"f","r"]`)
	f.Add(`[{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"q"},"backing":null},{"driver":"qcow2","node-name":"p","file":"q"}]`)
	f.Add(`[{"driver":"qcow2","node-name":"q","read-only":true,"file":{"driver":"file","filename":"q"}},{"driver":"qcow2","node-name":"p","file":{"driver":"file","filename":"p","node-name":"pf"},"backing":"q"},"q","pf","p"]`)
	dir := f.TempDir()
	for _, name := range []string{"q", "p"} {
		file, err := CreateFile(filepath.Join(dir, name), 0)
		if err != nil {
			f.Fatal(err)
		}
		format, _ := Find("qcow2")
		if err := errors.Join(format.Create(file, block.Creation{Values: block.Values{"size": "1048576"}}), file.Close()); err != nil {
			f.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a.raw"), make([]byte, 4096), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var steps []any
		if len(text) > 4096 || json.Unmarshal([]byte(text), &steps) != nil {
			return
		}
		s := NewNodes(nil)
		for _, step := range steps {
			switch v := step.(type) {
			case string:
				_ = s.Delete(v)
			case map[string]any:
				values := Flatten(v)
				for k, x := range values {
					if strings.HasSuffix(k, "filename") || strings.Contains(x, "/") || strings.Contains(x, ":") {
						values[k] = filepath.Join(dir, filepath.Base(fmt.Sprint(x)))
					}
				}
				_ = s.Add(Options{Values: values, Stated: true})
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left := nodeNames(s); len(left) > 0 {
			t.Errorf("nodes are left: %q", left)
		}
	})
}
