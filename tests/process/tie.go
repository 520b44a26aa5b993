package process

import (
	"os/exec"
	"syscall"
)

// Tie has a command that is not started yet end, by SIGKILL, when the thread that
// starts it does, and so with this process however that ends: a test that is killed
// leaves no VM behind. The goroutine that starts it is locked to no thread.
func Tie(cmd *exec.Cmd) *exec.Cmd {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return cmd
}
