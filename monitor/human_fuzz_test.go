package monitor

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/accel/soft"
	"berth/machine"
	"berth/monitor/hmp"
	"berth/spec"
)

// halting is a Multiboot kernel that halts: header and code at 1 MiB, as it is in the file.
func halting() []byte {
	le := func(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }
	const magic, flags = 0x1badb002, 1 << 16
	header := le(magic)
	for _, v := range []uint32{flags, -(magic + flags) & 0xffffffff, 0x100000, 0x100000, 0x100024, 0x100024, 0x100020} {
		header = append(header, le(v)...)
	}
	return append(header, 0xfa, 0xf4, 0xeb, 0xfd)
}

// vmForTest runs a VM that halts, and returns its monitor.
func vmForTest(t testing.TB) *Monitor {
	t.Helper()
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, halting(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := spec.Default()
	s.Boot.Kernel, s.Memory.Size, s.CPUs.Count, s.NoShutdown = kernel, 16<<20, 2, true
	s.Serial = spec.Chars{{To: "null"}}
	if err := s.Complete(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	m, err := New(Config{Spec: s, Accelerator: "soft", Package: "berth", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	vm, err := machine.New(machine.Config{Spec: s, Accelerator: soft.New(log), Log: log, Notify: m.Notice})
	if err != nil {
		t.Fatal(err)
	}
	m.Attach(vm)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := vm.Run(); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		vm.Quit()
		<-done
		m.Close()
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// FuzzHuman: no line of the human monitor makes berth fail. Lines that write files of
// the host, open its sockets or end the VM are left out.
func FuzzHuman(f *testing.F) {
	for _, line := range []string{
		"info registers -a", "x /4i $pc", "xp /4xb 0x100000", "info tlb", "info lapic 1", "info qtree", "i /b 0x71", "o /b 0x80 1", "cpu 1", "sum 0 4096",
		"qom-get /machine type", `qom-set -j /machine type {"a": [1]}`, "device_add virtio-rng-pci,id=a,bus=pci.1", "device_del a", "info block -n", "p -(1+2)",
		"block_set_io_throttle d 1 2 3 4 5 6", "balloon 9", "gva2gpa $cr3", "help info pic", "set_link a on", "nmi", "stop", "cont",
	} {
		f.Add(line)
	}
	m := vmForTest(f)
	f.Fuzz(func(t *testing.T, line string) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word, _, _ = strings.Cut(word, "/"); word {
		case "memsave", "pmemsave", "dump-guest-memory", "quit", "q", "hostfwd_add", "netdev_add", "system_powerdown", "o":
			return
		}
		watchdog := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("%q does not end", line)) })
		defer watchdog.Stop()
		m.run(hmp.NewState(), line)
	})
}
