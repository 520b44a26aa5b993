package rundir

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestUsageOfOwnProcess(t *testing.T) {
	named, end := make(chan bool), make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its name
		_ = os.WriteFile("/proc/thread-self/comm", []byte("CPU 3/soft"), 0)
		for start := time.Now(); time.Since(start) < 30*time.Millisecond; {
		}
		named <- true
		<-end
	}()
	<-named
	defer close(end)
	v := VM{PID: os.Getpid()}
	u, err := v.Usage()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	if _, there := u.VCPUs[3]; err != nil || !there || len(u.VCPUs) != 1 || u.CPU < u.VCPUs[3] || u.Resident < 1<<20 {
		t.Errorf("%+v, %v", u, err)
	}
	if used := time.Duration(r.Utime.Nano() + r.Stime.Nano()); u.CPU > used+20*time.Millisecond {
		t.Errorf("%s of CPU time, Linux says %s", u.CPU, used)
	}
	gone := VM{Name: "gone", PID: 1 << 30}
	if _, err := gone.Usage(); !errors.Is(err, ErrNotFound) {
		t.Errorf("of no process: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	name, spent, err := parseStat([]byte("7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"))
	if name != "a) b (c" || spent != 2*time.Second || err != nil {
		t.Errorf("%q %s %v", name, spent, err)
	}
	for _, bad := range []string{"", "7 a", "7 (a) S 1", "7 (a) S 1 2 3 4 5 6 7 8 9 10 x 50"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
