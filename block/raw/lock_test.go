package raw

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
)

func TestLocksBetweenOurselves(t *testing.T) {
	for _, c := range []struct {
		first, second bool // read-only
		ok            bool
	}{{false, false, false}, {false, true, false}, {true, false, false}, {true, true, true}} {
		path := image(t, 1<<16)
		a := mustOpen(t, path, options{ReadOnly: c.first})
		b, err := open(path, options{ReadOnly: c.second})
		switch {
		case c.ok && err != nil:
			t.Errorf("%+v: %v", c, err)
		case !c.ok && !errors.Is(err, block.ErrInUse):
			t.Errorf("%+v: %v, want ErrInUse", c, err)
		case !c.ok && err.Error() != "in use by another process":
			t.Errorf("%+v: %q is not clear", c, err)
		}
		if b != nil {
			b.Close()
		}
		a.Close()
		again := mustOpen(t, path, options{})
		again.Close()
	}
}

// qemuHolds runs qemu-io on path until the returned function is called.
func qemuHolds(t *testing.T, path string, flags ...string) (release func()) {
	t.Helper()
	cmd := exec.Command("qemu-io", append(flags, "-f", "raw", path)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("qemu-utils is needed: %v", err)
	}
	// An answer to a command shows that the image is open.
	if _, err := io.WriteString(in, "length\n"); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if strings.Contains(s.Text(), "KiB") {
			break
		}
	}
	return func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("qemu-io: %v", err)
		}
	}
}

func TestLocksWeRespectQEMUs(t *testing.T) {
	for _, c := range []struct {
		name     string
		flags    []string
		readOnly bool
		ok       bool
	}{
		{"QEMU writes, we would write", nil, false, false},
		{"QEMU writes, we would read", nil, true, false},
		{"QEMU reads, we read", []string{"-r"}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := image(t, 64<<10)
			release := qemuHolds(t, path, c.flags...)
			d, err := open(path, options{ReadOnly: c.readOnly})
			if c.ok != (err == nil) || (err != nil && !errors.Is(err, block.ErrInUse)) {
				t.Errorf("Open: %v", err)
			}
			if d != nil {
				d.Close()
			}
			release()
			d = mustOpen(t, path, options{})
			d.Close()
		})
	}
}

func TestLocksQEMURespectsOurs(t *testing.T) {
	for _, c := range []struct {
		name     string
		readOnly bool
		qemu     []string
		ok       bool
	}{
		{"we write, QEMU would write", false, []string{"qemu-io", "-f", "raw", "-c", "write 0 512"}, false},
		{"we write, QEMU would resize", false, []string{"qemu-img", "resize", "-f", "raw", "IMAGE", "128K"}, false},
		{"we read, QEMU would write", true, []string{"qemu-io", "-f", "raw", "-c", "write 0 512"}, false},
		{"we read, QEMU reads", true, []string{"qemu-io", "-r", "-f", "raw", "-c", "read 0 512"}, true},
		{"we read, QEMU describes", true, []string{"qemu-img", "info", "-f", "raw"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := image(t, 64<<10)
			d := mustOpen(t, path, options{ReadOnly: c.readOnly})
			defer d.Close()
			args, named := append([]string(nil), c.qemu[1:]...), false
			for i := range args {
				if args[i] == "IMAGE" {
					args[i], named = path, true
				}
			}
			if !named {
				args = append(args, path)
			}
			out, err := exec.Command(c.qemu[0], args...).CombinedOutput()
			if c.ok != (err == nil) || (!c.ok && !strings.Contains(string(out), "lock")) {
				t.Errorf("%v: %v\n%s", c.qemu, err, out)
			}
		})
	}
}

func TestRelockKeepsTheOldLocksOnFailure(t *testing.T) {
	path := image(t, 1<<16)
	reader := Lock{Uses: PermRead, Denies: PermWrite}
	writer := Lock{Uses: PermRead | PermWrite, Denies: PermWrite | PermResize}
	a := mustOpenFile(t, path, FileOptions{Lock: reader})
	b := mustOpenFile(t, path, FileOptions{Lock: reader})
	var le *LockError
	if err := a.Relock(writer); !errors.As(err, &le) || le.Perm != PermWrite || le.Shared {
		t.Errorf("Relock: %v, %+v", err, le)
	}
	if _, err := OpenFile(path, FileOptions{Lock: writer}); !errors.Is(err, block.ErrInUse) {
		t.Errorf("a writer beside two readers: %v", err)
	}
	if err := b.Relock(Lock{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Relock(writer); err != nil {
		t.Fatal(err)
	}
	if err := b.Relock(reader); !errors.As(err, &le) || le.Perm != PermWrite || !le.Shared {
		t.Errorf("a reader beside a writer: %v, %+v", err, le)
	}
	if err := a.Relock(Lock{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Relock(writer); err != nil {
		t.Fatal(err)
	}
}

// A descriptor passed on shares the locks, which end with the last copy.
func TestLocksOfAPassedDescriptor(t *testing.T) {
	path := image(t, 1<<16)
	writer := Lock{Uses: PermRead | PermWrite, Denies: PermWrite | PermResize}
	a := mustOpenFile(t, path, FileOptions{Lock: writer})
	fd, err := unix.Dup(int(a.OSFile().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Use(os.NewFile(uintptr(fd), path), FileOptions{Lock: writer})
	if err != nil {
		t.Fatalf("the one who was passed it: %v", err)
	}
	a.Close()
	if _, err := open(path, options{}); !errors.Is(err, block.ErrInUse) {
		t.Errorf("the giver has closed its copy: %v", err)
	}
	b.Close()
	mustOpen(t, path, options{}).Close()
}
