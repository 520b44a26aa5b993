// Package nested runs berth on a real KVM: an outer Debian kernel on QEMU's TCG with emulated SVM.
package nested

import (
	"bytes"
	"errors"
	"os/exec"
)

// Froze is the status of the script nested when the outer machine itself stood
// still, which says nothing of berth (docs/decisions/0008).
const Froze = 126

// attempts is how often an outer machine is started that freezes.
const attempts = 3

// ErrFroze says that the outer machine froze every time.
var ErrFroze = errors.New("the outer guest froze three times")

// Run runs the command that cmd makes anew each time, and again if the outer
// machine freezes; log gets told, with what was said until then. out and errs
// are those of the last run, which cmd's ProcessState is of, too. The error is
// ErrFroze, or that of exec.Cmd.Run.
func Run(cmd func() *exec.Cmd, log func(format string, args ...any)) (last *exec.Cmd, out, errs string, err error) {
	for range attempts {
		last = cmd()
		var o, e bytes.Buffer
		last.Stdout, last.Stderr = &o, &e
		err = last.Run()
		out, errs = o.String(), e.String()
		if last.ProcessState == nil || last.ProcessState.ExitCode() != Froze {
			return last, out, errs, err
		}
		log("the outer guest froze; until then:\n%s", out)
	}
	return last, out, errs, ErrFroze
}
