package debian

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
	"berth/tests/process"
)

var (
	runs    = flag.Int("debian.runs", 1, "boots of Debian")
	peer    = flag.Bool("debian.peer", false, "boot it on QEMU's TCG first, to compare")
	engine  = flag.String("debian.accel", "soft", "engine that runs it")
	cpus    = flag.Int("debian.cpus", 1, "vCPUs")
	program = flag.String("debian.berth", "", "the berth to run, instead of a new one from the sources")
	files   = flag.String("debian.files", "", "folder of the guest's files, instead of the cache")
	idle    = flag.Duration("debian.idle", 10*time.Second, "for how long an idle Debian is watched")
	disk    = flag.String("debian.disk", "", "boot this disk itself, instead of a copy of the guest's")
)

// Everything has to be done within these, on a host that has other work too.
const (
	bootLimit = 30 * time.Minute
	stepLimit = 20 * time.Minute
)

// TestDebian boots Debian to its prompt, as often as -debian.runs says, lets it
// compute things of known result and shut down; the disk is then without fault.
func TestDebian(t *testing.T) {
	d := find(t)
	if *peer {
		for _, line := range d.boot(t, "QEMU TCG", qemu, d.paces) {
			t.Logf("the kernel warns QEMU's user: %s", line)
		}
	}
	berth := berth(t)
	for i := range *runs {
		for _, line := range d.boot(t, fmt.Sprintf("boot %d of %d on %s", i+1, *runs, *engine), berth, d.paces) {
			t.Errorf("the kernel warned: %s", line)
		}
	}
}

// find returns the guest and how it is to be booted.
func find(t *testing.T) debian {
	t.Helper()
	if *files == "" {
		return debian{guest.NeedDebian(t)}
	}
	d, err := guest.DebianIn(*files)
	if err != nil {
		t.Fatal(err)
	}
	return debian{d}
}

type debian struct{ guest.Debian }

// vmm makes the command that runs a Debian on a disk.
type vmm func(d guest.Debian, disk string) *exec.Cmd

// berth returns berth as a vmm.
func berth(t *testing.T) vmm {
	t.Helper()
	path := *program
	if path == "" {
		path = filepath.Join(t.TempDir(), "berth")
		cmd := exec.Command("go", "build", "-o", path, "./cmd/berth")
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return func(d guest.Debian, disk string) *exec.Cmd {
		args := append([]string{"run", "--accel", *engine, "--cpus", fmt.Sprint(*cpus)}, d.Flags(disk)...)
		return exec.Command(path, args...)
	}
}

// qemu is QEMU's own emulation of the same machine.
func qemu(d guest.Debian, disk string) *exec.Cmd {
	return exec.Command("qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "Nehalem", "-m", "1G",
		"-smp", fmt.Sprint(*cpus), "-nodefaults", "-display", "none", "-serial", "stdio",
		"-kernel", d.Kernel, "-initrd", d.Initrd, "-append", d.Append,
		"-drive", "if=virtio,format=raw,file="+disk, "-drive", "if=virtio,format=raw,readonly=on,file="+d.Seed,
		"-device", "virtio-rng-pci")
}

// boot runs one VM from power-on over work to power-off and returns its kernel's warnings.
func (d debian) boot(t *testing.T, title string, vmm vmm, work func(*vm) error) (warnings []string) {
	t.Helper()
	copied := *disk
	if copied == "" {
		copied = filepath.Join(t.TempDir(), "disk.img")
		if err := d.CopyDisk(copied); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(copied)
	}
	m := start(t, vmm(d.Debian, copied))
	var r record
	err := m.login(&r)
	if err == nil {
		err = work(m)
	}
	if err == nil {
		err = m.shutDown(&r)
	}
	if err == nil && *disk == "" {
		err = guest.CheckDisk(copied)
	}
	if err != nil {
		t.Fatalf("%s: after %.0f CPU-seconds (%.0f s): %v\nIts console:\n%s\nIts standard error:\n%s", title, m.cpu(), time.Since(m.started).Seconds(), err, m.console.Said(), m.errs.String())
	}
	t.Logf("%s: prompt after %.0f CPU-seconds (%.0f s), all done after %.0f CPU-seconds (%.0f s), idle %.2f%% of a core", title,
		r.login.cpu, r.login.elapsed.Seconds(), m.cpu(), time.Since(m.started).Seconds(), r.idle*100)
	return r.warnings
}

// vm is a VM that runs.
type vm struct {
	cmd     *exec.Cmd
	console *guest.Console
	errs    bytes.Buffer
	started time.Time
}

// start starts a VM, which the test's end kills if it is there still.
func start(t *testing.T, cmd *exec.Cmd) *vm {
	t.Helper()
	m := &vm{cmd: cmd, started: time.Now()}
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &m.errs
	if err := process.Tie(cmd).Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	m.console = guest.NewConsole(screen, keys)
	return m
}

// wait waits for the VM to power off, and fails unless it is content.
func (m *vm) wait() error {
	if err := m.console.ExpectEnd(stepLimit); err != nil {
		return fmt.Errorf("powering off: %w", err)
	}
	if err := m.cmd.Wait(); err != nil {
		return fmt.Errorf("powered off: %w", err)
	}
	return nil
}

// cpu is the CPU-seconds that the VM has used.
func (m *vm) cpu() float64 {
	if s := m.cmd.ProcessState; s != nil {
		return (s.UserTime() + s.SystemTime()).Seconds()
	}
	s, _ := process.CPUSeconds(m.cmd.Process.Pid)
	return s
}

// moment is when something had happened.
type moment struct {
	cpu     float64
	elapsed time.Duration
}

// record is what is of interest of a boot that went well.
type record struct {
	login    moment   // its prompt appeared
	idle     float64  // cores used while nothing happens
	warnings []string // of the kernel
}

// login waits until Debian is up, logs in and sees how much an idle Debian costs.
func (m *vm) login(r *record) error {
	c := m.console
	if _, _, err := c.Expect("\n"+guest.DebianHost+" login: ", bootLimit); err != nil {
		return err
	}
	r.login = moment{m.cpu(), time.Since(m.started)}
	// The prompt comes before cloud-init is done, which talks to the console too.
	if _, _, err := c.Expect(`Cloud-init .* finished at`, bootLimit); err != nil {
		return err
	}
	if err := c.Login(guest.DebianUser, guest.DebianPassword, stepLimit); err != nil {
		return err
	}
	if err := settled(c); err != nil {
		return err
	}
	before := m.cpu()
	time.Sleep(*idle)
	r.idle = (m.cpu() - before) / idle.Seconds()
	return nil
}

// shutDown reads the kernel's warnings and has the guest power off.
func (m *vm) shutDown(r *record) (err error) {
	if r.warnings, err = warnings(m.console); err != nil {
		return err
	}
	if err := m.console.Type("sudo systemctl poweroff\n"); err != nil {
		return err
	}
	return m.wait()
}

// paces has the guest do what it must be able to do.
func (d debian) paces(m *vm) error {
	for _, q := range d.questions() {
		got, err := m.console.Run(q.command, stepLimit)
		if err != nil {
			return err
		}
		if !strings.Contains(got, q.answer) {
			return fmt.Errorf("%s: %q, which does not contain %q", q.command, got, q.answer)
		}
	}
	return nil
}

// question is a command and what must be in its output.
type question struct{ command, answer string }

func (d debian) questions() []question {
	return []question{
		{"nproc", fmt.Sprintf("%d\n", *cpus)},
		{"hostname", guest.DebianHost + "\n"},
		{"cloud-init status", "status: done\n"},
		{"apt-get --version", "apt 2.6"},
		{`perl -e 'my $s = 0; $s += $_ * $_ for 1 .. 100000; printf "%d %.15g %.15g\n", $s, exp(1), atan2(1, 1) * 4'`,
			"333338333350000 2.71828182845905 3.14159265358979\n"},
		// 1000! has 2568 digits, which sum up to 10539.
		{`python3 -c 'import math; s = str(math.factorial(1000)); print(len(s), sum(map(int, s)), math.fsum([0.1] * 10), 0.1 + 0.2, math.sqrt(2))'`,
			"2568 10539 1.0 0.30000000000000004 1.4142135623730951\n"},
		{"sha256sum /srv/numbers", d.Numbers + "  /srv/numbers\n"},
		{"xz -T4 -0 -c /srv/numbers >numbers.xz; sha256sum <numbers.xz; xz -dc numbers.xz | cmp - /srv/numbers && echo same",
			d.NumbersXZ + "  -\nsame\n"},
	}
}

// settled waits until systemd has started everything, and fails if a unit has failed.
func settled(c *guest.Console) error {
	state, err := c.Run("systemctl is-system-running --wait || true", stepLimit)
	// cloud-init talks to the console too.
	if err != nil || strings.HasSuffix("\n"+state, "\nrunning\n") {
		return err
	}
	units, _ := c.Run("systemctl --failed --no-pager --full; systemctl --failed --plain --no-legend | while read -r unit _; do systemctl status --no-pager $unit; done", stepLimit)
	return fmt.Errorf("the system is not running as it should:\n%s%s", state, units)
}

// warnings returns what the kernel warned of and testdata/warnings.txt does not name.
func warnings(c *guest.Console) (odd []string, err error) {
	said, err := c.Run("sudo dmesg --notime --level=emerg,alert,crit,err,warn", stepLimit)
	if err != nil {
		return nil, err
	}
	isKnown := func(line string) bool {
		return slices.ContainsFunc(strings.Split(known, "\n"), func(k string) bool {
			return k != "" && !strings.HasPrefix(k, "#") && strings.HasPrefix(line, k)
		})
	}
	// A warning with a trace of calls is known by its second line.
	said = regexp.MustCompile(`(?ms)^-+\[ cut here \]-+\r?\n(.*?)\r?\n.*?^---\[ end trace .*?$`).ReplaceAllString(said, "$1")
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" && !isKnown(line) {
			odd = append(odd, line)
		}
	}
	return odd, nil
}

//go:embed testdata/warnings.txt
var known string
