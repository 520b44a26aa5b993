package main

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// monitorSlack is by how much Go's monitor thread may sleep longer than it asks for.
const monitorSlack = time.Millisecond

// calmRuntime gives the program's threads that much timer slack, if they have
// less. After every wake-up of a vCPU Go's monitor thread (runtime.sysmon) looks
// every 20 microseconds whether a thread stays in a system call, some sixty times
// before it is satisfied: most of what an idle guest would cost. It has been
// started before main, and only its parent's slack at that time counts, which
// survives execve (PR_SET_TIMERSLACK(2const)): so the program starts once more.
// Where that is not possible it goes on as it is. Timers of guests are timerfds,
// which know no slack.
func calmRuntime() {
	if slack() >= monitorSlack || unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(monitorSlack), 0, 0, 0) != nil ||
		slack() < monitorSlack {
		return
	}
	if self, err := os.Executable(); err == nil {
		_ = syscall.Exec(self, os.Args, os.Environ())
	}
}

// slack is the calling thread's timer slack.
func slack() time.Duration {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return time.Duration(ns)
}
