package debian

import (
	"flag"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
	"berth/tests/process"
)

var stress = flag.Duration("debian.stress", 0, "how long stress-ng runs in TestStress")

// stressors are of the classes cpu, vm, atomic, fork, switch, mmap and signal.
// Those that need more than a kernel and a CPU are left out.
var stressors = []string{
	"--cpu 1", "--cpu-method all", "--matrix 1", "--vm 1", "--vm-bytes 64M", "--vm-method all", "--atomic 1", "--fork 1", "--switch 1", "--mmap 1", "--mmap-bytes 32M",
	"--signest 1", "--sigfpe 1", "--sigsegv 1", "--sigtrap 1", "--sigrt 1", "--sigpending 1", "--sigsuspend 1", "--sigfd 1", "--futex 1", "--mutex 1",
}

// TestStress has Debian's stress-ng verify what the engine's vCPUs compute, and
// watches that the monitor does not grow.
func TestStress(t *testing.T) {
	if *stress == 0 {
		t.Skip("-debian.stress")
	}
	d := find(t)
	for _, line := range d.boot(t, "stress-ng on "+*engine, berth(t), func(m *vm) error { return strain(t, m) }) {
		t.Errorf("the kernel warned: %s", line)
	}
}

// strain runs stress-ng twice: a short time, until the monitor has all it needs,
// and for as long as is asked for.
func strain(t *testing.T, m *vm) error {
	var before int64
	for _, long := range []time.Duration{*stress / 5, *stress} {
		size, err := process.Private(m.cmd.Process.Pid, guest.DebianMemory)
		if err != nil {
			return err
		}
		before = size
		command := fmt.Sprintf("stress-ng --verify --metrics-brief --oomable --timeout %.0fs %s; echo status=$?", long.Seconds(), strings.Join(stressors, " "))
		got, err := m.console.Run(command, long+stepLimit)
		if err != nil {
			return err
		}
		if !strings.Contains(got, "status=0\n") || regexp.MustCompile(`(?m)^stress-ng: (fail|error)`).MatchString(got) {
			return fmt.Errorf("stress-ng: %s", got)
		}
		t.Logf("%.0f s:\n%s", long.Seconds(), got)
	}
	after, err := process.Private(m.cmd.Process.Pid, guest.DebianMemory)
	if err != nil {
		return err
	}
	const mib = 1 << 20
	t.Logf("private memory beyond the guest's RAM: %.1f MiB before, %.1f MiB after", float64(before)/mib, float64(after)/mib)
	if after > before+before/4+8*mib {
		return fmt.Errorf("the monitor grew from %.1f MiB to %.1f MiB", float64(before)/mib, float64(after)/mib)
	}
	return nil
}
