package monitor

import (
	"berth/block/formats"
	"berth/qmp"
)

// blockdevOptions is QEMU's BlockdevOptions, of the drivers that there are.
type blockdevOptions struct {
	Driver       blockDriver    `json:"driver" qmp:"tag"`
	Name         *string        `json:"node-name"`
	Discard      *discardMode   `json:"discard"`
	Cache        *cacheOptions  `json:"cache"`
	ReadOnly     *bool          `json:"read-only"`
	AutoReadOnly *bool          `json:"auto-read-only"`
	ForceShare   *bool          `json:"force-share"`
	Zeroes       *detectZeroes  `json:"detect-zeroes"`
	File         *fileOptions   `json:"-" qmp:"case=file"`
	HostDevice   *fileOptions   `json:"-" qmp:"case=host_device"`
	Raw          *rawOptions    `json:"-" qmp:"case=raw"`
	Qcow2        *qcow2Options  `json:"-" qmp:"case=qcow2"`
	VMDK         *backedOptions `json:"-" qmp:"case=vmdk"`
	VHDX         *formatOptions `json:"-" qmp:"case=vhdx"`
	VPC          *formatOptions `json:"-" qmp:"case=vpc"`
	VDI          *formatOptions `json:"-" qmp:"case=vdi"`
}

type (
	cacheOptions struct {
		Direct  *bool `json:"direct"`
		NoFlush *bool `json:"no-flush"`
	}
	fileOptions struct {
		Filename  string   `json:"filename"`
		Locking   *onOff   `json:"locking"`
		AIO       *aioMode `json:"aio"`
		MaxBatch  *int64   `json:"aio-max-batch"`
		DropCache *bool    `json:"drop-cache"`
	}
	formatOptions struct {
		File blockdevRef `json:"file"`
	}
	rawOptions struct {
		formatOptions
		Offset *int64 `json:"offset"`
		Size   *int64 `json:"size"`
	}
	backedOptions struct {
		formatOptions
		Backing *blockdevRefOrNull `json:"backing"`
	}
	qcow2Options struct {
		backedOptions
		Lazy          *bool         `json:"lazy-refcounts"`
		PassRequest   *bool         `json:"pass-discard-request"`
		PassSnapshot  *bool         `json:"pass-discard-snapshot"`
		PassOther     *bool         `json:"pass-discard-other"`
		Overlap       *overlapCheck `json:"overlap-check"`
		Cache         *int64        `json:"cache-size"`
		L2Cache       *int64        `json:"l2-cache-size"`
		L2Entry       *int64        `json:"l2-cache-entry-size"`
		RefcountCache *int64        `json:"refcount-cache-size"`
		Clean         *uint64       `json:"cache-clean-interval"`
		DataFile      *blockdevRef  `json:"data-file"`
	}
	// blockdevRef is a node of its own, or the name of one that there is.
	blockdevRef struct {
		qmp.Alternate
		Definition *blockdevOptions
		Reference  *string
	}
	blockdevRefOrNull struct {
		qmp.Alternate
		Definition *blockdevOptions
		Reference  *string
		None       *qmp.Null
	}
	overlapCheck struct {
		qmp.Alternate
		Flags *overlapFlags
		Mode  *overlapMode
	}
	overlapFlags struct {
		Template   *overlapMode `json:"template"`
		Header     *bool        `json:"main-header"`
		ActiveL1   *bool        `json:"active-l1"`
		ActiveL2   *bool        `json:"active-l2"`
		Table      *bool        `json:"refcount-table"`
		Block      *bool        `json:"refcount-block"`
		Snapshots  *bool        `json:"snapshot-table"`
		InactiveL1 *bool        `json:"inactive-l1"`
		InactiveL2 *bool        `json:"inactive-l2"`
		Bitmaps    *bool        `json:"bitmap-directory"`
	}
	nodeName struct {
		Name string `json:"node-name"`
	}
)

// Enums of blockdevOptions, with their values.
type (
	blockDriver  string
	discardMode  string
	detectZeroes string
	onOff        string
	aioMode      string
	overlapMode  string
)

// Values implements qmp.Enum, as do those that follow.
func (blockDriver) Values() []string {
	return []string{"file", "host_device", "qcow2", "raw", "vdi", "vhdx", "vmdk", "vpc"}
}

// Values are described with blockDriver's.
func (discardMode) Values() []string { return []string{"ignore", "unmap"} }

// Values are described with blockDriver's.
func (detectZeroes) Values() []string { return []string{"off", "on", "unmap"} }

// Values are described with blockDriver's.
func (onOff) Values() []string { return []string{"auto", "on", "off"} }

// Values are described with blockDriver's.
func (aioMode) Values() []string { return []string{"threads", "native", "io_uring"} }

// Values are described with blockDriver's.
func (overlapMode) Values() []string { return []string{"none", "constant", "cached", "all"} }

// blockdevCommands are those that add nodes and remove them.
func (m *Monitor) blockdevCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("blockdev-add", "Opens an image, or a file, as a block node, and what it stands on. A device is given it by its name; it is closed by blockdev-del.", m.addBlockdev),
		qmp.Define("blockdev-del", "Closes a block node that nothing uses, which blockdev-add opened.", func(_ *qmp.Call, a *nodeName) (qmp.None, error) {
			return qmp.None{}, m.vm.Nodes().Delete(a.Name)
		}),
	}
}

// addBlockdev hands on what came as it came: the options have been checked, and
// package formats has names of its own for none of them.
func (m *Monitor) addBlockdev(c *qmp.Call, _ *blockdevOptions) (qmp.None, error) {
	return qmp.None{}, m.vm.Nodes().Add(formats.Options{
		Values: formats.Flatten(c.Raw), Stated: true,
		Report: func(line string) { m.cfg.Log.Warn(line) },
	})
}
