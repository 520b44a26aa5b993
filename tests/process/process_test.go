package process

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	if _, err := Private(-1, 0); err == nil {
		t.Error("process -1 has private memory")
	}
}

// TestPrivate: a mapping counts, unless it is as large as the guest's RAM.
func TestPrivate(t *testing.T) {
	const ram = 37 << 20
	before, err := Private(os.Getpid(), ram)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(-1, 0, ram, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	// Apart from its neighbours, or they are one mapping.
	if err := unix.Mprotect(m, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(m); i += 4096 {
		m[i] = 1
	}
	without, err1 := Private(os.Getpid(), ram)
	with, err2 := Private(os.Getpid(), ram+1)
	if err1 != nil || err2 != nil || without-before > 8<<20 || with-without < ram-8<<20 || with-without > ram+8<<20 {
		t.Errorf("%d bytes before, %d without the RAM (%v), %d with it (%v)", before, without, err1, with, err2)
	}
}
