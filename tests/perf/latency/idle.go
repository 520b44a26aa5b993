package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"time"

	"berth/tests/process"
)

// prompt is what the guest's init says before it gives a shell.
const prompt = "'exit' powers the machine off."

// settle is how long a guest at its prompt still has things to finish.
const settle = 5 * time.Second

// idle boots Debian's kernel to its prompt on berth's soft engine and on QEMU's TCG
// and prints what the monitor takes of a CPU in the time that follows.
func idle(dir string, during, limit time.Duration, out io.Writer) error {
	kernel, initrd := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd.img")
	const cmdline = "console=ttyS0 quiet"
	fmt.Fprintf(out, "\n%-56s %-14s %8s\n", "one vCPU at Debian's prompt for "+during.String(), "", "% of CPU")
	for _, e := range []struct {
		name string
		args []string
	}{
		{"berth soft", []string{"./berth", "run", "--accel", "soft", "--memory", "512M", "--kernel", kernel, "--initrd", initrd, "--append", cmdline}},
		{"QEMU TCG", []string{"qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "Nehalem", "-m", strconv.Itoa(512), "-nodefaults",
			"-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", cmdline}},
	} {
		percent, err := idleCPU(e.args, during, limit)
		if err != nil {
			return fmt.Errorf("idle %s: %w", e.name, err)
		}
		fmt.Fprintf(out, "%-56s %-14s %8.2f\n", "", e.name, percent)
	}
	return nil
}

// idleCPU runs a guest until it has been idle for a while, and ends it.
func idleCPU(args []string, during, limit time.Duration) (percent float64, err error) {
	r, err := process.Start(limit, args[0], args[1:]...)
	if err != nil {
		return 0, err
	}
	defer r.Kill()
	lines := bufio.NewScanner(r.Stdout)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte(prompt)) {
			continue
		}
		time.Sleep(settle)
		before, err := process.CPUSeconds(r.PID())
		if err != nil {
			return 0, err
		}
		time.Sleep(during)
		after, err := process.CPUSeconds(r.PID())
		return 100 * (after - before) / during.Seconds(), err
	}
	return 0, fmt.Errorf("no prompt within %s", limit)
}
