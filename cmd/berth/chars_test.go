package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/qmp"
	"berth/tests/guest"
	"berth/tests/process"
)

// softGuest is berth running Debian's kernel on the soft engine, its standard output
// in a console.
type softGuest struct {
	cmd  *exec.Cmd
	hand *guest.Console
	errs said
}

// said is what a program says on standard error, read while it runs.
type said struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// startSoft starts berth, its standard streams on pipes, with a kernel that runs a
// script of tests/guest, and with further flags.
func startSoft(t *testing.T, initrd, script string, flags ...string) *softGuest {
	t.Helper()
	g := prepareSoft(t, initrd, script, flags...)
	keys, err := g.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.start(t, screen, keys)
	return g
}

// startSoftOn is the same on a terminal of cols and rows, whose other end it returns.
func startSoftOn(t *testing.T, cols, rows uint16, initrd, script string, flags ...string) (*softGuest, *os.File) {
	t.Helper()
	g := prepareSoft(t, initrd, script, flags...)
	master, slave := openPTY(t)
	setSize(t, master, cols, rows)
	g.cmd.Stdin, g.cmd.Stdout = slave, slave
	g.start(t, master, master)
	slave.Close()
	return g, master
}

func setSize(t *testing.T, terminal *os.File, cols, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

func prepareSoft(t *testing.T, initrd, script string, flags ...string) *softGuest {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := &softGuest{}
	g.cmd = exec.Command(filepath.Join(asBerth(t, self), "berth"), append([]string{
		"run", "--accel", "soft", "--memory", "256M", "--kernel", guest.Need(t).Kernel, "--initrd", initrd,
		"--append", "console=ttyS0 console=hvc0 quiet berth.script=" + script,
	}, flags...)...)
	g.cmd.Stderr = &g.errs
	return g
}

func (g *softGuest) start(t *testing.T, screen io.Reader, keys io.Writer) {
	t.Helper()
	if err := process.Tie(g.cmd).Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.cmd.Process.Kill() })
	g.hand = guest.NewConsole(screen, keys)
}

// end waits for the power-off and returns the CPU-seconds that it all took.
func (g *softGuest) end(t *testing.T) float64 {
	t.Helper()
	if err := g.hand.ExpectEnd(patience); err != nil {
		t.Fatalf("%v\n%s%s", err, g.hand.Said(), g.errs.String())
	}
	if err := g.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s%s", err, g.hand.Said(), g.errs.String())
	}
	return (g.cmd.ProcessState.UserTime() + g.cmd.ProcessState.SystemTime()).Seconds()
}

// patience is for a busy host; what is waited for takes seconds.
const patience = 2 * time.Minute

// other is a socket of another process, to which berth connects.
type other struct {
	address string
	conn    <-chan net.Conn
}

func accept(t *testing.T, network, address string) other {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := make(chan net.Conn, 1)
	go func() {
		if conn, err := l.Accept(); err == nil {
			c <- conn
		}
	}()
	return other{l.Addr().String(), c}
}

// connect connects to the socket that berth makes.
func connect(t *testing.T, path string) net.Conn {
	t.Helper()
	for limit := time.Now().Add(patience); ; {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestSerialOnASocket: the guest echo answers a byte with the one after it, on a
// socket that berth makes and on one of another process.
func TestSerialOnASocket(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "echo")
	if err := os.WriteFile(image, pvhImage(guests["echo"]), 0o600); err != nil {
		t.Fatal(err)
	}
	made, theirs := filepath.Join(dir, "made"), filepath.Join(dir, "theirs")
	accepted := accept(t, "unix", theirs)
	for where, host := range map[string]func() net.Conn{
		"socket=" + made + ",server=on": func() net.Conn { return connect(t, made) },
		"socket=" + theirs:              func() net.Conn { return <-accepted.conn },
	} {
		cmd := exec.Command(filepath.Join(asBerth(t, self), "berth"), "run", "--accel", "soft", "--kernel", image, "--serial", where)
		var errs said
		cmd.Stderr = &errs
		if err := process.Tie(cmd).Start(); err != nil {
			t.Fatal(err)
		}
		watchdog := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		conn := host()
		if _, err := conn.Write([]byte("a")); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(conn); string(b) != "b" || err != nil {
			t.Errorf("--serial %s: %q, %v", where, b, err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("--serial %s: %v\n%s", where, err, errs.String())
		}
		watchdog.Stop()
		conn.Close()
	}
}

// TestConsoleAndPortsOnSoft boots Debian's kernel with its virtio console on a
// terminal, whose size it follows, and two more, into FIFOs and into memory; its serial
// port in a file, and one more on TCP; and three named ports: on
// a socket that berth makes, on one that another process has made, and on a
// pseudo-terminal. Each that can passes a line either way.
func TestConsoleAndPortsOnSoft(t *testing.T) {
	dir := t.TempDir()
	serial, made, theirs := filepath.Join(dir, "serial.log"), filepath.Join(dir, "made"), filepath.Join(dir, "theirs")
	accepted := accept(t, "unix", theirs)
	wire, control := accept(t, "tcp", "127.0.0.1:0"), filepath.Join(dir, "qmp")
	for _, n := range []string{"/fifo.in", "/fifo.out"} {
		if err := unix.Mkfifo(dir+n, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g, screen := startSoftOn(t, 100, 30, guest.InitrdWith(t, "virtio_console"), "ports", "--console", "stdio", "--serial", "file="+serial,
		"--serial", "tcp:"+wire.address, "--console", "pipe:"+dir+"/fifo", "--console", "ringbuf,id=ring", "--qmp", "unix:"+control+",server=on,wait=off",
		"--port", "name=org.qemu.guest_agent.0,socket="+made+",server=on", "--port", "name=org.example.theirs,socket="+theirs,
		"--port", "name=org.example.terminal,to=pty")
	if _, _, err := g.hand.Expect(`BERTH-CONSOLE ready, 30 100\r\n`, patience); err != nil {
		t.Fatalf("%v\n%s%s", err, g.hand.Said(), g.errs.String())
	}
	setSize(t, screen, 120, 40)
	if err := errors.Join(g.cmd.Process.Signal(unix.SIGWINCH), g.hand.Type("hello, console\r")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.hand.Expect(`hvc0 got hello, console at 40 120\r\n`, patience); err != nil {
		t.Fatalf("%v\n%s", err, g.hand.Said())
	}
	proveRing(t, control)
	proveFIFO(t, dir+"/fifo.out")
	var terminal string
	for line := range strings.Lines(g.errs.String()) {
		if at, ok := strings.CutPrefix(line, "berth: port org.example.terminal is "); ok {
			terminal = strings.TrimSpace(at)
		}
	}
	pty, err := os.OpenFile(terminal, os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("%v\n%s", err, g.errs.String())
	}
	for name, host := range map[string]io.ReadWriteCloser{
		"org.qemu.guest_agent.0": connect(t, made), "org.example.theirs": <-accepted.conn, "org.example.terminal": pty, "ttyS1": <-wire.conn,
	} {
		if _, err := io.WriteString(host, "hello, "+name+"\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := bufio.NewReader(host).ReadString('\n')
		if want := name + " got hello, " + name + "\n"; err != nil || answer != want {
			t.Errorf("port %s: %q, %v; want %q", name, answer, err, want)
		}
		host.Close()
	}
	seconds := g.end(t)
	if !strings.Contains(g.hand.Said(), "BERTH-KERNEL speaks") {
		t.Errorf("the kernel does not speak on hvc0:\n%s", g.hand.Said())
	}
	if b, err := os.ReadFile(serial); err != nil || !strings.Contains(string(b), "BERTH-PORTS ok") {
		t.Errorf("the serial port's file: %v\n%s", err, b)
	}
	if _, err := os.Stat(made); err == nil {
		t.Error("the socket that berth made is still there")
	}
	t.Logf("%.1f CPU-seconds", seconds)
}

// proveRing reads by QMP what the guest has written to the console in memory.
func proveRing(t *testing.T, control string) {
	t.Helper()
	c, err := qmp.Dial(t.Context(), control, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var text string
	err = c.Do(t.Context(), "ringbuf-read", map[string]any{"device": "ring", "size": 1000}, &text)
	if err != nil || text != "hvc2 speaks\r\n" {
		t.Errorf("the console in memory: %q, %v", text, err)
	}
}

// proveFIFO reads what the guest has written to the console in a FIFO.
func proveFIFO(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if line, err := bufio.NewReader(f).ReadString('\n'); err != nil || line != "hvc1 speaks\r\n" {
		t.Errorf("the console in a FIFO: %q, %v", line, err)
	}
}
