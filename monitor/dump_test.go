package monitor

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/machine"
	"berth/monitor/hmp"
)

func statusOf(t *testing.T, m *Monitor) (s machine.Status) {
	t.Helper()
	if err := m.vm.Do(func() error { s = m.vm.Status(); return nil }); err != nil {
		t.Fatal(err)
	}
	return s
}

// A VM that runs halts for a dump and goes on after it, whether somebody waits or not.
func TestDumpOfARunningVM(t *testing.T) {
	m := vmForTest(t)
	s := hmp.NewState()
	for _, flags := range []string{"", "-d ", "-p "} {
		path := filepath.Join(t.TempDir(), "core")
		if out, _ := m.run(s, "dump-guest-memory "+flags+path); out != "" {
			t.Fatal(out)
		}
		for range 500 {
			if m.dump.get().Status != "active" && statusOf(t, m) == machine.Running {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if out, _ := m.run(s, "info dump"); out != "Status: completed\n" || statusOf(t, m) != machine.Running {
			t.Fatalf("%q: %s, the VM is %s", flags, out, statusOf(t, m))
		}
		e, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		code := make([]byte, 4)
		if _, err := e.Progs[1].ReadAt(code, 0x100020); err != nil || string(code) != "\xfa\xf4\xeb\xfd" {
			t.Errorf("%q: % x, %v", flags, code, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What the human monitor says of a vCPU that runs, and of another.
func TestHumanReadsRunningVCPUs(t *testing.T) {
	m := vmForTest(t)
	s := hmp.NewState()
	for line, want := range map[string]string{
		"x /2i 0x100021":     "0x00100021:  f4                       hlt      \n0x00100022:  eb fd                    jmp      0x100021\n",
		"info registers":     "\nCPU#0\nEAX=2badb002",
		"info registers 1":   "\nCPU#1\nEAX=00000000",
		"info lapic 1":       "dumping local APIC state for CPU 1 ",
		"info cpus":          "* CPU #0: thread_id=",
		"info mem":           "PG disabled\n",
		"sum 0x100020 4":     "",                       // any number
		"xp /1xb 0xb0000000": "00000000b0000000: 0x86", // configuration space
		"qom-get /machine/unattached/device[1] apic-id": "1\n",
	} {
		if out, _ := m.run(s, line); !strings.HasPrefix(out, want) {
			t.Errorf("%s: %q", line, out)
		}
	}
	if out, _ := m.run(s, "cpu 1"); out != "" || s.CPU != 1 {
		t.Errorf("%q, vCPU %d", out, s.CPU)
	}
	if out, _ := m.run(s, "info cpus"); !strings.Contains(out, "* CPU #1") {
		t.Errorf("%s", out)
	}
}

// A FIFO is refused, whether somebody reads it or not: a reader that stops would have
// every monitor wait, and the VM's end.
func TestFIFOIsNoFile(t *testing.T) {
	m := vmForTest(t)
	s := hmp.NewState()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	want := "Error: Could not open '" + path + "': it is a FIFO, not a file\n"
	for _, line := range []string{"dump-guest-memory " + path, "pmemsave 0 16 \"" + path + "\"", "memsave 0 16 \"" + path + "\""} {
		if out, _ := m.run(s, line); out != want {
			t.Errorf("nobody reads: %s: %q", line, out)
		}
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if out, _ := m.run(s, "pmemsave 0 16 \""+path+"\""); out != want {
		t.Errorf("somebody reads: %q", out)
	}
}
