package process

import (
	"bufio"
	"io"
	"testing"
	"time"
)

func TestStartAndWait(t *testing.T) {
	r, err := Start(time.Minute, "sh", "-c", "echo out; echo errs >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r.Stdout)
	if err != nil || string(out) != "out\n" {
		t.Errorf("said %q, %v", out, err)
	}
	state, err := r.Wait()
	if err == nil || state.ExitCode() != 3 || r.Errors() != "errs\n" {
		t.Errorf("%v, %q", err, r.Errors())
	}
	r.Kill() // nothing is left to kill
	if _, err := Start(time.Minute, "/nowhere"); err == nil {
		t.Error("what is not there was started")
	}
}

// TestKillAndLimit: cat ends for neither end of file nor want of input.
func TestKillAndLimit(t *testing.T) {
	r, err := Start(time.Minute, "sh", "-c", "echo up; exec cat")
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(r.Stdout).ReadString('\n'); line != "up\n" {
		t.Errorf("%q %v", line, err)
	}
	if s, err := CPUSeconds(r.PID()); err != nil || s > 10 {
		t.Errorf("%v CPU-seconds: %v", s, err)
	}
	r.Kill()
	r, err = Start(time.Millisecond, "cat")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r.Stdout); err != nil {
		t.Error(err)
	}
	if _, err := r.Wait(); err == nil {
		t.Error("a program that its limit ended has ended well")
	}
}
