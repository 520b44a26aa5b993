package main

import (
	"errors"
	"fmt"
	"log/slog"

	"berth/accel"
	"berth/accel/kvm"
	"berth/accel/soft"
	"berth/spec"
)

// chooseAccelerator returns what runs m, and why in one line.
func chooseAccelerator(m spec.Machine, log *slog.Logger) (accel.Accelerator, string, error) {
	switch m.Accel {
	case "soft":
		return useSoft(m, log, "asked for with --accel soft")
	case "kvm":
		a, err := kvm.New(kvm.DefaultPath, log)
		if err != nil {
			return nil, "", err
		}
		return a, "asked for with --accel kvm", nil
	}
	report, err := kvm.Probe(kvm.DefaultPath, log)
	if err == nil && report.Usable {
		a, err := kvm.New(kvm.DefaultPath, log)
		return a, report.Reason, err
	}
	why := report.Reason
	var open *kvm.OpenError
	if errors.As(err, &open) {
		why = fmt.Sprintf("%s: %v", open.Path, open.Kind)
	} else if err != nil {
		why = err.Error()
	}
	return useSoft(m, log, why+" (berth doctor says more)")
}

// useSoft returns the soft engine; the reason for it goes into what it refuses.
func useSoft(m spec.Machine, log *slog.Logger, why string) (accel.Accelerator, string, error) {
	if n := m.CPUs.Count; n > soft.MaxCPUs {
		return nil, "", fmt.Errorf("%d CPUs: the soft engine runs at most %d (chosen: %s); use --cpus %d, or --accel kvm on a host with KVM", n, soft.MaxCPUs, why, soft.MaxCPUs)
	}
	a, err := soft.NewEngine(soft.Engine(m.SoftEngine), log)
	if err != nil {
		return nil, "", err
	}
	return a, why, nil
}
