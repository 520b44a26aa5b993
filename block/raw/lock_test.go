package raw

import (
	"bufio"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"berth/block"
)

func TestLocksBetweenOurselves(t *testing.T) {
	for _, c := range []struct {
		first, second bool // read-only
		ok            bool
	}{{false, false, false}, {false, true, false}, {true, false, false}, {true, true, true}} {
		path := image(t, 1<<16)
		a := mustOpen(t, path, Options{ReadOnly: c.first})
		b, err := Open(path, Options{ReadOnly: c.second})
		switch {
		case c.ok && err != nil:
			t.Errorf("%+v: %v", c, err)
		case !c.ok && !errors.Is(err, block.ErrInUse):
			t.Errorf("%+v: %v, want ErrInUse", c, err)
		case !c.ok && err.Error() != "disk "+path+": in use by another process":
			t.Errorf("%+v: %q is not clear", c, err)
		}
		if b != nil {
			b.Close()
		}
		a.Close()
		again := mustOpen(t, path, Options{})
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
			d, err := Open(path, Options{ReadOnly: c.readOnly})
			if c.ok != (err == nil) || (err != nil && !errors.Is(err, block.ErrInUse)) {
				t.Errorf("Open: %v", err)
			}
			if d != nil {
				d.Close()
			}
			release()
			d = mustOpen(t, path, Options{})
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
			d := mustOpen(t, path, Options{ReadOnly: c.readOnly})
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
