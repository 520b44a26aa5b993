package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"berth/tests/process"
)

// start is one run of a tiny guest, from the start of the process to its end,
// which the guest's second instruction brings about.
type start struct {
	CPU  float64 // user and system time, ms
	Wall float64 // ms
}

// boot is one boot of Debian's kernel to its shell's prompt.
type boot struct {
	CPU    float64           // CPU-seconds to userland
	Exits  map[string]uint64 // KVM's counts from the start to userland; nil: not on KVM
	Memory int64             // private, outside guest RAM, after idleFor; bytes
	Idle   float64           // CPU time at the prompt, % of a core
}

const (
	userland = "This is Linux" // tests/guest/init says it
	prompt   = "~ # "
	settle   = 5 * time.Second  // from the prompt on, before the idle CPU time is taken
	idleFor  = 20 * time.Second // 0.05% is one tick of the CPU clock
)

// measureStart runs the tiny guest once.
func (v *vmm) measureStart(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, v.start[0], v.start[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	begin := time.Now()
	err := cmd.Run()
	wall := time.Since(begin)
	if cmd.ProcessState == nil {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != exitStatus {
		return fmt.Errorf("ended with status %d, not with the tiny guest's %d: %s", got, exitStatus, said.String())
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	v.Starts = append(v.Starts, start{CPU: milliseconds(cpu), Wall: milliseconds(wall)})
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// measureBoot boots Debian's kernel once.
func (v *vmm) measureBoot(engine string, limit time.Duration) error {
	r, err := process.Start(limit, v.boot[0], v.boot[1:]...)
	if err != nil {
		return err
	}
	b, err := watch(r.PID(), r.Stdout, engine)
	r.Kill()
	if err != nil {
		return fmt.Errorf("%w: %s", err, r.Errors())
	}
	v.Boots = append(v.Boots, b)
	return nil
}

// watch takes a boot's figures as the console says how far it is.
func watch(pid int, console io.Reader, engine string) (b boot, err error) {
	if err = await(console, userland); err != nil {
		return b, err
	}
	if b.CPU, err = process.CPUSeconds(pid); err != nil {
		return b, err
	}
	if engine == "kvm" {
		if b.Exits, err = kvmExits(pid); err != nil {
			return b, err
		}
	}
	if err = await(console, prompt); err != nil {
		return b, err
	}
	go func() { _, _ = io.Copy(io.Discard, console) }() // ends with the process
	time.Sleep(settle)
	before, err := process.CPUSeconds(pid)
	if err != nil {
		return b, err
	}
	begin := time.Now()
	time.Sleep(idleFor)
	after, err := process.CPUSeconds(pid)
	if err != nil {
		return b, err
	}
	b.Idle = (after - before) / time.Since(begin).Seconds() * 100
	const ramBytes = 512 << 20
	b.Memory, err = process.Private(pid, ramBytes)
	return b, err
}

// await reads until text has passed by.
func await(r io.Reader, text string) error {
	var seen []byte
	p := make([]byte, 1)
	for {
		if _, err := r.Read(p); err != nil {
			return fmt.Errorf("the console ended without %q (%w), its end: %q", text, err, tail(seen))
		}
		seen = append(seen, p[0])
		if bytes.HasSuffix(seen, []byte(text)) {
			return nil
		}
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-500):] }

// kvmExits reads what KVM counts of a process's VM and its vCPUs
// (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD; debugfs shows the same).
func kvmExits(pid int) (map[string]uint64, error) {
	const root = "/sys/kernel/debug/kvm"
	vms, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var dir string
	for _, vm := range vms {
		if strings.HasPrefix(vm.Name(), fmt.Sprintf("%d-", pid)) {
			dir = root + "/" + vm.Name()
		}
	}
	if dir == "" {
		return nil, fmt.Errorf("%s knows no VM of process %d", root, pid)
	}
	counts := map[string]uint64{}
	for _, name := range kvmCounts() {
		text, err := os.ReadFile(dir + "/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue // another kernel version's
		}
		if err != nil {
			return nil, err
		}
		var n uint64
		if _, err := fmt.Sscan(string(text), &n); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		counts[name] = n
	}
	return counts, nil
}

// kvmCounts names the counts of exits, all of them first, then those of a kind.
// Those that only say why the host's side took long are left out.
func kvmCounts() []string {
	return []string{"exits", "io_exits", "mmio_exits", "halt_exits", "irq_exits", "irq_window_exits", "nmi_window_exits",
		"signal_exits", "request_irq_exits", "hypercalls", "invlpg", "pf_taken", "insn_emulation"}
}
