//go:build !amd64

package jit

// Available reports that this host runs translated code: it does not.
func Available() bool { return false }

func enter(*Frame, *[18]uint64, uintptr) { panic("jit: no translated code on this host") }

// AVX reports that the host runs x86-64-v3: it does not.
func AVX() bool { return false }

func runSingle(uintptr, *Operands) { panic("jit: no VEX instructions on this host") }

// SteadyTSC reports that the host has a TSC to measure time with: it has not.
func SteadyTSC() bool { return false }

// HostTSC reads it.
func HostTSC() uint64 { panic("jit: no TSC on this host") }
