package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRunHasTimerSlack: the program that runs a VM has started with the slack that
// Go's monitor thread inherits, and keeps its process and its arguments.
func TestRunHasTimerSlack(t *testing.T) {
	image := filepath.Join(t.TempDir(), "stay")
	if err := os.WriteFile(image, pvhImage([]byte{0xfa, 0xf4, 0xeb, 0xfd}), 0o644); err != nil { // cli; hlt
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(asBerth(t, self), "berth"), "run", "--accel", "soft", "--kernel", image)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	watchdog := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "berth: soft") {
		t.Fatalf("%q, %v", line, err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", cmd.Process.Pid))
	if err != nil {
		t.Skipf("another process's slack cannot be read: %v", err)
	}
	if ns, err := strconv.Atoi(strings.TrimSpace(string(b))); err != nil || time.Duration(ns) != monitorSlack {
		t.Errorf("slack %q, want %v", b, monitorSlack)
	}
}
