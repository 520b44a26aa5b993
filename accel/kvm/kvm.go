// Package kvm runs guests on Linux's KVM with the full in-kernel interrupt controllers.
package kvm

import (
	"errors"
	"fmt"
)

// DefaultPath is where the kernel offers KVM.
const DefaultPath = "/dev/kvm"

// Reserved is the guest-physical range, [ReservedBase, ReservedBase+ReservedSize),
// that KVM on Intel CPUs needs for itself (one page of identity map, three of
// task state). The board keeps RAM and devices out of it and reports it reserved.
const (
	ReservedBase = 0xfeffc000
	ReservedSize = 0x4000
)

// Why KVM cannot be opened; an OpenError wraps one of them.
var (
	ErrMissing     = errors.New("KVM is not present")
	ErrForbidden   = errors.New("KVM is forbidden to this user")
	ErrUnsupported = errors.New("KVM on this architecture is not supported")
	ErrUnusable    = errors.New("KVM does not work")
)

// OpenError says why KVM cannot be used and what to do about it.
type OpenError struct {
	Path   string
	Kind   error  // ErrMissing, ErrForbidden, ErrUnsupported or ErrUnusable
	Cause  error  // what the system said; may be nil
	Remedy string // one line
}

// Error is one line: the path, what is wrong, and the remedy.
func (e *OpenError) Error() string {
	s := fmt.Sprintf("kvm: %s: %v", e.Path, e.Kind)
	if e.Cause != nil {
		s += fmt.Sprintf(" (%v)", e.Cause)
	}
	if e.Remedy != "" {
		s += ": " + e.Remedy
	}
	return s
}

// Unwrap returns Kind and Cause.
func (e *OpenError) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// MinMIPS is the speed, in million kernel-mode instructions a second, below
// which the soft engine beats a KVM.
const MinMIPS = 10

// Report is what the probe guest found.
type Report struct {
	Usable bool `json:"usable"` // KVM can run ordinary guests
	// Reason is one line: why not usable, or how fast.
	Reason string `json:"reason"`
	// MIPS is the measured speed of kernel-mode code, in million instructions a second.
	MIPS float64 `json:"mips"`
	// Refused lists the instructions that stopped the VM in kernel mode.
	Refused []string `json:"refused,omitempty"`
	// Cached is set when the finding is from earlier in this boot of the host.
	Cached bool `json:"cached"`
}
