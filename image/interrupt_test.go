package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stopper is a standard output that stops the command once it has said how far it is.
type stopper struct {
	stop context.CancelFunc
	said bytes.Buffer
}

func (s *stopper) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "(0.00/100%)") {
		defer s.stop()
	}
	return s.said.Write(p)
}

// interrupted runs a command that is stopped when it begins to copy, at a byte a second.
func interrupted(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if status := Main(ctx, append([]string{"qemu-img"}, args...), nil, &stopper{stop: cancel}, io.Discard); status == 0 {
		t.Errorf("%q: status 0", args)
	}
}

func TestStoppedConvertRemovesItsTarget(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, contents(1, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"raw", "qcow2"} {
		interrupted(t, "convert", "-p", "-r", "1", "-f", "raw", "-O", format, from, to)
		if _, err := os.Lstat(to); !os.IsNotExist(err) {
			t.Errorf("%s: the target is there (%v)", format, err)
		}
	}
}

func TestStoppedConvertEmptiesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	from, to, link := filepath.Join(dir, "from"), filepath.Join(dir, "to"), filepath.Join(dir, "link")
	for _, name := range []string{from, to} {
		if err := os.WriteFile(name, contents(1, 4<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("to", link); err != nil {
		t.Fatal(err)
	}
	interrupted(t, "convert", "-p", "-r", "1", "-f", "raw", "-O", "qcow2", from, link)
	if i, err := os.Lstat(link); err != nil || i.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link: %v, %v", i, err)
	}
	if i, err := os.Stat(to); err != nil || i.Size() != 0 {
		t.Errorf("the file: %v, %v", i, err)
	}
}

// A link that leads nowhere yet is no reason to leave what was written through it.
func TestStoppedConvertRemovesWhatALinkLeadsTo(t *testing.T) {
	dir := t.TempDir()
	from, to, link := filepath.Join(dir, "from"), filepath.Join(dir, "to"), filepath.Join(dir, "link")
	if err := os.WriteFile(from, contents(1, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("to", link); err != nil {
		t.Fatal(err)
	}
	interrupted(t, "convert", "-p", "-r", "1", "-f", "raw", "-O", "raw", from, link)
	if _, err := os.Lstat(to); !os.IsNotExist(err) {
		t.Errorf("the file is there (%v)", err)
	}
	if _, err := os.Lstat(link); err != nil {
		t.Errorf("the link: %v", err)
	}
}

func TestStoppedConvertRemovesTheDataFile(t *testing.T) {
	dir := t.TempDir()
	from, to, data := filepath.Join(dir, "from"), filepath.Join(dir, "to"), filepath.Join(dir, "data")
	if err := os.WriteFile(from, contents(1, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	interrupted(t, "convert", "-p", "-r", "1", "-f", "raw", "-O", "qcow2", "-o", "data_file="+data+",data_file_raw=on", from, to)
	for _, name := range []string{to, data} {
		if _, err := os.Lstat(name); !os.IsNotExist(err) {
			t.Errorf("%s is there (%v)", name, err)
		}
	}
}

// What cannot be taken back is told of: here a directory has come in the target's place.
func TestGiveUpTellsWhatItLeaves(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	kept := guardFiles(dir)
	if err := os.MkdirAll(filepath.Join(dir, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	kept.giveUp(&call{name: "qemu-img", stderr: &said})
	if !strings.Contains(said.String(), "'"+dir+"' holds a part of the image") {
		t.Errorf("said %q", said.String())
	}
}

func TestStoppedConvertLeavesATargetOfN(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, name := range []string{from, to} {
		if err := os.WriteFile(name, contents(1, 4<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	interrupted(t, "convert", "-p", "-n", "-r", "1", "-f", "raw", "-O", "raw", from, to)
	if i, err := os.Stat(to); err != nil || i.Size() != 4<<20 {
		t.Errorf("the file: %v, %v", i, err)
	}
}

// TestStoppedCommitLosesNothing commits in two attempts, of which the first is stopped.
func TestStoppedCommitLosesNothing(t *testing.T) {
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base"), filepath.Join(dir, "top")
	want := contents(2, 4<<20)
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		var said bytes.Buffer
		if status := Main(context.Background(), append([]string{"qemu-img"}, args...), nil, &said, &said); status != 0 {
			t.Fatalf("%q: status %d: %s", args, status, said.String())
		}
	}
	run("create", "-q", "-f", "qcow2", base, "4M")
	run("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
	run("convert", "-n", "-f", "raw", "-O", "qcow2", raw, top)
	interrupted(t, "commit", "-p", "-r", "1", "-f", "qcow2", top)
	run("compare", "-q", "-f", "raw", raw, top)
	run("commit", "-q", "-f", "qcow2", top)
	run("compare", "-q", "-f", "raw", raw, top)
	run("compare", "-q", "-f", "raw", raw, base)
}
