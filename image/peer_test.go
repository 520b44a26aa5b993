package image

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMain lets scripts run this test binary as qemu-img.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "qemu-img" {
		os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// TestPeer runs each script of testdata/peer twice, line by line, with qemu-img
// being this package and the real one, in twin directories: what a line prints and its exit
// status are the same, and so are the files that are left. A line that begins
// with ~ is only run.
func TestPeer(t *testing.T) {
	peer, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Fatalf("%v: tests/guest/setup --test installs the package qemu-utils", err)
	}
	scripts, err := filepath.Glob("testdata/peer/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := newTwin(t, "ours", ""), newTwin(t, "theirs", peer)
			for i, line := range strings.Split(string(text), "\n") {
				if line == "" || line[0] == '#' {
					continue
				}
				line, unequal := strings.CutPrefix(line, "~")
				line, peers := strings.CutPrefix(line, "!")
				us := ours
				if peers {
					us.path = theirs.path
				}
				got, want := us.run(line), theirs.run(line)
				if got != want && !unequal {
					t.Errorf("%s:%d: %s\n--- qemu-img\n%s--- ours\n%s", script, i+1, line, want, got)
				}
			}
			compareTwins(t, ours, theirs, peer)
		})
	}
}

// twin is a directory and the tool that is qemu-img in it.
type twin struct {
	t    *testing.T
	dir  string
	path string // PATH
}

func newTwin(t *testing.T, name, tool string) twin {
	t.Helper()
	if tool == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		bin := t.TempDir()
		tool = filepath.Join(bin, "qemu-img")
		if err := os.Symlink(self, tool); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return twin{t, dir, filepath.Dir(tool) + ":/usr/bin:/bin:/usr/sbin:/sbin"}
}

// masks are what two runs cannot have in common.
var masks = []struct {
	old *regexp.Regexp
	new string
}{
	{regexp.MustCompile(`qemu-img version .*\n.*\n`), "VERSION\n"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "DATE"},
	{regexp.MustCompile(`"date-n?sec": \d+`), "DATE"},
	{regexp.MustCompile(`#block\d+`), "#block"},
	{regexp.MustCompile(`"cid": \d+`), "CID"},
	{regexp.MustCompile(`cid: \d+`), "CID"},
}

func (w twin) run(line string) string {
	w.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("timeout", "60", "sh", "-c", line) // a hang is a difference
	cmd.Dir = w.dir
	cmd.Env = []string{"PATH=" + w.path, "TZ=UTC", "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	text := out.String() + "stderr:\n" + errs.String() + "status: " + cmd.ProcessState.String() + "\n"
	if err != nil && cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	text = strings.ReplaceAll(text, w.dir, "DIR")
	for _, m := range masks {
		text = m.old.ReplaceAllString(text, m.new)
	}
	return text
}

// compareTwins compares the files that are left: their names, and what the peer reads from them.
func compareTwins(t *testing.T, ours, theirs twin, peer string) {
	t.Helper()
	names := func(w twin) (all []string) {
		entries, err := os.ReadDir(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	a, b := names(ours), names(theirs)
	if !slices.Equal(a, b) {
		t.Errorf("files: ours %q, qemu-img's %q", a, b)
		return
	}
	for _, name := range a {
		one, two := filepath.Join(ours.dir, name), filepath.Join(theirs.dir, name)
		if i, err := os.Lstat(one); err != nil || !i.Mode().IsRegular() {
			continue
		}
		out, err := exec.Command("timeout", "60", peer, "compare", "-U", one, two).CombinedOutput()
		if err != nil {
			if same, _ := sameBytes(one, two); !same {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		}
	}
}

func sameBytes(a, b string) (bool, error) {
	x, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	y, err := os.ReadFile(b)
	return bytes.Equal(x, y), err
}
