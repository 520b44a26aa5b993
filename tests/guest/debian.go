package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Who cloud-init makes of the seed of a Debian: the user may become root with sudo.
const (
	DebianHost     = "berth"
	DebianUser     = "debian"
	DebianPassword = "berth"
)

// DebianMemory is a Debian's RAM in bytes.
const DebianMemory = 1 << 30

// Debian is a Debian 12 on a disk, as its installation leaves it: with systemd,
// cloud-init, a getty on ttyS0, sshd, QEMU's guest agent, perl, python3, xz, stress-ng,
// iperf3 and socat. The files
// are shared: a boot works on a copy of the disk.
type Debian struct {
	Kernel string // bzImage
	Initrd string
	Append string // the kernel's command line, for a disk that is /dev/vda
	Disk   string // raw, 3 GiB, sparse
	Seed   string // raw, read-only: cloud-init's, the second disk
	Dir    string // where all of these lie
	// SHA-256 of /srv/numbers, 30 MB, and of what `xz -T4 -0 -c` there makes of it.
	Numbers, NumbersXZ string
}

const sumsFile = "SHA256SUMS"

// NeedDebian is FindDebian for a test, which fails if there is none.
func NeedDebian(t testing.TB) Debian {
	t.Helper()
	d, err := FindDebian()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// FindDebian makes a Debian if it is missing or out of date, which takes some
// minutes.
func FindDebian() (Debian, error) {
	if err := setup("--debian"); err != nil {
		return Debian{}, err
	}
	return DebianIn(filepath.Join(repository(), ".cache", "guest", "debian"))
}

// DebianIn is the Debian whose files lie in dir, as tests/guest/mkdebian made
// them. A disk need not be among them.
func DebianIn(dir string) (Debian, error) {
	d := Debian{
		Kernel: filepath.Join(dir, "vmlinuz"),
		Initrd: filepath.Join(dir, "initrd.img"),
		Append: "console=ttyS0 root=/dev/vda ro quiet systemd.show_status=1",
		Disk:   filepath.Join(dir, "disk.img"),
		Seed:   filepath.Join(dir, "seed.img"),
		Dir:    dir,
	}
	sums, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		return d, err
	}
	f := strings.Fields(string(sums))
	if len(f) != 4 || f[1] != "numbers" || f[3] != "numbers.xz" {
		return d, fmt.Errorf("%s in %s is not of numbers and numbers.xz", sumsFile, dir)
	}
	d.Numbers, d.NumbersXZ = f[0], f[2]
	return d, nil
}

// Files are all files but the disk: what DebianIn needs.
func (d Debian) Files() []string {
	return []string{d.Kernel, d.Initrd, d.Seed, filepath.Join(d.Dir, sumsFile)}
}

// CopyDisk writes a copy of the disk, as sparse as it is.
func (d Debian) CopyDisk(to string) error {
	if out, err := exec.Command("cp", "--sparse=always", d.Disk, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copying the disk: %w: %s", err, out)
	}
	return nil
}

// Flags are berth run's, for this Debian on that copy of its disk.
func (d Debian) Flags(disk string) []string {
	return []string{
		"--kernel", d.Kernel, "--initrd", d.Initrd, "--append", d.Append, "--memory", fmt.Sprint(DebianMemory >> 20),
		"--disk", "file=" + disk, "--disk", "file=" + d.Seed + ",readonly=on",
	}
}

// CheckDisk says what e2fsck finds wrong with a disk that a guest has shut down.
func CheckDisk(disk string) error {
	out, err := exec.Command("/sbin/e2fsck", "-fn", disk).CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("the file system on %s: %w", disk, err), errors.New(string(out)))
	}
	return nil
}
