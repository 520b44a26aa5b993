package process

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTiedCommandEndsWithItsParent has this test program start a sleeping command
// and be killed.
func TestTiedCommandEndsWithItsParent(t *testing.T) {
	if os.Getenv("TIE_PARENT") != "" {
		c := Tie(exec.Command("sleep", "1000"))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\nPID %d\n", c.Process.Pid)
		time.Sleep(time.Hour)
	}
	parent := Tie(exec.Command(os.Args[0], "-test.run=^TestTiedCommandEndsWithItsParent$"))
	parent.Env = append(os.Environ(), "TIE_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for s := bufio.NewScanner(out); pid == 0 && s.Scan(); {
		_, _ = fmt.Sscanf(s.Text(), "PID %d", &pid)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	for range 1000 {
		if unix.Kill(pid, 0) == unix.ESRCH {
			return
		}
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); len(b) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}
