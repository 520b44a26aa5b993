package nested

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"berth/tests/guest"
)

var (
	runs   = flag.Int("nested.runs", 1, "boots of each number of vCPUs")
	debian = flag.Int("nested.debian", 0, "boots of a whole Debian, of ten minutes each")
)

const root = "../.."

// outer is what an outer guest has. Its one CPU is enough: QEMU's TCG runs no faster with two.
type outer struct {
	seconds int
	mib     int
	files   []string // FILE or FILE:PATH
	disks   []string // raw: /dev/vda and on
}

// run runs a command line under the real KVM.
func (o outer) run(t *testing.T, command string) string {
	t.Helper()
	args := []string{"-c", "1", "-m", fmt.Sprint(o.mib), "-t", fmt.Sprint(o.seconds)}
	for _, f := range o.files {
		args = append(args, "-f", f)
	}
	for _, d := range o.disks {
		args = append(args, "-d", d)
	}
	args = append(args, "--", command)
	_, out, errs, err := Run(func() *exec.Cmd { return exec.Command("./nested", args...) }, t.Logf)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	return out
}

// build makes a static binary of pkg in the test's own folder.
func build(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", append(args[:len(args)-1:len(args)-1], "-o", path, args[len(args)-1])...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func setup(t *testing.T) {
	t.Helper()
	cmd := exec.Command(filepath.Join(root, "tests/guest/setup"), "--test")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("tests/guest/setup: %v", err)
	}
}

// TestKVMSuite runs package accel/kvm's own tests there.
func TestKVMSuite(t *testing.T) {
	setup(t)
	suite := build(t, "kvm.test", "test", "-c", "./accel/kvm")
	out := outer{seconds: 600, mib: 2048, files: []string{suite}}.run(t, "kvm.test -test.v -test.timeout 9m")
	if !strings.Contains(out, "\nPASS") {
		t.Fatal(out)
	}
	t.Logf("%d tests passed", strings.Count(out, "--- PASS"))
}

// TestDebianBoots boots Debian's kernel to userland with 1, 2, 4 and 8 vCPUs and a
// disk that it writes and reads back.
func TestDebianBoots(t *testing.T) {
	setup(t)
	guest := filepath.Join(root, ".cache/guest")
	files := []string{build(t, "berth", "build", "./cmd/berth")}
	for _, name := range []string{"vmlinuz", "initrd.img", "disk.img"} {
		files = append(files, filepath.Join(guest, name))
	}
	// Each VM says what it did; its status is 0 only after a clean power-off.
	const boot = `for n in 1 2 4 8; do for i in $(seq %d); do
cp disk.img /tmp/disk
timeout -s KILL 600 berth run --accel kvm --cpus $n --kernel vmlinuz --initrd initrd.img --memory 512M --debug-exit \
  --disk file=/tmp/disk --append "console=ttyS0 quiet berth.script=smp,demo" || exit
echo "BOOTED $n"
done; done`
	out := outer{seconds: 600 + *runs*900, mib: 2048, files: files}.run(t, fmt.Sprintf(boot, *runs))
	for _, n := range []int{1, 2, 4, 8} {
		for _, line := range []string{fmt.Sprintf("BERTH-CPUS %d", n), fmt.Sprintf("BOOTED %d", n)} {
			if got := strings.Count(out, line+"\n"); got != *runs {
				t.Errorf("%d times %q, want %d", got, line, *runs)
			}
		}
	}
	if got := strings.Count(out, "BERTH-DEMO ok"); got != 4**runs {
		t.Errorf("%d of %d disks written and read back", got, 4**runs)
	}
	if t.Failed() {
		t.Log(out)
	}
}

// TestNetwork has two guests at either end of a stream, one on each board, the other
// with two pairs of queues.
func TestNetwork(t *testing.T) {
	setup(t)
	guest := filepath.Join(root, ".cache/guest")
	files := []string{build(t, "berth", "build", "./cmd/berth"), filepath.Join(guest, "vmlinuz"), filepath.Join(guest, "initrd.img")}
	const pair = `run() { timeout -s KILL 400 berth run --accel kvm --kernel vmlinuz --initrd initrd.img --memory 256M "$@"; }
run --machine microvm --nic stream,server=on,addr.path=/tmp/cable --append "console=ttyS0 quiet berth.script=peer berth.ip=10.0.0.1/24" >/tmp/first &
sleep 2
run --cpus 2 --nic stream,reconnect=1,addr.path=/tmp/cable,queues=2 --append "console=ttyS0 quiet berth.script=peer berth.ip=10.0.0.2/24 berth.peer=10.0.0.1"
wait
cat /tmp/first`
	out := outer{seconds: 900, mib: 1536, files: files}.run(t, pair)
	for _, want := range []string{"BERTH-PEER ok", "BERTH-PEER served", "BERTH-PEER interrupts of 4 queues"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	t.Log(out)
}

// TestDoctor has berth doctor find KVM there, and what is wrong once its module is gone.
func TestDoctor(t *testing.T) {
	setup(t)
	berth := build(t, "berth", "build", "./cmd/berth")
	out := outer{seconds: 300, mib: 1024, files: []string{berth}}.run(t, "berth doctor && rmmod kvm_amd && echo GONE && berth doctor")
	with, without, _ := strings.Cut(out, "GONE\n")
	for _, want := range []struct{ report, line string }{
		{with, "ok    ordinary guests           a probe guest ran every instruction tried"},
		{with, "ok    hardware virtualization   AMD-V (svm) on "},
		{with, "ok    nested paging             npt"},
		{with, "ok    VMs inside guests         allowed: kvm_amd.nested=1"},
		{with, "takes kvm: it runs ordinary guests"},
		{without, "fail  device                    KVM is not present"},
		{without, "warn  hardware virtualization   AMD-V (svm) is there, but /dev/kvm is not"},
		{without, "takes soft: "},
	} {
		if !strings.Contains(want.report, want.line) {
			t.Errorf("no %q in\n%s", want.line, want.report)
		}
	}
}

// TestDebian boots a whole Debian from its disk and puts it through its paces,
// as package tests/debian does it on soft.
func TestDebian(t *testing.T) {
	if *debian == 0 {
		t.Skip("-nested.debian")
	}
	d := guest.NeedDebian(t)
	suite, berth := build(t, "debian.test", "test", "-c", "./tests/debian"), build(t, "berth", "build", "./cmd/berth")
	for i := range *debian {
		disk := filepath.Join(t.TempDir(), "disk.img")
		if err := d.CopyDisk(disk); err != nil {
			t.Fatal(err)
		}
		o := outer{seconds: 3600, mib: 4096, files: append(d.Files(), suite, berth), disks: []string{disk}}
		out := o.run(t, "debian.test -test.v -test.run TestDebian -test.timeout 58m -debian.accel kvm -debian.berth ./berth -debian.files . -debian.disk /dev/vda")
		if !strings.Contains(out, "\nPASS") {
			t.Fatal(out)
		}
		if err := guest.CheckDisk(disk); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(disk); err != nil {
			t.Fatal(err)
		}
		t.Logf("boot %d of %d: %s", i+1, *debian, regexp.MustCompile(`prompt after .*`).FindString(out))
	}
}
