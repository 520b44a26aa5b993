package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"berth/block"
	"berth/block/backend"
	"berth/block/formats"
	"berth/block/pool"
	"berth/block/raw"
	"berth/block/throttle"
	"berth/block/uring"
	"berth/spec"
	"berth/virtio/blk"
)

// Drive is a disk of the VM: what its device holds, and the node that that stands on.
type Drive struct {
	*backend.Backend
	Root *formats.Node
	Name string // the block device's: QEMU's "device"; "": it was attached to a node and has none
	Path string // of the device in QEMU's tree of objects
	File string // as errors call it
	// Group names the limits: a throttle group of QEMU's, with this disk alone. Run's
	// goroutine owns it.
	Group string

	device *blk.Device // nil before it is made
}

// WriteCache reports whether completed writes may still be lost, as the guest wants it.
func (d *Drive) WriteCache() bool { return d.device == nil || d.device.WriteCache() }

// DriveError is a request of a drive that failed.
type DriveError struct {
	*Drive
	Op  block.Op
	Err error
}

// Nodes returns the VM's block nodes. Safe from any goroutine.
func (m *Machine) Nodes() *formats.Nodes { return m.board.graph }

// Drives lists the disks. Call it within Do.
func (m *Machine) Drives() []*Drive { return slices.Clone(m.board.drives) }

// openDisks opens the images of disks, each as the root of a backend.
func (b *board) openDisks(cfg Config) error {
	b.graph = formats.NewNodes(cfg.Descriptors)
	for i, d := range cfg.Spec.Disks {
		l := limits(d.Throttling)
		if err := l.Check(); err != nil {
			return fmt.Errorf("disk %s: throttling: %w", d.File, err)
		}
		drive := &Drive{Name: d.ID, Path: b.path(d.ID) + backendPath, File: d.File, Group: d.ID}
		if d.ID == "" {
			drive.Name = fmt.Sprintf("virtio%d", i)
			drive.Group = drive.Name
		}
		root, err := b.openRoot(drive, d, cfg.Log)
		if err != nil {
			return err
		}
		b.hold(drive, root, backend.Options{ID: drive.Name, DetectZeroes: detectZeroes(d.DetectZeroes), Limits: l}, cfg)
	}
	return nil
}

// hold makes the backend of a drive, which has its device and the board from then on.
func (b *board) hold(d *Drive, root backend.Root, o backend.Options, cfg Config) {
	o.Failed = func(op block.Op, err error, first bool) {
		if first {
			cfg.Log.Warn("a request failed; the guest gets an I/O error, now and for others that fail", "disk", d.File, "request", op.String(), "error", err)
		}
		if cfg.Notify != nil {
			cfg.Notify(Notice{Kind: NoticeDriveError, Guest: true, Drive: DriveError{d, op, err}})
		}
	}
	d.Backend = backend.New(root, o)
	b.drivesMu.Lock()
	b.drives = append(b.drives, d)
	b.drivesMu.Unlock()
}

// AttachDrive makes a drive of a node, for a device at path in QEMU's tree of objects.
// Call it within Do, and RemoveDrive once the device has gone.
func (m *Machine) AttachDrive(node, path string, readOnly bool) (*Drive, error) {
	n := m.board.graph.Find(node)
	if n == nil {
		return nil, fmt.Errorf("Property 'virtio-blk-device.drive' can't find value '%s'", node)
	}
	use, err := n.Attach(path, readOnly)
	if err != nil {
		return nil, err
	}
	how := spec.Disk{File: n.Filename, Format: n.Driver}
	if n.File != nil && n.File.Direct() {
		how.Cache = "none"
	}
	if how.AIO = n.AIO(); how.AIO == "io_uring" && ringFile(n, how) == nil {
		how.AIO = "" // a wish: the pool is as good
	}
	disk, err := deep(n, use.Disk(pool.Options{Discard: n.Discard}), how, m.log)
	if err != nil {
		return nil, err
	}
	d := &Drive{Root: n, Path: path, File: n.Filename}
	root := backend.Root{Node: n.Name, Disk: disk}
	m.board.hold(d, root, backend.Options{DetectZeroes: detectZeroes(n.DetectZeroes)}, m.cfg)
	return d, nil
}

// RemoveDrive completes what is under way on a drive and closes it. Call it within Do.
func (m *Machine) RemoveDrive(d *Drive) error {
	m.board.drivesMu.Lock()
	m.board.drives = slices.DeleteFunc(m.board.drives, func(x *Drive) bool { return x == d })
	m.board.drivesMu.Unlock()
	return d.Close()
}

// openRoot opens one disk's image and what it stands on, and keeps others from
// changing any of it. Whatever a guest writes, nothing is opened that its user
// has not named: formats below the top are stated or refused, and a raw image
// whose format nobody stated cannot become another.
func (b *board) openRoot(drive *Drive, d spec.Disk, log *slog.Logger) (backend.Root, error) {
	o := formats.Options{
		Filename: d.File, Format: d.Format, ReadOnly: d.ReadOnly, Cache: d.Cache, NoShare: true, Stated: true, NoReferences: d.References == "refuse",
		Snapshot: d.Snapshot, Values: map[string]string{}, Device: drive.Name,
		Report: func(line string) { log.Warn(line, "disk", d.File) },
	}
	if d.NodeName != "" {
		o.Values["node-name"] = d.NodeName
	}
	if d.AIO != "" {
		o.Values["file.aio"] = d.AIO
	}
	n, err := b.graph.Open(o)
	if err != nil {
		return backend.Root{}, diskError(d, err)
	}
	drive.Root = n
	disk, err := deep(n, n.Disk(pool.Options{Discard: d.Discard == "unmap"}), d, log)
	return backend.Root{Node: n.Name, Disk: disk}, err
}

// deep lets io_uring serve a disk: its deep queues where that is faster, past the
// page cache, or all that it can if its user says so. On an error disk is closed.
func deep(n *formats.Node, disk block.Disk, d spec.Disk, log *slog.Logger) (block.Disk, error) {
	f, forced := ringFile(n, d), d.AIO == "io_uring"
	switch {
	case forced && f == nil:
		return nil, errors.Join(fmt.Errorf("disk %s: aio=io_uring needs format=raw and cache=none, writeback or unsafe: leave aio out, and the fastest way is taken", d.File), disk.Close())
	case f == nil, d.AIO == "threads", !forced && d.Cache != "none":
		return disk, nil
	}
	depth := uring.DefaultDepth
	if forced {
		depth = 0
	}
	u, err := uring.New(disk, int(f.OSFile().Fd()), f.Size(), depth)
	switch {
	case err == nil:
		return u, nil
	case forced:
		return nil, errors.Join(fmt.Errorf("disk %s: aio=io_uring: %w: leave aio out", d.File, err), disk.Close())
	}
	log.Debug("the pool serves the disk alone", "disk", d.File, "error", err)
	return disk, nil
}

// ringFile is the file that io_uring can serve the disk from, or nil. The image
// has to be its file byte for byte, and stated to be, for then nothing looks at
// what the guest writes; no write needs a flush; and no sector is part of a larger
// block that the pool reads, changes and writes back.
func ringFile(n *formats.Node, d spec.Disk) *raw.File {
	if n.Driver != "raw" || d.Format != "raw" || n.WriteThrough || strings.HasPrefix(d.File, "json:") {
		return nil
	}
	if n.File == nil {
		return nil
	}
	f, ok := n.File.Image.(*raw.File)
	if !ok || f.DirectUnit() > 512 {
		return nil
	}
	return f
}

// diskError is why a disk cannot be opened, in one line with the remedy.
func diskError(d spec.Disk, err error) error {
	var hint interface{ Hint() string }
	text := strings.TrimPrefix(err.Error(), fmt.Sprintf("Could not open '%s': ", d.File))
	switch {
	case errors.As(err, &hint) && hint.Hint() != "":
		text += ": " + hint.Hint()
	case strings.HasSuffix(text, "can only be used for read-only devices"):
		text += ": add readonly=on, or make a qcow2 image of it with berth image convert"
	}
	if errors.Is(err, block.ErrInUse) {
		text = "in use by another process: " + text
	}
	return fmt.Errorf("disk %s: %s", d.File, strings.Join(strings.Fields(text), " "))
}

// addDisks makes the devices of the disks that are open.
func (b *board) addDisks(cfg Config) error {
	for i, d := range cfg.Spec.Disks {
		dev, err := blk.New(b.drives[i].Backend, blk.Config{
			Serial: d.Serial, ReadOnly: d.ReadOnly, Queues: d.Queues, Discard: d.Discard == "unmap",
			WriteThrough: d.Cache == "writethrough" || d.Cache == "directsync",
		})
		if err == nil {
			b.drives[i].device = dev
			err = b.add(cfg, Device{ID: d.ID, Path: strings.TrimSuffix(b.drives[i].Path, backendPath), Device: dev})
		}
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.File, err)
		}
	}
	return nil
}

func detectZeroes(mode string) backend.DetectZeroes {
	switch mode {
	case "on":
		return backend.DetectOn
	case "unmap":
		return backend.DetectUnmap
	}
	return backend.DetectOff
}

func limits(t spec.Throttling) throttle.Limits {
	return throttle.Limits{
		Operations: throttle.Pair{
			Total: throttle.Limit{Rate: t.IOPSTotal, Burst: t.IOPSTotalMax, BurstFor: t.IOPSTotalMaxLength},
			Read:  throttle.Limit{Rate: t.IOPSRead, Burst: t.IOPSReadMax, BurstFor: t.IOPSReadMaxLength},
			Write: throttle.Limit{Rate: t.IOPSWrite, Burst: t.IOPSWriteMax, BurstFor: t.IOPSWriteMaxLength},
		},
		Bytes: throttle.Pair{
			Total: throttle.Limit{Rate: t.BPSTotal, Burst: t.BPSTotalMax, BurstFor: t.BPSTotalMaxLength},
			Read:  throttle.Limit{Rate: t.BPSRead, Burst: t.BPSReadMax, BurstFor: t.BPSReadMaxLength},
			Write: throttle.Limit{Rate: t.BPSWrite, Burst: t.BPSWriteMax, BurstFor: t.BPSWriteMaxLength},
		},
		OperationSize: t.IOPSSize,
	}
}
