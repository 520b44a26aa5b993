// Package guest gives tests the guests that tests/guest/setup makes, and a hand at their consoles.
package guest

import (
	"fmt"
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
	if err := setupOnce(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(repository(), ".cache", "guest")
	return Files{
		Kernel: filepath.Join(dir, "vmlinuz"),
		Initrd: filepath.Join(dir, "initrd.img"),
		Disk:   filepath.Join(dir, "disk.img"),
		Dir:    dir,
	}
}

// Fio makes, if it is missing or out of date, the disk from which the script fio
// in the guest runs Debian's fio: raw, only read.
func Fio() (string, error) {
	if err := setup("--fio"); err != nil {
		return "", err
	}
	return filepath.Join(repository(), ".cache", "guest", "fio.img"), nil
}

// InitrdWith makes an initrd like Files.Initrd with further kernel modules, which
// are loaded, in a folder of the test's.
func InitrdWith(t testing.TB, modules ...string) string {
	t.Helper()
	return InitrdOf(t, modules, nil)
}

// InitrdOf is InitrdWith with files besides, by their places in the guest.
func InitrdOf(t testing.TB, modules []string, files map[string]string) string {
	t.Helper()
	Need(t)
	out := filepath.Join(t.TempDir(), "initrd.img")
	args := []string{"-o", out}
	for _, m := range modules {
		args = append(args, "-m", m)
	}
	for file, place := range files {
		args = append(args, "-f", file+":"+place)
	}
	if said, err := exec.Command(filepath.Join(repository(), "tests", "guest", "mkinitrd"), args...).CombinedOutput(); err != nil {
		t.Fatalf("tests/guest/mkinitrd: %v: %s", err, said)
	}
	return out
}

// repository is the directory that holds tests/guest.
func repository() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(self), "..", "..")
}

// setup runs the script, which looks at its work of before and does what is missing.
func setup(args ...string) error {
	cmd := exec.Command(filepath.Join(repository(), "tests", "guest", "setup"), args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("tests/guest/setup: %w", err)
	}
	return nil
}

var setupOnce = sync.OnceValue(func() error { return setup() })
