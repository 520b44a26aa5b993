package main

import (
	"errors"
	"fmt"
	"log/slog"

	"berth/accel"
	"berth/accel/kvm"
	"berth/accel/soft"
	"berth/spec"
	"berth/x86"
)

// chooseAccelerator returns what runs m, and why in one line.
func chooseAccelerator(m spec.Machine, log *slog.Logger) (accel.Accelerator, string, error) {
	switch m.Accel {
	case "soft":
		return useSoft(m, log, "asked for with --accel soft")
	case "kvm":
		return useKVM(m, log, "asked for with --accel kvm")
	}
	report, err := kvm.Probe(kvm.DefaultPath, log)
	if err == nil && report.Usable {
		return useKVM(m, log, report.Reason)
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

// useKVM returns KVM with the CPU model asked for; why is the reason for it.
func useKVM(m spec.Machine, log *slog.Logger, why string) (accel.Accelerator, string, error) {
	a, err := kvm.New(kvm.DefaultPath, log)
	if err != nil {
		return nil, "", err
	}
	if level, ok := cpuLevels[m.CPU]; ok {
		if err := a.Limit(level); err != nil {
			return nil, "", fmt.Errorf("--cpu %s: %w", m.CPU, errors.Join(err, a.Close()))
		}
	}
	return a, why, nil
}

// useSoft returns the soft engine; the reason for it goes into what it refuses.
func useSoft(m spec.Machine, log *slog.Logger, why string) (accel.Accelerator, string, error) {
	if n := m.CPUs.Count; n > soft.MaxCPUs {
		return nil, "", fmt.Errorf("%d CPUs: the soft engine runs at most %d (chosen: %s); use --cpus %d, or --accel kvm on a host with KVM", n, soft.MaxCPUs, why, soft.MaxCPUs)
	}
	a, err := soft.NewEngine(soft.Engine(m.SoftEngine), cpuLevels[m.CPU], log)
	if err != nil {
		return nil, "", err
	}
	return a, why, nil
}

// cpuLevels are the CPU models by name; the rest is the host's best.
var cpuLevels = map[string]x86.Level{"v1": x86.LevelV1, "v2": x86.LevelV2, "v3": x86.LevelV3}
