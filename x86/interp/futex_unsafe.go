package interp

import (
	"syscall"
	"unsafe"
)

// Futex operations (linux/futex.h).
const (
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

// futexWait sleeps while *word == value. It goes through Syscall6, so that Go's
// scheduler knows that the thread is blocked. unsafe: the kernel takes the
// word's address; it lies outside the Go heap and lives as long as the vCPU.
func futexWait(word *uint32, value uint32) {
	_, _, _ = syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, uintptr(value), 0, 0, 0)
}

// futexWake wakes the one thread that sleeps on word. unsafe: as futexWait.
func futexWake(word *uint32) {
	_, _, _ = syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, 1, 0, 0, 0)
}
