package process

import (
	"os"
	"testing"
	"time"
)

func TestOwnProcess(t *testing.T) {
	before, err := CPUSeconds(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		now, err := CPUSeconds(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now > before {
			before = -1
			break
		}
	}
	if before >= 0 {
		t.Error("ten seconds of work are not counted")
	}
	resident, err := Resident(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 64<<20)
	for i := 0; i < len(p); i += 4096 {
		p[i] = 1
	}
	more, err := Resident(os.Getpid())
	if err != nil || more-resident < 60<<20 || more-resident > 80<<20 {
		t.Errorf("64 MiB more are %d bytes (%v)", more-resident, err)
	}
	if p[4096] != 1 {
		t.Error("lost")
	}
}

func TestNoSuchProcess(t *testing.T) {
	if _, err := CPUSeconds(-1); err == nil {
		t.Error("process -1 has CPU time")
	}
	if _, err := Resident(-1); err == nil {
		t.Error("process -1 has memory")
	}
}
