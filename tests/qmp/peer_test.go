package qmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/tests/guest"
	"berth/tests/process"
)

const (
	qemuSystem = "qemu-system-x86_64"
	patience   = time.Minute     // for one answer or event
	lifetime   = 3 * time.Minute // of a VM
)

func needQEMU(t *testing.T) {
	t.Helper()
	for _, program := range []string{qemuSystem, "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s (tests/guest/setup --test installs it)", program)
		}
	}
}

// built is berth's binary, once a test has needed it.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	status := m.Run()
	_ = os.RemoveAll(built.dir) // in the folder of temporary files
	os.Exit(status)
}

func buildBerth(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "berth-qmp"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(built.dir, "berth"), "./cmd/berth")
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "berth")
}

// halting is a Multiboot kernel that does nothing, as an ELF file: its header, one
// segment at 1 MiB, and in that the Multiboot header and HLT without interrupts.
func halting() []byte {
	code := []byte{
		0x02, 0xb0, 0xad, 0x1b, 0, 0, 0, 0, 0xfe, 0x4f, 0x52, 0xe4, // magic, no flags, checksum
		0xfa, 0xf4, 0xeb, 0xfd, // cli; hlt; jmp to the hlt
	}
	const base, headers = 0x100000, 52 + 32
	le := func(v uint32, n int) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}[:n] }
	size := uint32(headers + len(code))
	return slices.Concat(
		[]byte("\x7fELF\x01\x01\x01"), make([]byte, 9), le(2, 2), le(3, 2), le(1, 4), le(base+headers+12, 4), le(52, 4), le(0, 4), le(0, 4),
		le(52, 2), le(32, 2), le(1, 2), le(0, 2), le(0, 2), le(0, 2),
		le(1, 4), le(0, 4), le(base, 4), le(base, 4), le(size, 4), le(size, 4), le(7, 4), le(4096, 4),
		code,
	)
}

// berthArgs are berth's for a VM that does nothing yet.
func berthArgs() []string {
	return []string{"run", "--kernel", "halting", "--accel", "soft", "--paused", "--memory", "128M", "--serial", "null", "--qmp", "unix:qmp,server=on,wait=off"}
}

// startBoth starts both VMs of a session, each in a folder of its own.
func startBoth(t *testing.T, s *session, berth string) (ours, theirs *peer) {
	t.Helper()
	expand := expander(t, slices.Concat(s.berth, s.qemu))
	ours = startPeer(t, s, berth, slices.Concat(berthArgs(), expand(s.berth)))
	theirs = startPeer(t, s, qemuSystem, slices.Concat([]string{
		"-kernel", "halting", "-accel", "tcg", "-S", "-m", "128M", "-nodefaults", "-no-user-config", "-display", "none",
		"-qmp", "unix:qmp,server=on,wait=off",
	}, expand(s.qemu)))
	ours.reconnect(t)
	theirs.reconnect(t)
	return ours, theirs
}

// expander puts Debian's files in place of $KERNEL and $INITRD.
func expander(t *testing.T, args []string) func([]string) []string {
	t.Helper()
	if !slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "$KERNEL") }) {
		return func(args []string) []string { return args }
	}
	f := guest.Need(t)
	r := strings.NewReplacer("$KERNEL", f.Kernel, "$INITRD", f.Initrd)
	return func(args []string) (list []string) {
		for _, a := range args {
			list = append(list, r.Replace(a))
		}
		return list
	}
}

// peer is a VM and its QMP client.
type peer struct {
	name, dir string
	conn      *net.UnixConn
	in        *json.Decoder
	events    []map[string]any
	seen      map[string]bool // events that came
	waited    map[string]bool // events that a step waited for
	with      int             // a descriptor for the next command, or -1
}

func startPeer(t *testing.T, s *session, program string, args []string) *peer {
	t.Helper()
	p := &peer{name: filepath.Base(program), dir: t.TempDir(), seen: map[string]bool{}, waited: map[string]bool{}, with: -1}
	for _, i := range s.images {
		cmd := exec.Command("qemu-img", strings.Fields(i)...)
		cmd.Dir = p.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %s: %v: %s", i, err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(p.dir, "halting"), halting(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+p.dir)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := process.Tie(cmd).Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // how it ended is not in question
	limit := time.AfterFunc(lifetime, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		limit.Stop()
		if p.conn != nil {
			_ = p.conn.Close()
		}
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("%s said: %s", p.name, said.String())
		}
	})
	return p
}

// reconnect hangs up, if there is a connection, and negotiates anew.
func (p *peer) reconnect(t *testing.T) {
	t.Helper()
	if p.conn != nil {
		_ = p.conn.Close()
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", filepath.Join(p.dir, "qmp"))
		if err == nil {
			p.conn = conn.(*net.UnixConn)
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", p.name, err)
		}
	}
	p.in = json.NewDecoder(p.conn)
	p.in.UseNumber()
	hello, err := p.hear()
	if err == nil && hello["QMP"] == nil {
		err = fmt.Errorf("greeting %v", hello)
	}
	if err == nil {
		_, err = p.command(`{"execute": "qmp_capabilities"}`)
	}
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

// bring opens what the next command brings: "ro FILE" or "rw FILE".
func (p *peer) bring(t *testing.T, how string) {
	t.Helper()
	mode, name, _ := strings.Cut(how, " ")
	flags := map[string]int{"ro": unix.O_RDONLY, "rw": unix.O_RDWR}
	flag, ok := flags[mode]
	if !ok {
		t.Fatalf("fd %s: not ro or rw", how)
	}
	fd, err := unix.Open(filepath.Join(p.dir, name), flag|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("fd %s: %v", how, err)
	}
	p.with = fd
}

// hear returns what comes next.
func (p *peer) hear() (m map[string]any, err error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := p.in.Decode(&m); err != nil {
		return nil, err
	}
	if name, ok := m["event"].(string); ok {
		p.seen[name] = true
	}
	return m, nil
}

// command returns the answer to a command.
func (p *peer) command(text string) (map[string]any, error) {
	var rights []byte
	if p.with >= 0 {
		rights = unix.UnixRights(p.with)
		defer func() { _ = unix.Close(p.with); p.with = -1 }()
	}
	if _, _, err := p.conn.WriteMsgUnix([]byte(text+"\n"), rights, nil); err != nil {
		return nil, err
	}
	for {
		m, err := p.hear()
		if err != nil {
			return nil, err
		}
		if m["event"] == nil {
			return m, nil
		}
		p.events = append(p.events, m)
	}
}

// event waits for an event, and returns its data.
func (p *peer) event(name string) (any, error) {
	p.waited[name] = true
	for {
		if i := slices.IndexFunc(p.events, func(m map[string]any) bool { return m["event"] == name }); i >= 0 {
			m := p.events[i]
			p.events = slices.Delete(p.events, i, i+1)
			return m["data"], nil
		}
		m, err := p.hear()
		if err != nil {
			return nil, fmt.Errorf("no event %s: %w", name, err)
		}
		if m["event"] != nil {
			p.events = append(p.events, m)
		}
	}
}

// unexpected ends the VM, if it has not ended, and returns the events that nobody
// waited for. A quit of one's own is none of them.
func (p *peer) unexpected() map[string]bool {
	_, err := p.command(`{"execute": "quit"}`)
	for err == nil {
		_, err = p.hear()
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) { // a second quit is not read any more
		p.seen["the connection: "+err.Error()] = true
	}
	for e := range p.waited {
		delete(p.seen, e)
	}
	delete(p.seen, "SHUTDOWN")
	return p.seen
}
