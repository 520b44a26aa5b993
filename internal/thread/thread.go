// Package thread tells the host's scheduler what the calling thread's work is like.
package thread

import (
	"golang.org/x/sys/unix"
)

// promptSlice is the shortest slice of time, in nanoseconds, that Linux gives a
// thread (kernel/sched/syscalls.c, from 6.12 on).
const promptSlice = 100_000

// Prompt asks for short turns that begin soon after the calling thread wakes: one
// that sleeps most of the time then comes before those that compute, whose share
// of the CPU stays what it was. Steady takes it back. The goroutine must be locked to the
// thread. Older kernels and other policies than the normal one ignore it, and a
// host that refuses costs no more than the promptness.
func Prompt() { setSlice(promptSlice) }

// Steady gives the calling thread the turns that all threads have.
func Steady() { setSlice(0) }

func setSlice(ns uint64) {
	attr, err := unix.SchedGetAttr(0, 0) // the nice value among others, which stays
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return
	}
	attr.Runtime = ns
	_ = unix.SchedSetAttr(0, attr, 0)
}
