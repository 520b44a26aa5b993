package doctor

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"berth/accel/kvm"
)

var update = flag.Bool("update", false, "rewrite what the hosts in testdata are expected to give")

// fakeHost is a root file system read from an archive in testdata/hosts. A
// file's name ending in / is an empty directory; "want" is the report, and
// "host" says, a line each, what files cannot:
//
//	denied NAME    this user may not use that file, nor read it if it is a text; "denied all" is every file
//	unseeded       the kernel has no random numbers yet
//	msr REG VALUE  in hexadecimal, of /dev/cpu/0/msr
type fakeHost struct {
	fstest.MapFS
	denied   map[string]bool
	unseeded bool
	msrs     map[int64]uint64
	want     string
}

func readHost(t *testing.T, a *txtar.Archive) *fakeHost {
	t.Helper()
	h := &fakeHost{MapFS: fstest.MapFS{}, denied: map[string]bool{}, msrs: map[int64]uint64{}}
	for _, f := range a.Files {
		switch name, dir := strings.CutSuffix(f.Name, "/"); {
		case f.Name == "want":
			h.want = string(f.Data)
		case f.Name == "host":
			for l := range strings.Lines(string(f.Data)) {
				h.say(t, strings.Fields(l))
			}
		case dir:
			h.MapFS[name] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
		default:
			h.MapFS[name] = &fstest.MapFile{Data: f.Data}
		}
	}
	return h
}

func (h *fakeHost) say(t *testing.T, words []string) {
	t.Helper()
	switch words[0] {
	case "denied":
		h.denied[words[1]] = true
	case "unseeded":
		h.unseeded = true
	case "msr":
		register, err1 := strconv.ParseInt(words[1], 16, 64)
		value, err2 := strconv.ParseUint(words[2], 16, 64)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		h.msrs[register] = value
	default:
		t.Fatalf("host: %q is not known", words)
	}
}

func (h *fakeHost) Open(name string) (fs.File, error) {
	if h.denied["all"] || h.denied[name] {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	f, err := h.MapFS.Open(name)
	if name == "dev/cpu/0/msr" && err == nil {
		return registers{f, h.msrs}, nil
	}
	return f, err
}

// Stat and the rest of MapFS would pass by Open.
func (h *fakeHost) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(only{h}, name) }
func (h *fakeHost) ReadFile(name string) ([]byte, error)       { return fs.ReadFile(only{h}, name) }
func (h *fakeHost) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(only{h}, name) }

type only struct{ h *fakeHost }

func (o only) Open(name string) (fs.File, error) { return o.h.Open(name) }

// registers is a file like /dev/cpu/0/msr: eight bytes at each register's number.
type registers struct {
	fs.File
	values map[int64]uint64
}

func (r registers) ReadAt(p []byte, at int64) (int, error) {
	v, ok := r.values[at]
	if !ok {
		return 0, fs.ErrInvalid
	}
	binary.LittleEndian.PutUint64(p, v)
	return 8, nil
}

func (h *fakeHost) usable(name string) error {
	if h.denied["all"] || h.denied[name] {
		return fs.ErrPermission
	}
	_, err := h.Stat(name)
	return err
}

// examine makes every check but KVM's own, which are another test's.
func (h *fakeHost) examine() Report {
	r := Run(Options{
		Log: quiet(), Root: h, Usable: h.usable, RandomReady: func() bool { return !h.unseeded },
		Probe: func(string, *slog.Logger) (kvm.Report, error) {
			return kvm.Report{Usable: true, MIPS: 4200, Reason: "runs ordinary guests"}, nil
		},
	})
	r.Checks = r.Checks[4:]
	return r
}

// TestHosts compares the reports of the hosts in testdata/hosts with those written down there.
func TestHosts(t *testing.T) {
	files, err := filepath.Glob("testdata/hosts/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			h := readHost(t, a)
			r := h.examine()
			checkReport(t, r)
			var human bytes.Buffer
			if err := r.Human(&human); err != nil {
				t.Fatal(err)
			}
			if *update {
				rewrite(t, file, a, human.Bytes())
			} else if d := cmp.Diff(h.want, human.String()); d != "" {
				t.Errorf("-want +got (go test ./doctor -update rewrites):\n%s", d)
			}
		})
	}
}

func rewrite(t *testing.T, file string, a *txtar.Archive, want []byte) {
	t.Helper()
	a.Files = append(a.Files[:len(a.Files)-1:len(a.Files)-1], txtar.File{Name: "want", Data: want})
	if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkReport holds what is true of every report.
func checkReport(t *testing.T, r Report) {
	t.Helper()
	seen := map[string]bool{}
	for _, c := range r.Checks {
		if seen[c.Name] || c.Name == "" || c.Title == "" || c.Group == "" || c.Finding == "" {
			t.Errorf("%+v: a name twice, or a field missing", c)
		}
		seen[c.Name] = true
		skipped := strings.HasPrefix(c.Finding, notChecked)
		if c.Status == OK && c.Meaning+c.Remedy != "" || c.Status != OK && c.Meaning == "" && !skipped {
			t.Errorf("%+v: meaning and remedy are for what is not ok, and what is not ok has a meaning", c)
		}
		if c.Status == Fail && c.Group != "KVM" && c.Name != "cpu-virtualization" {
			t.Errorf("%+v: guests run without it, so it is no failure", c)
		}
	}
	var human bytes.Buffer
	if err := r.Human(&human); err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(human.String()) {
		if utf8.RuneCountInString(strings.TrimSuffix(l, "\n")) > columns {
			t.Errorf("longer than %d columns: %q", columns, l)
		}
	}
}

// TestOddFilesOfTheHost gives every check files that hold what no kernel writes.
func TestOddFilesOfTheHost(t *testing.T) {
	for _, file := range []string{"intel", "worn"} {
		a, err := txtar.ParseFile("testdata/hosts/" + file + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		for i, odd := range []string{"", "\n", "18446744073709551616", "-1", "\x00\xff[", "flags: x\nNode 0 MemFree:\n - \nUid:\n0::\n"} {
			h := readHost(t, a)
			for name, f := range h.MapFS {
				good := f.Data
				f.Data = []byte(odd)
				t.Run(fmt.Sprintf("%s/%d/%s", file, i, name), func(t *testing.T) { h.examine() })
				f.Data = good
			}
			for _, f := range h.MapFS {
				f.Data = []byte(odd)
			}
			h.examine()
		}
	}
}
