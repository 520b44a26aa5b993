// Package spec is a machine described as data: what `berth run` asks for, checked before anything is built.
package spec

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// Version is the version of Machine's JSON form.
const Version = 1

// Limits of a machine.
const (
	MaxDisks  = 24
	MaxSerial = 20 // bytes: virtio 1.2 §5.2.6, VIRTIO_BLK_T_GET_ID
	MaxQueues = 64 // of a disk
)

// Machine is one virtual machine. Its JSON form is a machine file.
type Machine struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// UUID tells the VM from all others, for whoever manages it.
	UUID string `json:"uuid,omitempty"`
	// Board is the board's versioned name, or one that stands for its newest version: see Boards.
	Board string `json:"machine"`
	// HotplugSlots is how many PCI Express root ports there are, each with a slot in which
	// a device can come and go while the guest runs.
	HotplugSlots Slots  `json:"hotplugSlots"`
	Accel        string `json:"accel" words:"auto kvm soft"`
	// SoftEngine is how the soft accelerator runs code.
	SoftEngine string `json:"softEngine" words:"auto interp jit"`
	// CPU is the level of x86-64 that the guest sees. Empty is "max", all that accelerator and host have.
	CPU    string `json:"cpu,omitempty" words:"max v1 v2 v3"`
	CPUs   CPUs   `json:"cpus"`
	Memory Memory `json:"memory"`
	NUMA   NUMA   `json:"numa,omitzero"`
	Boot   Boot   `json:"boot"`
	Disks  []Disk `json:"disks,omitempty"`
	NICs   []NIC  `json:"nics,omitempty"`
	// CloudInit is what cloud-init in the guest is told.
	CloudInit CloudInit `json:"cloudInit,omitzero"`
	// Serial are the serial ports from the first on, Console virtio consoles, Ports virtio ports.
	Serial  Chars   `json:"serial,omitempty"`
	Console Chars   `json:"console,omitempty"`
	Ports   []Port  `json:"ports,omitempty"`
	Balloon Balloon `json:"balloon,omitzero"`
	VSock   VSock   `json:"vsock,omitzero"`
	// Controls are where the VM is controlled from.
	Controls []Control `json:"control,omitempty"`
	PVPanic  string    `json:"pvpanic" words:"isa pci off"`
	// OnPanic is what happens when the guest's kernel says by pvpanic that it panicked.
	OnPanic string `json:"onPanic" words:"stop reset ignore"`
	// DebugExit maps port 0xf4: a write of v ends the monitor with status v<<1|1.
	DebugExit bool `json:"debugExit,omitempty"`
	// NoReboot turns a guest's reset into the end of the VM, status 0.
	NoReboot bool `json:"noReboot,omitempty"`
	// NoShutdown keeps a VM whose guest powered off or panicked, halted, for whoever controls it.
	NoShutdown bool `json:"noShutdown,omitempty"`
	// Paused has nothing run before whoever controls the VM says so.
	Paused bool `json:"paused,omitempty"`
}

var uuidForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
})

// Boot is what the machine starts with.
type Boot struct {
	Kernel string `json:"kernel" path:"yes"`
	// Initrd is one file for Linux; for a Multiboot kernel its modules, each a
	// file's name and, after a space, the module's own command line.
	Initrd  Files  `json:"initrd,omitempty" path:"yes"`
	Cmdline string `json:"cmdline,omitempty"`
	// Decompress is where a bzImage's payload is unpacked: "auto" (on the host
	// for soft, in the guest for KVM), "host" or "guest".
	Decompress string `json:"decompress" words:"auto host guest"`
}

// Files is a list of file names, as text with commas between them (a comma
// inside a name doubled).
type Files []string

// Set reads a list of names.
func (f *Files) Set(s string) error {
	*f = nil
	for _, name := range splitParts(s) {
		if name == "" {
			return errors.New("empty file name")
		}
		*f = append(*f, name)
	}
	return nil
}

// Default returns a machine with everything set that has a default.
func Default() Machine {
	return Machine{
		Version: Version,
		Name:    "berth",
		Board:   "q35",

		HotplugSlots: unsetSlots,
		Accel:        "auto",
		SoftEngine:   "auto",
		CPUs:         CPUs{Count: 1},
		Memory:       Memory{Size: 512 << 20},
		Boot:         Boot{Decompress: "auto"},
		PVPanic:      "isa",
		OnPanic:      "stop",
	}
}

// Complete replaces what stands for something else by what it stands for: the
// board's name by that of its newest version, a topology and NUMA nodes given
// in part by all of them. A completed machine is the same to every berth.
func (m *Machine) Complete() error {
	board, err := findBoard(m.Board)
	if err != nil {
		return err
	}
	m.Board = board.Name
	m.completeSlots()
	if err := m.CPUs.complete(); err != nil {
		return err
	}
	m.Memory.HostNodes.tidy()
	m.NUMA.complete(m)
	m.completeDisks()
	m.completeNICs()
	m.completeChars()
	return nil
}

// Validate checks everything of a completed machine that can be checked without
// looking at the host. The error says which value is wrong and what would be right.
func (m *Machine) Validate() error {
	switch {
	case m.Version != Version:
		return fmt.Errorf("spec version %d is not known: this berth reads version %d", m.Version, Version)
	case m.Boot.Kernel == "":
		return errors.New("no kernel: give one with --kernel FILE")
	case m.Name == "" || strings.ContainsFunc(m.Name, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }):
		return fmt.Errorf("name %q: a name is one word without slashes", m.Name)
	case m.UUID != "" && !uuidForm().MatchString(m.UUID):
		return fmt.Errorf("uuid %q: give one as uuidgen prints it, 01234567-89ab-cdef-0123-456789abcdef", m.UUID)
	}
	for _, w := range []struct{ what, value, path string }{
		{"accelerator", m.Accel, "accel"},
		{"soft-engine", m.SoftEngine, "softEngine"},
		{"decompress", m.Boot.Decompress, "boot.decompress"},
		{"pvpanic", m.PVPanic, "pvpanic"},
		{"on-panic", m.OnPanic, "onPanic"},
	} {
		if err := oneOf(w.value, Words(w.path)); err != nil {
			return fmt.Errorf("%s %w", w.what, err)
		}
	}
	if m.CPU != "" {
		if err := oneOf(m.CPU, Words("cpu")); err != nil {
			return fmt.Errorf("cpu %w", err)
		}
	}
	for _, check := range []func() error{m.checkBoard, m.checkSlots, m.CPUs.check, m.Memory.check, m.checkNUMA, m.checkDisks, m.checkNICs, m.checkChars, m.checkControls, m.checkBalloon, m.checkVSock} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}
