// Package hostile runs guests that do their worst with everything that a guest can reach, on every engine.
package hostile

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	outer "berth/tests/nested"

	"berth/tests/process"
)

var (
	each   = flag.Duration("hostile.each", 4*time.Second, "how long each program runs")
	seed   = flag.Uint64("hostile.seed", 0, "seed of the first VM; 0: by chance")
	nested = flag.Bool("hostile.nested", false, "run on a real KVM in an outer guest, too")
)

const root = "../.."

// programs are what the vCPUs of a VM do, in turn (guest/lib.c has the names).
var programs = []string{
	"ports", "mmio", "msr", "code", "virtio", "virtio,race", "irq", "timer", "reset", "fault", "all", "all,irq,race,code",
}

// guest builds the hostile guest.
func guest(t *testing.T) string {
	t.Helper()
	elf := filepath.Join(t.TempDir(), "hostile.elf")
	if out, err := exec.Command("./build", elf).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return elf
}

// build makes a program; race is with Go's race detector, which needs cgo.
func build(t *testing.T, pkg string, race bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	args, cgo := []string{"build", "-o", path, pkg}, "CGO_ENABLED=0"
	if race {
		args, cgo = []string{"build", "-race", "-o", path, pkg}, "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// first returns the seed of a test's first VM.
func first() uint64 {
	if *seed != 0 {
		return *seed
	}
	return uint64(rand.Uint32())
}

// run runs the monitor, which judges itself; here is judged that it does not die
// of it, ends, and says nothing on standard error.
func run(t *testing.T, monitor, elf string, slow time.Duration, args ...string) {
	t.Helper()
	args = append([]string{
		"-kernel", elf, "-dir", t.TempDir(), "-seed", fmt.Sprint(first()), "-time", each.String(),
		"-patience", (30 * time.Second * slow).String(), fmt.Sprintf("-long=%t", *each > 40*time.Second),
	}, args...)
	ctx, cancel := context.WithTimeout(t.Context(), *each+5*time.Minute*slow)
	defer cancel()
	cmd := exec.CommandContext(ctx, monitor, args...)
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1", "GOTRACEBACK=all")
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGQUIT) } // Go tells where everybody is
	cmd.WaitDelay = 10 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("%s: %v\n%s\n%s", strings.Join(args, " "), err, tail(out.String(), 2000), errs.String())
	}
	t.Log(summary(out.String()))
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// summary is how the VMs ended.
func summary(out string) string {
	var b strings.Builder
	for l := range strings.Lines(out) {
		if strings.HasPrefix(l, "end ") || strings.HasPrefix(l, "ran ") {
			b.WriteString("\n" + strings.TrimSpace(l))
		}
	}
	return b.String()
}

func TestSoft(t *testing.T) {
	elf, monitor := guest(t), build(t, "./tests/hostile/monitor", false)
	for _, p := range programs {
		t.Run(p, func(t *testing.T) { run(t, monitor, elf, 1, "-do", p) })
	}
}

// TestSoftRace is TestSoft under Go's race detector, with several vCPUs. It sees
// what the monitor does with its own memory; guest memory is not Go's.
func TestSoftRace(t *testing.T) {
	elf, monitor := guest(t), build(t, "./tests/hostile/monitor", true)
	some := []string{"all,irq,race,virtio"}
	if *each > 40*time.Second {
		some = programs
	}
	for _, p := range some {
		t.Run(p, func(t *testing.T) { run(t, monitor, elf, 4, "-do", p, "-cpus", "4") })
	}
}

// TestKVM needs a KVM on this host. What fails inside KVM ends the VM with KVM's
// own words and is no failure of berth's.
func TestKVM(t *testing.T) {
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil {
		t.Skip("no /dev/kvm")
	}
	elf, monitor := guest(t), build(t, "./tests/hostile/monitor", false)
	for _, p := range programs {
		t.Run(p, func(t *testing.T) { run(t, monitor, elf, 1, "-do", p, "-accel", "kvm") })
	}
}

// TestNestedKVM runs on a real KVM, whose SVM is emulated by the outer machine.
func TestNestedKVM(t *testing.T) {
	if !*nested {
		t.Skip("-hostile.nested")
	}
	elf, monitor := guest(t), build(t, "./tests/hostile/monitor", false)
	for _, p := range programs {
		t.Run(p, func(t *testing.T) {
			// As long as one that lives, and the outer machines that died.
			for end := time.Now().Add(3 * *each); ; {
				out, died := nestedMonitor(t, elf, monitor, p)
				if !died {
					t.Log(summary(out))
					return
				}
				if time.Now().After(end) {
					return
				}
			}
		})
	}
}

// qemuDeath is what the outer machine's QEMU leaves behind.
var qemuDeath = regexp.MustCompile(`(?m)^qemu: fatal: .*|^Bail out! ERROR:\.\./\.\./accel/tcg/.*|(Aborted|Segmentation fault) .*qemu-system`)

// nestedMonitor runs a monitor in an outer machine and returns what it said. died:
// QEMU itself has ended at what a guest did, as TCG does by design (cpu_abort) at
// some states that a CPU would fault on; a real CPU takes no host down with it. That
// says nothing against the VMs before, nor for the last one.
func nestedMonitor(t *testing.T, elf, monitor, programs string) (out string, died bool) {
	t.Helper()
	limit := int((*each + 6*time.Minute).Seconds())
	inside := fmt.Sprintf("monitor -accel kvm -tcg -kernel hostile.elf -dir /tmp -seed %d -time %s -patience 2m -do %s", first(), each, programs)
	_, out, errs, err := outer.Run(func() *exec.Cmd {
		return exec.Command(filepath.Join(root, "tests/nested/nested"), "-c", "1", "-m", "3072", "-t", fmt.Sprint(limit),
			"-f", monitor, "-f", elf, "--", inside)
	}, t.Logf)
	if err == nil {
		return out, false
	}
	if why := qemuDeath.FindString(errs); why != "" {
		t.Logf("%s\n%s\nQEMU: %s", inside, tail(out, 300), why)
		return out, true
	}
	t.Fatalf("%s: %v\n%s", inside, err, tail(out+errs, 8000))
	return "", false
}

// TestSecondSignalAlwaysStops is about the product's own binary: whatever the
// guest does, the second signal ends it with status 16, and soon. A guest that its
// own random DMA has wrecked may be gone before: by a triple fault, or, as in the
// other tests here, by a jump to where there is no memory.
func TestSecondSignalAlwaysStops(t *testing.T) {
	elf, berth := guest(t), build(t, "./cmd/berth", false)
	for _, p := range []string{"ports", "mmio", "msr", "virtio,race", "irq", "timer"} {
		t.Run(p, func(t *testing.T) {
			s := first()
			cmd := exec.Command(berth, "run", "--accel", "soft", "--cpus", "2", "--memory", "64M", "--kernel", elf,
				"--append", fmt.Sprintf("seed=%d cpus=2 ends=0 tcg=0 do=%s", s, p))
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := process.Tie(cmd).Start(); err != nil {
				t.Fatal(err)
			}
			// The guest's first line says that it, and berth's signal handler, are there.
			// One that wrecks itself before has none.
			_, silent := out.Read(make([]byte, 1))
			go func() { _, _ = io.Copy(io.Discard, out) }()
			time.Sleep(time.Second)
			for range 2 { // apart, or they become one
				_ = cmd.Process.Signal(unix.SIGTERM)
				time.Sleep(200 * time.Millisecond)
			}
			hung := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Signal(unix.SIGABRT) })
			defer hung.Stop()
			err = cmd.Wait()
			wrecked := strings.Contains(errs.String(), "not implemented: executing code outside memory")
			var exit *exec.ExitError
			if silent != nil && errors.As(err, &exit) && exit.ExitCode() == 16 {
				t.Errorf("seed %d: the guest is silent: %v", s, silent)
			}
			if !errors.As(err, &exit) || exit.ExitCode() != 16 && exit.ExitCode() != 10 && !wrecked {
				t.Errorf("seed %d: %v\n%s", s, err, tail(errs.String(), 20000))
			}
		})
	}
}
