package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// berth builds the program that is measured.
func berth(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "berth")
	if out, err := exec.Command("go", "build", "-o", path, "berth/cmd/berth").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// TestTablesAreBuiltWhenUsed: what only the soft engine needs is not made before
// main, where every start on KVM and every berth --help would pay for it.
func TestTablesAreBuiltWhenUsed(t *testing.T) {
	trace, err := initTrace(berth(t))
	if err != nil {
		t.Fatal(err)
	}
	const most = 16 << 10
	for _, i := range trace {
		if strings.HasPrefix(i.Package, "berth/") && i.Bytes > most {
			t.Errorf("%s makes %d bytes before main, more than %d", i.Package, i.Bytes, most)
		}
	}
}

// TestTinyKernel: berth boots it, and it ends with its status.
func TestTinyKernel(t *testing.T) {
	f := files{berth: berth(t), scratch: t.TempDir()}
	all, err := f.vmms("soft")
	if err != nil {
		t.Fatal(err)
	}
	if err := all[0].measureStart(time.Minute); err != nil {
		t.Fatal(err)
	}
	if s := all[0].Starts[0]; s.Wall <= 0 {
		t.Errorf("%+v", s)
	}
}
