package clock

import _ "unsafe" // for go:linkname

// nanotime reads CLOCK_MONOTONIC through the vDSO. x/sys/unix has it only as a
// system call, and package time shows only differences of it, whereas a timerfd
// wants its absolute value.
//
//go:linkname nanotime0 runtime.nanotime
func nanotime0() int64

func nanotime() uint64 { return uint64(nanotime0()) }
