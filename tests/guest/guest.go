// Package guest gives tests the Debian kernel, initrd and disk that tests/guest/setup makes.
package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Files are paths in the repository's guest cache. They are shared: a test
// that writes to the disk does so on a copy.
type Files struct {
	Kernel string // bzImage
	Initrd string
	Disk   string // raw, ext4
	Dir    string // the cache itself
}

// Need makes the files if they are missing or out of date, which can take a
// minute the first time, and fails the test if that is impossible.
func Need(t testing.TB) Files {
	t.Helper()
	if err := setup(); err != nil {
		t.Fatalf("tests/guest/setup: %v", err)
	}
	dir := filepath.Join(repository(), ".cache", "guest")
	return Files{
		Kernel: filepath.Join(dir, "vmlinuz"),
		Initrd: filepath.Join(dir, "initrd.img"),
		Disk:   filepath.Join(dir, "disk.img"),
		Dir:    dir,
	}
}

// repository is the directory that holds tests/guest.
func repository() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "..", "..")
}

// setup runs the script, once in a process.
var setup = sync.OnceValue(func() error {
	cmd := exec.Command(filepath.Join(repository(), "tests", "guest", "setup"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
})
