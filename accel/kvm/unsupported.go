//go:build !amd64

package kvm

import (
	"log/slog"

	"berth/accel"
	"berth/x86"
)

// Accelerator does not exist on this architecture: New always fails.
type Accelerator struct{}

// New fails: berth's KVM engine is for x86-64 hosts.
func New(path string, _ *slog.Logger) (*Accelerator, error) {
	return nil, &OpenError{Path: path, Kind: ErrUnsupported, Remedy: "use --accel soft"}
}

// Name is the word after --accel.
func (*Accelerator) Name() string { return "kvm" }

// Limit fails, as New does.
func (*Accelerator) Limit(x86.Level) error { return ErrUnsupported }

// Close does nothing.
func (*Accelerator) Close() error { return nil }

// NewVM fails, as New does.
func (*Accelerator) NewVM(accel.Config) (accel.VM, error) { return nil, ErrUnsupported }

// Probe fails, as New does.
func Probe(path string, log *slog.Logger) (Report, error) {
	_, err := New(path, log)
	return Report{Reason: ErrUnsupported.Error()}, err
}
