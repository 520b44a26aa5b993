package machine

import (
	"fmt"

	"berth/block/backend"
	"berth/block/raw"
	"berth/block/throttle"
	"berth/spec"
	"berth/virtio/blk"
)

// openDisks opens the images of disks, each as the root of a backend.
func (b *board) openDisks(disks []spec.Disk) error {
	for i, d := range disks {
		l := limits(d.Throttling)
		if err := l.Check(); err != nil {
			return fmt.Errorf("disk %s: throttling: %w", d.File, err)
		}
		root, err := openRoot(d)
		if err != nil {
			return err
		}
		if root.Node == "" {
			root.Node = fmt.Sprintf("#block%d", i)
		}
		b.disks = append(b.disks, backend.New(root, backend.Options{ID: d.ID, DetectZeroes: detectZeroes(d.DetectZeroes), Limits: l}))
	}
	return nil
}

// openRoot opens one disk's image.
func openRoot(d spec.Disk) (root backend.Root, err error) {
	if d.Format != "" && d.Format != "raw" || d.Cache != "writeback" {
		return root, fmt.Errorf("disk %s: format %q with cache %q is not supported yet", d.File, d.Format, d.Cache)
	}
	disk, err := raw.Open(d.File, raw.Options{ReadOnly: d.ReadOnly, Discard: d.Discard == "unmap"})
	return backend.Root{Node: d.NodeName, Disk: disk}, err
}

// addDisks makes the devices of the disks that are open.
func (b *board) addDisks(cfg Config) error {
	for i, d := range cfg.Spec.Disks {
		dev, err := blk.New(b.disks[i], blk.Config{
			Serial: d.Serial, ReadOnly: d.ReadOnly, Queues: d.Queues, Discard: d.Discard == "unmap",
			WriteThrough: d.Cache == "writethrough" || d.Cache == "directsync",
		})
		if err == nil {
			err = b.add(cfg, dev)
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
