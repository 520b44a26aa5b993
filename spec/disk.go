package spec

import (
	"cmp"
	"fmt"
	"slices"
)

// Disk is one virtio-blk disk.
type Disk struct {
	File     string `json:"file" path:"yes"`
	Format   string `json:"format"`
	ReadOnly bool   `json:"readonly,omitempty"`
	Serial   string `json:"serial,omitempty"`
	// Discard says what becomes of the guest's discards: "unmap" (or "on") gives
	// storage back, "ignore" (or "off") does nothing, as with QEMU.
	Discard string `json:"discard" words:"ignore unmap off on"`
	// Queues is how many request queues there are; 0 is one a CPU, at most
	// defaultQueues, and one where all of a device's queues share an interrupt.
	Queues int `json:"queues,omitempty" min:"1"`
}

// defaultQueues bounds the queues of a disk that nobody asked for.
const defaultQueues = 16

// ParseDisk reads the value of --disk.
func ParseDisk(s string) (Disk, error) {
	var d Disk
	if err := setKeys(s, &d); err != nil {
		return d, fmt.Errorf("disk: %w", err)
	}
	if d.File == "" {
		return d, fmt.Errorf("disk %q: no file: give file=PATH", s)
	}
	return d, nil
}

func (m *Machine) completeDisks() {
	queues := min(m.CPUs.Count, defaultQueues)
	if m.small() {
		queues = 1
	}
	m.Disks = slices.Clone(m.Disks)
	for i := range m.Disks {
		d := &m.Disks[i]
		d.Format = cmp.Or(d.Format, "raw")
		d.Queues = cmp.Or(d.Queues, queues)
		switch d.Discard {
		case "", "off":
			d.Discard = "ignore"
		case "on":
			d.Discard = "unmap"
		}
	}
}

func (m *Machine) checkDisks() error {
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
		if err := oneOf(d.Discard, []string{"ignore", "unmap"}); err != nil {
			return fmt.Errorf("disk %s: discard: %w", d.File, err)
		}
		if d.Queues < 1 || d.Queues > MaxQueues {
			return fmt.Errorf("disk %s: %d queues: 1 to %d are possible", d.File, d.Queues, MaxQueues)
		}
	}
	return nil
}
