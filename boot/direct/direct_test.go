package direct

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"berth/boot"
	"berth/boot/boottest"
	"berth/boot/linux"
	"berth/boot/pvh"
	"berth/tests/guest"
)

const mib = 1 << 20

// The bad kernels of every day: each error is one line.
func TestBadKernels(t *testing.T) {
	random := make([]byte, 100_000)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(random)
	bzImage, err := os.ReadFile(guest.Need(t).Kernel)
	if err != nil {
		t.Fatal(err)
	}
	multiboot := make([]byte, 100)
	binary.LittleEndian.PutUint32(multiboot[8:], 0x1badb002)
	binary.LittleEndian.PutUint32(multiboot[16:], 0xe4524ffe)
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	arm := []byte("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\xb7\x00" + strings.Repeat("\x00", 60))
	for _, c := range []struct {
		want string
		b    []byte
	}{
		{"empty file", nil},
		{"neither a bzImage nor an ELF kernel", random},
		{"neither a bzImage nor an ELF kernel", []byte("MZ")},
		{"the Multiboot kernel says nothing of where it goes, and: not an ELF file", multiboot},
		{"ELF file is not Linux and has neither a PVH note nor a Multiboot header: not a kernel", program},
		{"gzip-compressed file", []byte("\x1f\x8b\x08\x00")},
		{"ELF file is for machine 183, not for x86", arm},
		{"truncated inside its ELF header", []byte("\x7fELF\x02\x01")},
		{"bzImage is truncated: 1000000 of 14186432 bytes", bzImage[:1_000_000]},
		{"bzImage is truncated: 550 bytes are less than its header", bzImage[:550]},
	} {
		want := c.want
		if len(c.b) == 1_000_000 { // the newest kernel's size is its own
			want = want[:strings.Index(want, "14186432")]
		}
		_, err := Load(boottest.RAM(t, 64*mib), boot.Params{Kernel: boottest.Section(c.b)})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// vmlinux unpacks Debian's kernel into a file.
func vmlinux(t *testing.T) *boot.File {
	t.Helper()
	image, err := boot.OpenFile("kernel", guest.Need(t).Kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	u, err := linux.Payload(image.SectionReader, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	path := t.TempDir() + "/vmlinux"
	out, err := os.Create(path)
	if err == nil {
		_, err = io.Copy(out, io.NewSectionReader(u, 0, int64(u.Size())))
	}
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	f, err := boot.OpenFile("kernel", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestDebianVmlinux(t *testing.T) {
	f := vmlinux(t)
	e, err := Load(boottest.RAM(t, 64*mib), boot.Params{Kernel: f.SectionReader})
	if err != nil || e.Protocol != "linux64" {
		t.Fatalf("%+v, %v", e, err)
	}
	half := io.NewSectionReader(f, 0, f.Size()/2)
	if _, err := Load(boottest.RAM(t, 64*mib), boot.Params{Kernel: half}); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("half of it: %v", err)
	}
	// The same file is a PVH kernel too.
	elf, err := boot.ReadELF(f)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := elf.ReadNotes(f)
	if err != nil {
		t.Fatal(err)
	}
	entry, ok := boot.PVHEntry(notes)
	e, err = pvh.Load(boottest.RAM(t, 64*mib), boot.Params{Kernel: f.SectionReader})
	if err != nil || !ok || e.State.RIP != uint64(entry) {
		t.Errorf("PVH: note %v, %v", ok, err)
	}
}

// FuzzELF: a hostile ELF file is refused or loaded inside guest memory.
func FuzzELF(f *testing.F) {
	f.Fuzz(func(t *testing.T, image []byte) {
		mem := boottest.RAM(t, 4*mib)
		defer mem.Close()
		e, err := Load(mem, boot.Params{Kernel: boottest.Section(image), Initrd: boottest.Section([]byte("BZh9")), Cmdline: "quiet"})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
			return
		}
		if err := e.State.CheckVMXEntry(); err != nil {
			t.Error(err)
		}
		for _, p := range e.Placed {
			if _, err := mem.Slice(p.Addr, p.Size); err != nil {
				t.Errorf("%v: %v", p, err)
			}
		}
	})
}
