package debian

import (
	_ "embed"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/tests/guest"
	"berth/tests/process"
)

var soak = flag.Duration("debian.soak", 0, "how long the guest works in TestSoak")

// churn is what the guest runs, beside stress-ng; the host runs it once for the answer.
//
//go:embed testdata/churn.sh
var churn string

var churned = regexp.MustCompile(`(?m)^(\d+) programs, the first is ([0-9a-f]{64})$`)

// TestSoak has a Debian make "programs" of small processes as a kernel's build does,
// while stress-ng verifies what it computes, in a berth whose garbage is collected every
// ten milliseconds and whose CPU is profiled. Nothing may crash, no answer may be wrong
// and the monitor's memory may not grow.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("-debian.soak")
	}
	d := find(t)
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := d.CopyDisk(disk); err != nil {
		t.Fatal(err)
	}
	m := start(t, harried(t)(d.Debian, disk))
	var r record
	err := m.login(&r)
	if err == nil {
		err = m.soak(t, rightSum(t))
	}
	if err == nil {
		err = m.shutDown(&r)
	}
	if err == nil {
		err = guest.CheckDisk(disk)
	}
	if err != nil {
		t.Fatalf("after %.0f CPU-seconds (%.0f s): %v\nIts console:\n%s\nIts standard error:\n%s", m.cpu(), time.Since(m.started).Seconds(), err, m.console.Said(), m.errs.String())
	}
	for _, line := range r.warnings {
		t.Errorf("the kernel warned: %s", line)
	}
	t.Logf("all done after %.0f CPU-seconds (%.0f s); the monitor said:\n%s", m.cpu(), time.Since(m.started).Seconds(), m.errs.String())
	if !regexp.MustCompile(`harried by [1-9]\d* collections and [1-9]\d* profiles`).MatchString(m.errs.String()) {
		t.Error("nothing harried it")
	}
}

// harried is berth as the tests of cmd/berth can run it: see there.
func harried(t *testing.T) vmm {
	t.Helper()
	path := filepath.Join(t.TempDir(), "harried") // the name tells it what to be
	cmd := exec.Command("go", "test", "-c", "-o", path, "./cmd/berth")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return func(d guest.Debian, disk string) *exec.Cmd {
		args := append([]string{"run", "-v", "--accel", *engine, "--cpus", fmt.Sprint(*cpus)}, d.Flags(disk)...)
		return exec.Command(path, args...)
	}
}

// rightSum is the sum of churn's program, made natively.
func rightSum(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", churn, "churn.sh", "2", "1", "9999999999").Output()
	found := churned.FindSubmatch(out)
	if err != nil || found == nil || string(found[1]) != "1" {
		t.Fatalf("churn.sh on the host: %v: %s", err, out)
	}
	return string(found[2])
}

// soak has the guest work while the monitor's memory is watched. What it has grown to
// after a fifth of the time is all that it needs.
func (m *vm) soak(t *testing.T, sum string) error {
	if err := m.send(churn, "churn.sh"); err != nil {
		return err
	}
	if err := m.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	done := make(chan struct{})
	sizes := m.watchMemory(t, done)
	seconds := int(soak.Seconds())
	got, err := m.console.Run(fmt.Sprintf("{ stress-ng --verify --metrics-brief --oomable --timeout %ds %s; echo status=$?; } >stress.log 2>&1 & "+
		"sh churn.sh %d 0 $(($(date +%%s) + %d)); wait $!; cat stress.log", seconds, strings.Join(stressors, " "), *cpus, seconds), *soak+stepLimit)
	close(done)
	all := <-sizes
	if err != nil {
		return err
	}
	t.Logf("%s:\n%s", *soak, got)
	if !strings.Contains(got, "status=0\n") || regexp.MustCompile(`(?m)^stress-ng: (fail|error)`).MatchString(got) {
		return errors.New("stress-ng has failed")
	}
	if found := churned.FindStringSubmatch(got); found == nil || found[2] != sum || regexp.MustCompile(`(?m)^program \d`).MatchString(got) {
		return fmt.Errorf("churn.sh's programs are not all %s", sum)
	}
	settled := all[len(all)/5:]
	if before, after := settled[0], slices.Max(settled); after > before+before/4+8<<20 {
		return fmt.Errorf("the monitor grew from %d to %d MiB", before>>20, after>>20)
	}
	return nil
}

// send writes a file in the guest, by lines that a terminal takes.
func (m *vm) send(text, name string) error {
	encoded := base64.StdEncoding.EncodeToString([]byte(text))
	for line := range slices.Chunk([]byte(encoded), 1000) {
		if _, err := m.console.Run(fmt.Sprintf("echo %s >>%s.base64", line, name), stepLimit); err != nil {
			return err
		}
	}
	_, err := m.console.Run(fmt.Sprintf("base64 -d %s.base64 >%s", name, name), stepLimit)
	return err
}

// watchMemory measures the monitor's private memory every minute, and at the end, until
// done is closed; then it delivers all that it has measured.
func (m *vm) watchMemory(t *testing.T, done <-chan struct{}) <-chan []int64 {
	sizes := make(chan []int64, 1)
	go func() {
		began, tick := time.Now(), time.NewTicker(min(time.Minute, *soak/10))
		defer tick.Stop()
		var all []int64
		for over := false; !over; {
			size, err := process.Private(m.cmd.Process.Pid, guest.DebianMemory)
			if err != nil {
				t.Errorf("the monitor's memory: %v", err)
				break
			}
			all = append(all, size)
			t.Logf("after %4.0f s: %.1f MiB beside the guest's RAM, %.0f CPU-seconds", time.Since(began).Seconds(), float64(size)/(1<<20), m.cpu())
			select {
			case <-done:
				over = true
			case <-tick.C:
			}
		}
		sizes <- all
	}()
	return sizes
}
