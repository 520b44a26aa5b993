package jit

import "golang.org/x/sys/cpu"

// Available reports that this host runs translated code: every instruction of
// x86-64-v2 may be in it.
func Available() bool {
	x := &cpu.X86
	return x.HasSSE42 && x.HasSSE41 && x.HasSSSE3 && x.HasSSE3 && x.HasPOPCNT && x.HasCX16
}

// enter runs translated code until it returns.
//
//go:noescape
func enter(frame *Frame, regs *[18]uint64, code uintptr)
