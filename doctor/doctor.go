// Package doctor finds out what this host can do for guests, what is slow or wrong on it, and what to do about that.
package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"berth/accel/kvm"
)

// Status is a check's outcome.
type Status string

// The outcomes. Warn works but not as well as it could; Fail does not work.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is one thing that was looked at.
type Check struct {
	Name    string `json:"name"` // stable, for programs
	Title   string `json:"title"`
	Status  Status `json:"status"`
	Finding string `json:"finding"`
	Meaning string `json:"meaning,omitempty"` // what the finding means for guests; set unless OK
	Remedy  string `json:"remedy,omitempty"`  // what to do, where something can be done
}

// Report is the whole examination.
type Report struct {
	Checks      []Check `json:"checks"`
	Accelerator string  `json:"accelerator"` // what --accel auto takes: "kvm" or "soft"
	Verdict     string  `json:"verdict"`     // the same in a sentence, with the reason
}

// Options say where to look.
type Options struct {
	KVMPath string // kvm.DefaultPath, if empty
	Log     *slog.Logger
	// Probe is kvm.Probe, if nil.
	Probe func(path string, log *slog.Logger) (kvm.Report, error)
}

// normalMIPS is below any speed at which hardware runs the probe's loop: a
// slower KVM is itself emulated.
const normalMIPS = 1000

// Run examines the host. It runs KVM's probe guest unless that has been done since the host booted.
func Run(o Options) Report {
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
			c.Status, c.Finding, c.Meaning, c.Remedy = Fail, "not checked: the check before it failed", "", ""
		}
		r.Checks = append(r.Checks, c)
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
	c := Check{Name: "kvm-present", Title: "KVM is present", Status: OK, Finding: path}
	if errors.Is(err, kvm.ErrMissing) || errors.Is(err, kvm.ErrUnsupported) {
		return fail(c, err)
	}
	return c
}

func permitted(path string, err error) Check {
	c := Check{Name: "kvm-permitted", Title: "KVM is permitted", Status: OK, Finding: "this user may use " + path}
	if errors.Is(err, kvm.ErrForbidden) {
		return fail(c, err)
	}
	return c
}

func guests(probe kvm.Report, err error) Check {
	c := Check{Name: "kvm-guests", Title: "KVM runs ordinary guests", Status: OK, Finding: "a probe guest ran every instruction tried"}
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
		Name: "kvm-speed", Title: "KVM is fast", Status: OK,
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

// Human writes the report for people: a line a check, and what follows from
// those that are not ok.
func (r Report) Human(w io.Writer) error {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-4s  %-25s %s\n", c.Status, c.Title, c.Finding)
		if c.Meaning != "" {
			fmt.Fprintf(&b, "      means: %s\n", c.Meaning)
		}
		if c.Remedy != "" {
			fmt.Fprintf(&b, "      do:    %s\n", c.Remedy)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.Verdict)
	_, err := io.WriteString(w, b.String())
	return err
}

// JSON writes the report for programs.
func (r Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
