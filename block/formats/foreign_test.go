package formats

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/block/mapped/mappedtest"
)

// TestForeignImages opens what qemu-img writes for other monitors, whole graphs
// of it, by probing as it does.
func TestForeignImages(t *testing.T) {
	mappedtest.Need(t)
	source := mappedtest.Source(t, 3, 5<<20)
	for _, c := range []struct{ format, options string }{
		{"vmdk", "subformat=monolithicSparse"}, {"vmdk", "subformat=monolithicFlat"}, {"vmdk", "subformat=twoGbMaxExtentSparse"},
		{"vmdk", "subformat=twoGbMaxExtentFlat"}, {"vmdk", "subformat=streamOptimized"}, {"vhdx", "subformat=dynamic"},
		{"vhdx", "subformat=fixed"}, {"vpc", "subformat=dynamic"}, {"vpc", "subformat=fixed"}, {"vdi", "static=off"}, {"vdi", "static=on"},
	} {
		path := mappedtest.Convert(t, source, c.format, c.options)
		want := c.format
		if c.options == "subformat=fixed" && c.format == "vpc" {
			want = "raw" // nothing at its beginning tells
		}
		for _, o := range []Options{{Filename: path, ReadOnly: true}, {Filename: path, Format: c.format, ReadOnly: true}} {
			n, err := Open(o)
			if err != nil {
				t.Errorf("%+v: %v", c, err)
				continue
			}
			if o.Format != "" {
				want = c.format
			}
			if n.Driver != want {
				t.Errorf("%+v: taken for %s", c, n.Driver)
			}
			if n.Driver == c.format {
				f, _ := Find(c.format)
				mappedtest.Contents(t, f, n.Image, path)
			}
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
		if n, err := Open(Options{Filename: path, Format: c.format}); err == nil {
			t.Errorf("%+v: opened to be written to", c)
			_ = n.Close()
		} else if want := fmt.Sprintf("Driver '%s' can only be used for read-only devices", c.format); err.Error() != want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestDeltaLink: the parent of a vmdk is found beside it, and read.
func TestDeltaLink(t *testing.T) {
	mappedtest.Need(t)
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base.vmdk"), filepath.Join(dir, "top.vmdk")
	mappedtest.Img(t, "create", "-f", "vmdk", base, "1M")
	mappedtest.IO(t, "vmdk", base, "write -P 1 0 1M")
	mappedtest.Img(t, "create", "-f", "vmdk", "-b", base, "-F", "vmdk", top, "2M")
	mappedtest.IO(t, "vmdk", top, "write -P 2 128k 100k")
	n, err := Open(Options{Filename: top, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	if n.Backing == nil || n.Backing.Driver != "vmdk" || n.BackingFilename != base {
		t.Fatalf("backing node %+v", n.Backing)
	}
	f, _ := Find("vmdk")
	mappedtest.Contents(t, f, n.Image, top)
}

// TestHostileDescriptors: a text can name any file. Where references are
// refused it reaches none, and it never makes a loop.
func TestHostileDescriptors(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	const head = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
	path := filepath.Join(dir, "in", "d.vmdk")
	for _, c := range []struct {
		text  string
		opens bool // where references are followed
	}{
		{head + "RW 8 FLAT \"../secret\" 0\n", true},
		{head + "RW 8 FLAT \"" + secret + "\" 0\n", true},
		{head + "RW 1 FLAT \"d.vmdk\" 0\n", true},
		{head + "RW 1 SPARSE \"d.vmdk\"\n", false},
		{head + "RW 1 FLAT \"nbd://host/x\" 0\n", false},
		{head + "RW 1 FLAT \"gone\" 0\n", false},
		{head + "parentFileNameHint=\"d.vmdk\"\nRW 1 FLAT \"d.vmdk\" 0\n", false},
		{head + "parentFileNameHint=\"../in/../in/d.vmdk\"\nRW 1 FLAT \"../secret\" 0\n", false},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := Open(Options{Filename: path, Format: "vmdk", ReadOnly: true})
		if (err == nil) != c.opens {
			t.Errorf("%q: %v", c.text, err)
		}
		if err == nil {
			_ = n.Close()
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %v", c.text, err)
		}
		if n, err := Open(Options{Filename: path, Format: "vmdk", ReadOnly: true, NoReferences: true}); err == nil {
			t.Errorf("%q: references that are refused were followed", c.text)
			_ = n.Close()
		}
	}
}
