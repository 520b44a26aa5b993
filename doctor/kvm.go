package doctor

import (
	"errors"
	"fmt"
	"strings"

	"berth/accel/kvm"
)

// normalMIPS is below any speed at which hardware runs the probe's loop: a
// slower KVM is itself emulated.
const normalMIPS = 1000

// examineKVM makes the checks of KVM itself, each only if the one before did not fail, and the verdict.
func examineKVM(o Options) Report {
	if o.KVMPath == "" {
		o.KVMPath = kvm.DefaultPath
	}
	if o.Probe == nil {
		o.Probe = kvm.Probe
	}
	probe, err := o.Probe(o.KVMPath, o.Log)
	r := Report{Checks: []Check{present(o.KVMPath, err)}}
	for _, next := range []func() Check{
		func() Check { return permitted(o.KVMPath, err) },
		func() Check { return guests(probe, err) },
		func() Check { return speed(probe) },
	} {
		c := next()
		if before := r.Checks[len(r.Checks)-1]; before.Status == Fail && (before.Name != "kvm-guests" || probe.MIPS == 0) {
			c.Status, c.Finding, c.Meaning, c.Remedy = Fail, notChecked+"the check before it failed", "", ""
		}
		r.Checks = append(r.Checks, c)
	}
	for i := range r.Checks {
		r.Checks[i].Group = "KVM"
	}
	if err == nil && probe.Usable {
		r.Accelerator = "kvm"
		r.Verdict = "berth run --accel auto takes kvm: it " + probe.Reason
	} else {
		r.Accelerator = "soft"
		r.Verdict = "berth run --accel auto takes soft: " + probe.Reason
	}
	return r
}

const noKVM = "guests run on the soft engine: they work, at a fraction of the speed"

// fail fills c from the error that opening KVM gave.
func fail(c Check, err error) Check {
	c.Status, c.Finding, c.Meaning = Fail, err.Error(), noKVM
	var open *kvm.OpenError
	if errors.As(err, &open) {
		c.Finding, c.Remedy = open.Kind.Error(), open.Remedy
		if open.Cause != nil {
			c.Finding += " (" + open.Cause.Error() + ")"
		}
	}
	return c
}

func present(path string, err error) Check {
	c := Check{Name: "kvm-present", Title: "device", Status: OK, Finding: path}
	if errors.Is(err, kvm.ErrMissing) || errors.Is(err, kvm.ErrUnsupported) {
		return fail(c, err)
	}
	return c
}

func permitted(path string, err error) Check {
	c := Check{Name: "kvm-permitted", Title: "permission", Status: OK, Finding: "this user may use " + path}
	if errors.Is(err, kvm.ErrForbidden) {
		return fail(c, err)
	}
	return c
}

func guests(probe kvm.Report, err error) Check {
	c := Check{Name: "kvm-guests", Title: "ordinary guests", Status: OK, Finding: "a probe guest ran every instruction tried"}
	switch {
	case err != nil:
		return fail(c, err)
	case len(probe.Refused) > 0:
		c.Finding = "the VM stops at " + strings.Join(probe.Refused, ", ") + " in kernel mode"
		c.Meaning = "this KVM is a software imitation that ordinary kernels do not boot on; " + noKVM
		c.Remedy = "use a host with hardware virtualization passed through"
	case !probe.Usable && probe.MIPS >= kvm.MinMIPS || probe.MIPS == 0:
		c.Finding = probe.Reason
		c.Meaning = noKVM
	default:
		return c
	}
	c.Status = Fail
	return c
}

func speed(probe kvm.Report) Check {
	c := Check{
		Name: "kvm-speed", Title: "speed", Status: OK,
		Finding: fmt.Sprintf("%.4g million instructions a second in kernel mode", probe.MIPS),
	}
	switch {
	case probe.MIPS < kvm.MinMIPS:
		c.Status = Fail
		c.Meaning = "kernel code is emulated instruction by instruction, slower than the soft engine runs it"
	case probe.MIPS < normalMIPS:
		c.Status = Warn
		c.Meaning = "this host's virtualization is itself emulated; hardware runs thousands"
	default:
		return c
	}
	c.Remedy = "use a host with hardware virtualization passed through"
	return c
}
