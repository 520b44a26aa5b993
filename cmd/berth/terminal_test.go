package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"berth/tests/process"
)

// openPTY returns the two ends of a new pseudo-terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// onTerminal runs a guest with berth's standard streams on a pseudo-terminal,
// does act once the guest has said cue, and returns what the terminal showed.
// It fails unless the terminal was in raw mode meanwhile and is as before at the end.
func onTerminal(t *testing.T, guest, cue string, act func(master *os.File, p *os.Process)) string {
	t.Helper()
	master, slave := openPTY(t)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), guest)
	if err := os.WriteFile(image, pvhImage(guests[guest]), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(asBerth(t, self), "berth"), "run", "--accel", "soft", "--kernel", image)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	screen := &screen{cue: []byte(cue), seen: make(chan struct{})}
	go screen.read(master)
	if err := process.Tie(cmd).Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	<-screen.seen
	during, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if during.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Errorf("the terminal is not raw while the guest runs: lflag %x", during.Lflag)
	}
	act(master, cmd.Process)
	_ = cmd.Wait()
	sameTermios(t, slave, before)
	return screen.text()
}

// asBerth returns a folder in which the test binary is called berth.
func asBerth(t *testing.T, self string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "berth")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sameTermios waits for the terminal to be as it was: after a SIGKILL the guard
// restores it, a moment later.
func sameTermios(t *testing.T, slave *os.File, want *unix.Termios) {
	t.Helper()
	var diff string
	for range 500 {
		now, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if diff = cmp.Diff(want, now); diff == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the terminal is not restored: %s", diff)
}

// screen collects what a terminal shows and closes seen when the cue appears.
type screen struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	cue  []byte
	once sync.Once
	seen chan struct{}
}

func (s *screen) read(master *os.File) {
	p := make([]byte, 4096)
	for {
		n, err := master.Read(p)
		s.mu.Lock()
		s.buf.Write(p[:n])
		found := bytes.Contains(s.buf.Bytes(), s.cue)
		s.mu.Unlock()
		if found {
			s.once.Do(func() { close(s.seen) })
		}
		if err != nil {
			return
		}
	}
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func typeKeys(keys string) func(*os.File, *os.Process) {
	return func(master *os.File, _ *os.Process) { _, _ = master.WriteString(keys) }
}

func TestTerminalRestoredAfterCtrlAX(t *testing.T) { onTerminal(t, "spin", "r\n", typeKeys("\x01x")) }

func TestTerminalRestoredAfterPowerOff(t *testing.T) {
	if got := onTerminal(t, "echo", "for help", typeKeys("a")); !bytes.Contains([]byte(got), []byte("b")) {
		t.Errorf("the guest's answer is missing: %q", got)
	}
}

func TestTerminalRestoredAfterTwoSignals(t *testing.T) {
	onTerminal(t, "spin", "r\n", func(_ *os.File, p *os.Process) {
		_ = p.Signal(unix.SIGTERM)
		time.Sleep(200 * time.Millisecond)
		_ = p.Signal(unix.SIGTERM)
	})
}

func TestTerminalRestoredAfterKill(t *testing.T) {
	onTerminal(t, "spin", "r\n", func(_ *os.File, p *os.Process) { _ = p.Kill() })
}

func TestTerminalHelp(t *testing.T) {
	got := onTerminal(t, "spin", "r\n", typeKeys("\x01h\x01x"))
	if !bytes.Contains([]byte(got), []byte("Ctrl-A Ctrl-A")) {
		t.Errorf("no help on the screen: %q", got)
	}
}

// TestTerminalTurnsToMonitor: Ctrl-A C gives the terminal to the monitor, and back.
func TestTerminalTurnsToMonitor(t *testing.T) {
	got := onTerminal(t, "echo", "for help", func(master *os.File, p *os.Process) {
		typeKeys("\x01cinfo st\t\r")(master, p)
		time.Sleep(500 * time.Millisecond) // the guest is gone with the key that it gets
		typeKeys("\x01ca")(master, p)
	})
	for _, want := range []string{"(qemu) ", "VM status: running", "b"} {
		if !bytes.Contains([]byte(got), []byte(want)) {
			t.Errorf("no %q on the screen: %q", want, got)
		}
	}
}

// TestThreadsAreNamed: the process bears the VM's name, and vCPUs' threads their own.
func TestThreadsAreNamed(t *testing.T) {
	onTerminal(t, "spin", "r\n", func(master *os.File, p *os.Process) {
		names := map[string]bool{}
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", p.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			names[string(bytes.TrimSpace(b))] = true
		}
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid))
		if string(comm) != "berth\n" || !names["CPU 0/soft"] {
			t.Errorf("process %q, threads %v", comm, names)
		}
		_, _ = master.WriteString("\x01x")
	})
}
