package image

import (
	"bufio"
	"bytes"
	"syscall"
	"testing"
	"time"
)

func TestProgressPrintsStepsAsQEMUDoes(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&call{stdout: bufio.NewWriter(&out)}, true, 1)
	for _, percent := range []float32{0, 0.5, 1, 1.5, 1.9, 2.6, 100} {
		p.set(percent)
	}
	p.end()
	if err := p.c.stdout.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "    (0.00/100%)\r    (1.50/100%)\r    (2.60/100%)\r    (100.00/100%)\r\n"
	if out.String() != want {
		t.Errorf("%q, not %q", out.String(), want)
	}
}

func TestProgressAnswersSIGUSR1(t *testing.T) {
	var errs bytes.Buffer
	p := newProgress(&call{stderr: &errs}, false, 1)
	defer p.end()
	p.set(12.345)
	if errs.Len() != 0 {
		t.Errorf("printed %q unasked", errs.String())
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for !p.asked.Load() { // the signal has its own way
		time.Sleep(time.Millisecond)
	}
	p.add(1)
	if errs.String() != "    (13.35/100%)\n" && errs.String() != "    (13.34/100%)\n" {
		t.Errorf("printed %q", errs.String())
	}
}
