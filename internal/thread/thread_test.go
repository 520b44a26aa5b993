package thread

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func slice(t *testing.T) uint64 {
	t.Helper()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return attr.Runtime
}

// TestPromptAndSteady: a kernel that shows slices shows the one asked for, and
// then the old one again; the nice value stays.
func TestPromptAndSteady(t *testing.T) {
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 3); err != nil {
			t.Error(err)
			return
		}
		before := slice(t)
		Prompt()
		if now := slice(t); before != 0 && now != promptSlice {
			t.Errorf("a slice of %d ns after Prompt, %d before", now, before)
		}
		Steady()
		if now := slice(t); now != before {
			t.Errorf("a slice of %d ns after Steady, %d at first", now, before)
		}
		if attr, err := unix.SchedGetAttr(0, 0); err != nil || attr.Nice != 3 {
			t.Errorf("nice %d, not 3 (%v)", attr.Nice, err)
		}
	}()
	<-done
}
