package formats

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
	"berth/block/raw"
)

// holds has qemu-io hold an image open until the test ends.
func holds(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("qemu-io", args...)
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
	if _, err := io.WriteString(in, "length\n"); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan() && !strings.Contains(s.Text(), "MiB"); {
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("qemu-io: %v", err)
		}
	})
}

// uses are ways to use an image, ours and QEMU's.
var uses = []struct {
	name string
	o    Options
	io   []string // of qemu-io
}{
	{"write", Options{}, nil},
	{"read", Options{ReadOnly: true}, []string{"-r"}},
	{"share", Options{ReadOnly: true, ForceShare: true}, []string{"-r", "-U"}},
}

// Each way to use an image is tried beside each: QEMU beside QEMU says what is
// right, and berth is to say the same beside QEMU, QEMU beside berth, and berth
// beside itself.
func TestLocksKeepOutAsQEMU(t *testing.T) {
	inDir(t)
	images(t)
	for _, file := range []string{"a.raw", "b.qcow2", "over.qcow2", "c.qcow2"} {
		for _, first := range uses {
			for _, second := range uses {
				t.Run(file+" "+first.name+" "+second.name, func(t *testing.T) {
					format := "qcow2"
					if strings.HasSuffix(file, ".raw") {
						format = "raw"
					}
					args := append([]string{"-f", format}, first.io...)
					second.o.Filename, second.o.Format = file, format
					first.o.Filename, first.o.Format = file, format
					peer := append(append([]string{"qemu-io", "-f", format, "-c", "length"}, second.io...), file)

					var want string
					t.Run("QEMU first", func(t *testing.T) {
						holds(t, append(args, file)...)
						want, _ = qemu(t, peer...)
						n, err := Open(second.o)
						compareLock(t, "QEMU holds, berth comes", want, n, err, file)
					})
					held, err := Open(first.o)
					if err != nil {
						t.Fatal(err)
					}
					defer held.Close()
					if got, _ := qemu(t, peer...); got != want {
						t.Errorf("berth holds, QEMU comes: %q, beside itself %q", got, want)
					}
					n, err := Open(second.o)
					compareLock(t, "berth holds, berth comes", want, n, err, file)
				})
			}
		}
	}
}

func compareLock(t *testing.T, what, want string, n *Node, err error, file string) {
	t.Helper()
	if err == nil {
		n.Close()
		if strings.Contains(want, "lock") {
			t.Errorf("%s: it is let in, QEMU beside QEMU is told %q", what, want)
		}
		return
	}
	if !errors.Is(err, block.ErrInUse) {
		t.Errorf("%s: %v is no block.ErrInUse", what, err)
	}
	if got := message("qemu-io: can't open device "+file+": ", err); got != want {
		t.Errorf("%s: %q, QEMU beside QEMU is told %q", what, got, want)
	}
}

// A guest's disk keeps out other writers and who would change its size, also
// from the images that it stands on.
func TestLocksOfAGuestsDisk(t *testing.T) {
	inDir(t)
	images(t)
	n, err := Open(Options{Filename: "over.qcow2", Format: "qcow2", NoShare: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"qemu-img", "resize", "-f", "qcow2", "over.qcow2", "2M"}, "Failed to get"},
		{[]string{"qemu-io", "-f", "qcow2", "-c", "write 0 512", "b.qcow2"}, "Failed to get"},
		{[]string{"qemu-img", "create", "-f", "qcow2", "b.qcow2", "1M"}, "Failed to get"},
		{[]string{"qemu-img", "info", "over.qcow2"}, `Failed to get shared "write" lock`},
		{[]string{"qemu-img", "info", "-U", "over.qcow2"}, "virtual size"},
		{[]string{"qemu-img", "info", "b.qcow2"}, "virtual size"},
	} {
		if out, _ := qemu(t, c.args...); !strings.Contains(out, c.want) {
			t.Errorf("%v: %s", c.args, out)
		}
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	mustQEMU(t, "qemu-img", "resize", "-q", "-f", "qcow2", "over.qcow2", "2M")
}

func TestLocksOfAFileToBeMade(t *testing.T) {
	inDir(t)
	images(t)
	t.Run("held by QEMU", func(t *testing.T) {
		holds(t, "-f", "qcow2", "b.qcow2")
		before, _ := os.ReadFile("b.qcow2")
		_, err := CreateFile("b.qcow2", 0)
		if !errors.Is(err, block.ErrInUse) || err.Error() != `Failed to get "write" lock` {
			t.Errorf("%v", err)
		}
		if after, _ := os.ReadFile("b.qcow2"); string(after) != string(before) {
			t.Error("the image in use was changed")
		}
	})
	f, err := CreateFile("file:b.qcow2", 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Size() != 4096 {
		t.Errorf("%d bytes long", f.Size())
	}
	if out, err := qemu(t, "qemu-img", "resize", "-f", "raw", "b.qcow2", "2M"); err == nil {
		t.Errorf("QEMU beside it: %s", out)
	}
}

// Locks go with a descriptor that is passed on, and end with its last copy.
func TestLocksOfAPassedDescriptorKeepQEMUOut(t *testing.T) {
	inDir(t)
	images(t)
	n, err := Open(Options{Filename: "b.qcow2", Format: "qcow2"})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(n.File.Image.(*raw.File).OSFile().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	args := []string{"qemu-io", "-f", "qcow2", "-c", "length", "b.qcow2"}
	if out, err := qemu(t, args...); err == nil || !strings.Contains(out, `Failed to get "write" lock`) {
		t.Errorf("while a copy is open: %s", out)
	}
	unix.Close(fd)
	mustQEMU(t, args...)
}
