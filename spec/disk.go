package spec

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Disk is one virtio-blk disk.
type Disk struct {
	File string `json:"file" path:"yes"`
	// Format is that of the image; "" finds it out, and then a raw image is
	// protected from becoming one of another format.
	Format   string `json:"format,omitempty" words:"raw qcow2 vmdk vhdx vpc vdi"`
	ReadOnly bool   `json:"readonly,omitempty"`
	Serial   string `json:"serial,omitempty"`
	// ID names the device, NodeName the image in the graph of block nodes.
	ID       string `json:"id,omitempty"`
	NodeName string `json:"nodeName,omitempty"`
	// Cache is one of QEMU's modes: whether the host's page cache is used, whether
	// writes are durable when they complete, whether flushes are.
	Cache string `json:"cache" words:"none writeback writethrough directsync unsafe"`
	// Discard says what becomes of the guest's discards: "unmap" (or "on") gives
	// storage back, "ignore" (or "off") does nothing, as with QEMU.
	Discard string `json:"discard" words:"ignore unmap off on"`
	// DetectZeroes makes writes of zeros write-zeroes; "unmap" may give their storage back.
	DetectZeroes string `json:"detectZeroes,omitempty" words:"off on unmap"`
	// AIO says how requests get to the host's kernel: "threads" by blocking calls,
	// "io_uring" by a ring, "native" (with cache=none or directsync), as "", by
	// whichever is faster.
	AIO string `json:"aio,omitempty" words:"threads native io_uring"`
	// Snapshot keeps what is written in a temporary file, and the image as it is.
	Snapshot bool `json:"snapshot,omitempty"`
	// References are an image's backing and data files: "refuse" opens no image that names any.
	References string     `json:"references,omitempty" words:"follow refuse"`
	Throttling Throttling `json:"throttling,omitzero"`
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
		d.Cache = cmp.Or(d.Cache, "writeback")
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
		if err := d.checkWords(); err != nil {
			return fmt.Errorf("disk %s: %w", d.File, err)
		}
		if len(d.Serial) > MaxSerial {
			return fmt.Errorf("disk %s: serial %q is longer than %d bytes", d.File, d.Serial, MaxSerial)
		}
		if d.Queues < 1 || d.Queues > MaxQueues {
			return fmt.Errorf("disk %s: %d queues: 1 to %d are possible", d.File, d.Queues, MaxQueues)
		}
	}
	return m.checkDiskNames()
}

func (d *Disk) checkWords() error {
	for _, w := range []struct{ key, value, allowed string }{
		{"format", d.Format, "raw qcow2 vmdk vhdx vpc vdi"},
		{"cache", d.Cache, "none writeback writethrough directsync unsafe"},
		{"discard", d.Discard, "ignore unmap"},
		{"detect-zeroes", d.DetectZeroes, "off on unmap"},
		{"aio", d.AIO, "threads native io_uring"},
		{"references", d.References, "follow refuse"},
	} {
		if w.value == "" {
			continue
		}
		if err := oneOf(w.value, strings.Fields(w.allowed)); err != nil {
			return fmt.Errorf("%s: %w", w.key, err)
		}
	}
	if d.DetectZeroes == "unmap" && d.Discard != "unmap" {
		return errors.New("detect-zeroes=unmap gives storage back, which discard=ignore forbids: add discard=unmap")
	}
	return nil
}

// checkDiskNames holds the names of devices and nodes to QEMU's form, and each
// name to one thing.
func (m *Machine) checkDiskNames() error {
	seen := map[string]bool{}
	for _, d := range m.Disks {
		for _, n := range []struct{ key, name string }{{"id", d.ID}, {"node-name", d.NodeName}} {
			switch {
			case n.name == "":
			case !wellFormed(n.name):
				return fmt.Errorf("disk %s: %s %q: up to %d letters, digits, -, . and _, a letter first", d.File, n.key, n.name, maxName)
			case seen[n.name]:
				return fmt.Errorf("disk %s: %s %q is a disk's name already", d.File, n.key, n.name)
			}
			seen[n.name] = true
		}
	}
	return nil
}

// maxName is the most letters of a block node's name, as with QEMU.
const maxName = 31

// wellFormed reports whether s is a name as QEMU has them.
func wellFormed(s string) bool {
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-' && c != '.' && c != '_') {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}
