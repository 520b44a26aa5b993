// Package spec is a machine described as data: what `berth run` asks for, checked before anything is built.
package spec

import (
	"errors"
	"fmt"
	"strings"
)

// Version is the version of Machine's JSON form.
const Version = 1

// Limits of a machine.
const (
	MaxCPUs     = 255
	MinMemory   = 16 << 20 // bytes
	MaxMemory   = 16 << 40
	MaxDisks    = 24
	MaxSerial   = 20 // bytes: virtio 1.2 §5.2.6, VIRTIO_BLK_T_GET_ID
	memoryAlign = 1 << 20
)

// Machine is one virtual machine.
type Machine struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// Accel is "auto", "kvm" or "soft".
	Accel  string `json:"accel"`
	CPUs   int    `json:"cpus"`
	Memory uint64 `json:"memory"` // bytes
	Boot   Boot   `json:"boot"`
	Disks  []Disk `json:"disks,omitempty"`
	// DebugExit maps port 0xf4: a write of v ends the monitor with status v<<1|1.
	DebugExit bool `json:"debugExit,omitempty"`
	// NoReboot turns a guest's reset into the end of the VM, status 0.
	NoReboot bool `json:"noReboot,omitempty"`
}

// Boot is what the machine starts with.
type Boot struct {
	Kernel  string `json:"kernel"`
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline,omitempty"`
	// Decompress is where a bzImage's payload is unpacked: "auto" (on the host
	// for soft, in the guest for KVM), "host" or "guest".
	Decompress string `json:"decompress"`
}

// Disk is one virtio-blk disk.
type Disk struct {
	File     string `json:"file"`
	Format   string `json:"format"`
	ReadOnly bool   `json:"readonly,omitempty"`
	Serial   string `json:"serial,omitempty"`
}

// Default returns a machine with everything set that has a default.
func Default() Machine {
	return Machine{
		Version: Version,
		Name:    "berth",
		Accel:   "auto",
		CPUs:    1,
		Memory:  512 << 20,
		Boot:    Boot{Decompress: "auto"},
	}
}

// Validate checks everything that can be checked without looking at the host.
// The error says which value is wrong and what would be right.
func (m *Machine) Validate() error {
	switch {
	case m.Version != Version:
		return fmt.Errorf("spec version %d is not known: this berth reads version %d", m.Version, Version)
	case m.Boot.Kernel == "":
		return errors.New("no kernel: give one with --kernel FILE")
	case m.Name == "" || strings.ContainsFunc(m.Name, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }):
		return fmt.Errorf("name %q: a name is one word without slashes", m.Name)
	case m.CPUs < 1:
		return fmt.Errorf("%d CPUs: at least 1 is needed", m.CPUs)
	case m.CPUs > MaxCPUs:
		return fmt.Errorf("%d CPUs: at most %d are possible", m.CPUs, MaxCPUs)
	case m.Memory < MinMemory:
		return fmt.Errorf("memory of %s is too small: at least %s is needed", FormatSize(m.Memory), FormatSize(MinMemory))
	case m.Memory > MaxMemory:
		return fmt.Errorf("memory of %s is too large: at most %s is possible", FormatSize(m.Memory), FormatSize(MaxMemory))
	case m.Memory%memoryAlign != 0:
		return fmt.Errorf("memory of %d bytes is not a multiple of 1M", m.Memory)
	}
	if err := oneOf("accelerator", m.Accel, "auto", "kvm", "soft"); err != nil {
		return err
	}
	if err := oneOf("decompress", m.Boot.Decompress, "auto", "host", "guest"); err != nil {
		return err
	}
	return m.validateDisks()
}

func (m *Machine) validateDisks() error {
	if len(m.Disks) > MaxDisks {
		return fmt.Errorf("%d disks: at most %d are possible", len(m.Disks), MaxDisks)
	}
	for i, d := range m.Disks {
		if d.File == "" {
			return fmt.Errorf("disk %d: no file: give file=PATH", i)
		}
		if d.Format != "raw" {
			return fmt.Errorf("disk %s: format %q is not supported: use raw", d.File, d.Format)
		}
		if len(d.Serial) > MaxSerial {
			return fmt.Errorf("disk %s: serial %q is longer than %d bytes", d.File, d.Serial, MaxSerial)
		}
	}
	return nil
}

func oneOf(what, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return fmt.Errorf("%s %q is not known: use %s", what, value, strings.Join(allowed, ", "))
}
