package image

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/block"
	"berth/block/formats"
)

type snapshot struct {
	source
	quiet bool
	do    byte   // which of l, a, c and d; 0: none
	name  string // the snapshot's
}

func (a *snapshot) options(c *call) []option {
	choose := func(do byte) func(string) error {
		return func(name string) error {
			if a.do != 0 {
				return misuse("Cannot mix '-l', '-a', '-c', '-d'")
			}
			a.do, a.name = do, name
			return nil
		}
	}
	return []option{
		{short: 'l', on: func() error { return choose('l')("") }},
		{short: 'a', set: choose('a')}, {short: 'c', set: choose('c')}, {short: 'd', set: choose('d')},
		c.objectOption(), mark(0, "image-opts", &a.imageOpts), mark('U', "force-share", &a.share), mark('q', "", &a.quiet),
	}
}

func (a *snapshot) run(c *call, operands []string) (err error) {
	if a.file, err = oneImage(operands); err != nil {
		return err
	}
	n, err := c.open(a.source, formats.Options{ReadOnly: a.do == 'l'})
	if err != nil {
		return err
	}
	s, ok := n.Image.(block.Snapshotter)
	if !ok {
		s = noSnapshots{n.Driver}
	}
	return closing(n, a.act(c, n, s))
}

// closing closes n after what ended with err; closing writes back what is in memory, so it can fail too.
func closing(n *formats.Node, err error) error {
	if e := n.Close(); err == nil && e != nil {
		return cause(e)
	}
	return err
}

func (a *snapshot) act(c *call, n *formats.Node, s block.Snapshotter) error {
	switch a.do {
	case 'l':
		if all := s.Snapshots(); len(all) > 0 {
			printSnapshots(c, all)
		}
	case 'c':
		name := a.name[:min(len(a.name), maxSnapshotName)]
		if err := s.CreateSnapshot(block.Snapshot{Name: name, Date: time.Now().Truncate(time.Microsecond)}); err != nil {
			e := errno(err)
			return failure("Could not create snapshot '%s': %d (%s)", a.name, -int(e), strerror(e))
		}
	case 'a':
		c.warnProbed(n) // QEMU opens such an image again
		if b, ok := n.Image.(block.Bitmapper); ok && len(b.Bitmaps()) > 0 {
			return failure("Could not apply snapshot '%s': Device has active dirty bitmaps", a.name)
		}
		if err := s.ApplySnapshot(a.name); err != nil {
			return prefixed(loadError(err), "Could not apply snapshot '%s': ", a.name)
		}
	case 'd':
		id, ok := findSnapshot(s, a.name)
		if !ok {
			return failure("Could not delete snapshot '%s': snapshot not found", a.name)
		}
		if err := s.DeleteSnapshot(id); err != nil {
			return prefixed(cause(err), "Could not delete snapshot '%s': ", a.name)
		}
	}
	return nil
}

// maxSnapshotName is what QEMU keeps of a name, in bytes.
const maxSnapshotName = 255

// loadError words why a snapshot could not be applied.
func loadError(err error) error {
	var m *message
	if errors.As(err, &m) {
		return err
	}
	return failure("Failed to load snapshot: %s", strerror(errno(err)))
}

// findSnapshot returns the ID of the first snapshot of that name; an ID is no name here.
func findSnapshot(s block.Snapshotter, name string) (id string, ok bool) {
	for _, sn := range s.Snapshots() {
		if sn.Name == name {
			return sn.ID, true
		}
	}
	return "", false
}

// noSnapshots is an image without any.
type noSnapshots struct{ format string }

func (noSnapshots) Snapshots() []block.Snapshot         { return nil }
func (noSnapshots) CreateSnapshot(block.Snapshot) error { return syscall.ENOTSUP }
func (noSnapshots) DeleteSnapshot(string) error         { return syscall.ENOENT }
func (noSnapshots) ApplySnapshot(string) error {
	return failure("Block driver does not support snapshots")
}
func (n noSnapshots) LoadSnapshot(string) error {
	return failure("Block format '%s' used by device '' does not support temporarily loading internal snapshots", n.format)
}

// printSnapshots prints the table of them.
func printSnapshots(c *call, all []block.Snapshot) {
	c.printf("Snapshot list:\n")
	c.printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT")
	for _, s := range all {
		secs, icount := int64(s.VMClock/time.Second), ""
		if s.ICount != -1 {
			icount = strconv.FormatInt(s.ICount, 10)
		}
		clock := fmt.Sprintf("%02d:%02d:%02d.%03d", secs/3600, secs/60%60, secs%60, int64(s.VMClock/time.Millisecond)%1000)
		c.printf("%s %s %8s%20s%13s%11s\n", padded(s.ID, 9), padded(s.Name, 16), sizeText(s.VMStateSize), s.Date.Local().Format(time.DateTime), clock, icount)
	}
}

// snapshotObject is a snapshot as JSON.
func snapshotObject(s block.Snapshot) []block.Field {
	o := []block.Field{
		{Name: "id", Value: s.ID}, {Name: "name", Value: s.Name}, {Name: "vm-state-size", Value: s.VMStateSize},
		{Name: "date-sec", Value: s.Date.Unix()}, {Name: "date-nsec", Value: int64(s.Date.Nanosecond())},
		{Name: "vm-clock-sec", Value: int64(s.VMClock / time.Second)}, {Name: "vm-clock-nsec", Value: int64(s.VMClock % time.Second)},
	}
	if s.ICount != -1 {
		o = append(o, block.Field{Name: "icount", Value: s.ICount})
	}
	return o
}

// padded fills s up with spaces to n bytes.
func padded(s string, n int) string { return s + strings.Repeat(" ", max(n-len(s), 0)) }
