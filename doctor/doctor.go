// Package doctor finds out what this host can do for guests, what is slow or wrong on it, and what to do about that.
package doctor

import (
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"

	"berth/accel/kvm"
)

// Status is a check's outcome.
type Status string

// The outcomes. Warn works but not as well or as safely as it could; Fail does not work.
// What is optional and absent is OK or Warn.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is one thing that was looked at.
type Check struct {
	Name    string `json:"name"`  // stable, for programs
	Group   string `json:"group"` // under which it is shown
	Title   string `json:"title"`
	Status  Status `json:"status"`
	Finding string `json:"finding"`
	Meaning string `json:"meaning,omitempty"` // what the finding means for guests; set unless OK or not checked
	Remedy  string `json:"remedy,omitempty"`  // what to do, where something can be done
}

// notChecked begins the finding of a check that could not be made.
const notChecked = "not checked: "

// Report is the whole examination.
type Report struct {
	Checks      []Check `json:"checks"`
	Accelerator string  `json:"accelerator"` // what --accel auto takes: "kvm" or "soft"
	Verdict     string  `json:"verdict"`     // the same in a sentence, with the reason
}

// Options say where to look. The zero value looks at this host.
type Options struct {
	KVMPath string // kvm.DefaultPath, if empty
	Log     *slog.Logger
	// Probe is kvm.Probe, if nil.
	Probe func(path string, log *slog.Logger) (kvm.Report, error)
	// Root is the host's root directory, of which /proc, /sys, /dev and /run are read; / if nil.
	Root fs.FS
	// Usable says why this user may not read and write a file named as in Root;
	// access(2) at / if nil.
	Usable func(name string) error
	// RandomReady says whether the kernel's random numbers are seeded; getrandom(2) if nil.
	RandomReady func() bool
}

// group is a heading and the checks under it.
type group struct {
	title  string
	checks []func(*host) Check
}

// groups are all checks but KVM's own, in the order in which they are made and shown.
func groups() []group {
	return []group{
		{"Processor", []func(*host) Check{
			cpuVirtualization, nestedPaging, realMode, interruptVirtualization, gigabytePages, invariantTSC, hostKind, nestedGuests,
		}},
		{"Memory", []func(*host) Check{
			memoryFree, overcommit, swap, ksm, transparentHugePages, hugePages2M, hugePages1G, numaNodes, numaBalancing,
		}},
		{"Devices", []func(*host) Check{tun, vhostNet, vhostVsock, iommu, vfio}},
		{"Isolation", []func(*host) Check{
			mitigations, smt, selinux, apparmor, secureGuests, cgroupMounted, cgroupControllers,
		}},
		{"System", []func(*host) Check{openFiles, lockedMemory, clocksource, randomSeeded, randomSources}},
	}
}

// Run examines the host. It runs KVM's probe guest unless that has been done since the host booted.
func Run(o Options) Report {
	h := newHost(o)
	r := examineKVM(o)
	for _, g := range groups() {
		for _, check := range g.checks {
			c := check(h)
			c.Group = g.title
			r.Checks = append(r.Checks, c)
		}
	}
	return r
}

// JSON writes the report for programs.
func (r Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
