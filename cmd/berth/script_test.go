package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"berth/accel/kvm"
	"berth/block/formats"
	"berth/tests/guest"
)

// TestMain lets scripts run this test binary as berth, and tests/debian as one that is harried.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"berth": main, "harried": harried})
}

// TestScripts runs the command lines in testdata/script as a user would type
// them, with each accelerator that runs small guests here.
func TestScripts(t *testing.T) {
	kernel := guest.Need(t).Kernel
	accelerators := []string{"soft"}
	if _, err := os.Stat(kvm.DefaultPath); err == nil {
		accelerators = append(accelerators, "kvm")
	}
	for _, name := range accelerators {
		t.Run(name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: "testdata/script",
				Setup: func(env *testscript.Env) error {
					env.Setenv("ACCEL", name)
					env.Setenv("KERNEL", kernel)
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"random":   makeRandom,
					"truncate": truncate,
					"cpio":     makeCpio,
					"hold":     hold,
					"guest":    writeGuest,
					"exits":    exits,
				},
			})
		})
	}
}

// exits STATUS [SIGNALS] ARG... runs berth, sends it SIGTERM that many times, each
// after a line or a word of its own has appeared, and checks the exit status.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	signals, err := strconv.Atoi(args[1])
	ts.Check(err)
	c := &signalled{left: signals}
	self, err := os.Executable()
	ts.Check(err)
	c.cmd = exec.Command(self, args[2:]...)
	c.cmd.Path, c.cmd.Args[0] = self, "berth"
	c.cmd.Dir = ts.MkAbs(".")
	c.cmd.Stdout, c.cmd.Stderr = c, c
	ts.Check(c.cmd.Start())
	watchdog := time.AfterFunc(time.Minute, func() { _ = c.cmd.Process.Kill() })
	defer watchdog.Stop()
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("status %d, want %d; it said:\n%s", got, want, c.said.String())
	}
	_, err = ts.Stdout().Write(c.said.Bytes())
	ts.Check(err)
}

// signalled sends a SIGTERM each time the guest or berth has said something new
// that asks for it: "r" when the guest runs or berth waits for a client, "pressing" after the first signal.
type signalled struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	said bytes.Buffer
	left int
	sent int
}

func (s *signalled) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said.Write(p)
	cues := []*regexp.Regexp{regexp.MustCompile("r\n|waiting for a connection"), regexp.MustCompile("pressing the power button")}
	for s.sent < s.left && cues[s.sent].Match(s.said.Bytes()) {
		s.sent++
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
	}
	return len(p), nil
}

// makeRandom FILE SIZE writes a file of pseudo-random bytes.
func makeRandom(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	p := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, err = r.Read(p)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), p, 0o644))
}

// truncate FILE SIZE makes a sparse file.
func truncate(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(f.Truncate(size))
	ts.Check(f.Close())
}

// makeCpio FILE SIZE makes a sparse file that begins as a cpio archive does.
func makeCpio(ts *testscript.TestScript, neg bool, args []string) {
	truncate(ts, neg, args)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString("070701")
	ts.Check(err)
	ts.Check(f.Close())
}

// hold FILE opens a disk for writing, as another VM would, until the script ends.
func hold(ts *testscript.TestScript, _ bool, args []string) {
	n, err := formats.Open(formats.Options{Filename: ts.MkAbs(args[0]), Format: "raw", NoShare: true})
	ts.Check(err)
	ts.Defer(func() { ts.Check(n.Close()) })
}
