package nested

import (
	"errors"
	"fmt"
	"os/exec"
	"testing"
)

// TestFrozenMachineIsStartedAgain: twice at most, and for no other end.
func TestFrozenMachineIsStartedAgain(t *testing.T) {
	for _, c := range []struct {
		statuses []int
		runs     int
		froze    bool
	}{
		{[]int{0}, 1, false}, {[]int{3}, 1, false}, {[]int{Froze, 0}, 2, false}, {[]int{Froze, Froze, 1}, 3, false},
		{[]int{Froze, Froze, Froze}, 3, true}, {[]int{124}, 1, false},
	} {
		runs, told := 0, 0
		last, out, errs, err := Run(func() *exec.Cmd {
			runs++
			return exec.Command("sh", "-c", fmt.Sprintf("echo out %d; echo errs >&2; exit %d", runs, c.statuses[runs-1]))
		}, func(string, ...any) { told++ })
		status := c.statuses[c.runs-1]
		if runs != c.runs || last.ProcessState.ExitCode() != status || (err == nil) != (status == 0) || errors.Is(err, ErrFroze) != c.froze {
			t.Errorf("%v: %d runs, %v", c.statuses, runs, err)
		}
		if out != fmt.Sprintf("out %d\n", runs) || errs != "errs\n" {
			t.Errorf("%v: said %q and %q", c.statuses, out, errs)
		}
		if want := c.runs - 1; told != want && (!c.froze || told != c.runs) {
			t.Errorf("%v: told %d times", c.statuses, told)
		}
	}
	if _, _, _, err := Run(func() *exec.Cmd { return exec.Command("/nowhere") }, t.Logf); err == nil {
		t.Error("what is not there was run")
	}
}
