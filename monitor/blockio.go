package monitor

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"berth/block"
	"berth/block/formats"
	"berth/block/throttle"
	"berth/machine"
	"berth/qmp"
)

// throttling is how QEMU writes a disk's limits: units a second, bursts of so many for
// so many seconds.
type throttling struct {
	Bytes               int64  `json:"bps"`
	BytesRead           int64  `json:"bps_rd"`
	BytesWrite          int64  `json:"bps_wr"`
	Ops                 int64  `json:"iops"`
	OpsRead             int64  `json:"iops_rd"`
	OpsWrite            int64  `json:"iops_wr"`
	BytesMax            *int64 `json:"bps_max"`
	BytesReadMax        *int64 `json:"bps_rd_max"`
	BytesWriteMax       *int64 `json:"bps_wr_max"`
	OpsMax              *int64 `json:"iops_max"`
	OpsReadMax          *int64 `json:"iops_rd_max"`
	OpsWriteMax         *int64 `json:"iops_wr_max"`
	BytesMaxLength      *int64 `json:"bps_max_length"`
	BytesReadMaxLength  *int64 `json:"bps_rd_max_length"`
	BytesWriteMaxLength *int64 `json:"bps_wr_max_length"`
	OpsMaxLength        *int64 `json:"iops_max_length"`
	OpsReadMaxLength    *int64 `json:"iops_rd_max_length"`
	OpsWriteMaxLength   *int64 `json:"iops_wr_max_length"`
	OpsSize             *int64 `json:"iops_size"`
}

// limit is one of throttling's.
type limit struct {
	to     *throttle.Limit
	rate   *int64
	max    **int64
	length **int64
}

// each pairs the limits of t with those of l.
func (t *throttling) each(l *throttle.Limits) []limit {
	return []limit{
		{&l.Bytes.Total, &t.Bytes, &t.BytesMax, &t.BytesMaxLength},
		{&l.Bytes.Read, &t.BytesRead, &t.BytesReadMax, &t.BytesReadMaxLength},
		{&l.Bytes.Write, &t.BytesWrite, &t.BytesWriteMax, &t.BytesWriteMaxLength},
		{&l.Operations.Total, &t.Ops, &t.OpsMax, &t.OpsMaxLength},
		{&l.Operations.Read, &t.OpsRead, &t.OpsReadMax, &t.OpsReadMaxLength},
		{&l.Operations.Write, &t.OpsWrite, &t.OpsWriteMax, &t.OpsWriteMaxLength},
	}
}

// throttlingOf writes l. Bursts are there where they are set.
func throttlingOf(l throttle.Limits) (t throttling) {
	for _, x := range t.each(&l) {
		*x.rate = x.to.Rate
		if x.to.Burst > 0 {
			burst, length := x.to.Burst, max(x.to.BurstFor, 1)
			*x.max, *x.length = &burst, &length
		}
	}
	if l.OperationSize > 0 {
		t.OpsSize = &l.OperationSize
	}
	return t
}

// limits reads t.
func (t *throttling) limits() (l throttle.Limits, err error) {
	for _, x := range t.each(&l) {
		x.to.Rate = *x.rate
		if *x.max != nil {
			x.to.Burst = **x.max
		}
		if *x.length != nil {
			x.to.BurstFor = **x.length
			if x.to.BurstFor == 0 {
				return l, errors.New("the burst length cannot be 0")
			}
		}
	}
	if t.OpsSize != nil {
		l.OperationSize = *t.OpsSize
	}
	return l, l.Check()
}

type ioThrottle struct {
	Device *string `json:"device"`
	ID     *string `json:"id"`
	throttling
	Group *string `json:"group"`
}

type blockResize struct {
	Device *string `json:"device"`
	Node   *string `json:"node-name"`
	Size   int64   `json:"size"`
}

// blockCommands are those about disks, their nodes and what passes them.
func (m *Monitor) blockCommands() []qmp.Command {
	return append(m.blockdevCommands(),
		qmp.Define("query-block", "The disks, and the images in them.", m.queryBlock),
		qmp.Define("query-blockstats", "What disks have done; or, with query-nodes, what has passed their nodes.", m.queryBlockStats),
		qmp.Define("query-named-block-nodes", "The block nodes, the newest first.", m.queryNodes),
		qmp.Define("block_resize", "Changes a disk's size in bytes, which the guest is told, or that of a node that no disk is made of.", m.resizeBlock),
		qmp.Define("block_set_io_throttle", "Limits what a disk may be asked for in a second, in place of what its limits were; all zero: it has none.", m.limitBlock),
		qmp.Define("query-jobs", "Jobs: there are none.", func(*qmp.Call, *qmp.None) ([]jobInfo, error) { return nil, nil }),
		qmp.Define("query-block-jobs", "Jobs on disks: there are none.", func(*qmp.Call, *qmp.None) ([]blockJobInfo, error) { return nil, nil }),
	)
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (m *Monitor) resizeBlock(_ *qmp.Call, a *blockResize) (none qmp.None, err error) {
	var drive *machine.Drive
	var node *formats.Node
	err = m.vm.Do(func() error {
		drive, node = m.find(value(a.Device), value(a.Node))
		return nil
	})
	switch {
	case err != nil:
	case node == nil:
		err = fmt.Errorf("Cannot find device='%s' nor node-name='%s'", value(a.Device), value(a.Node))
	case a.Size < 0:
		err = errors.New("Parameter 'size' expects a >0 size")
	case drive == nil:
		err = node.Resize(a.Size)
	case node.ReadOnly:
		err = errors.New("Image is read-only")
	case node.Driver != "raw" && node.File != nil && a.Size%512 != 0:
		err = errors.New("The new size must be a multiple of 512")
	default: // not on the machine's goroutine: it waits for the storage
		err = drive.Resize((a.Size + 511) &^ 511)
	}
	return none, err
}

// find is the drive and root, or the node alone, that a device's name or a node's means.
// Call it within Do.
func (m *Monitor) find(device, name string) (*machine.Drive, *formats.Node) {
	for _, d := range m.vm.Drives() {
		if device != "" && d.Name == device || name != "" && d.Root.Name == name {
			return d, d.Root
		}
	}
	if name == "" {
		return nil, nil
	}
	return nil, m.vm.Nodes().Find(name)
}

func (m *Monitor) limitBlock(_ *qmp.Call, a *ioThrottle) (none qmp.None, err error) {
	if (a.Device == nil) == (a.ID == nil) {
		return none, errors.New("Need exactly one of 'device' and 'id'")
	}
	return none, m.vm.Do(func() error {
		d, err := m.driveOf(value(a.Device), value(a.ID))
		if err != nil {
			return err
		}
		l, err := a.limits()
		if err != nil {
			return err
		}
		group := value(a.Device) + value(a.ID)
		if a.Group != nil {
			group = *a.Group
		}
		for _, other := range m.vm.Drives() {
			if l.Any() && other != d && other.Group == group && other.Limits().Any() {
				return fmt.Errorf("throttle group '%s' has the disk %s already: limits are a disk's own here", group, other.File)
			}
		}
		d.SetLimits(l)
		d.Group = group
		return nil
	})
}

// driveOf is the drive of a block device's name, or of the place of a device in the
// tree of objects: an id alone is that of what the device is plugged in with.
func (m *Monitor) driveOf(device, id string) (*machine.Drive, error) {
	for _, d := range m.vm.Drives() {
		switch {
		case device != "" && d.Name == device, id != "" && d.Path == id:
			return d, nil
		case id != "" && (d.Path == id+backendOf || d.Path == "/machine/peripheral/"+id+backendOf):
			return nil, errors.New("Device does not have a block device backend")
		}
	}
	return nil, &qmp.Error{Class: qmp.DeviceNotFound, Desc: fmt.Sprintf("Device '%s' not found", device+id)}
}

// backendOf is the part of a virtio device that is not its transport.
const backendOf = "/virtio-backend"

// ioError is the data of BLOCK_IO_ERROR.
type ioError struct {
	Device    string      `json:"device"`
	Node      *string     `json:"node-name"`
	Operation ioOperation `json:"operation"`
	Action    errorAction `json:"action"`
	NoSpace   *bool       `json:"nospace"`
	Reason    string      `json:"reason"`
}

// Similar has the errors of one disk follow one another slowly: a guest that meets
// one meets many.
func (e ioError) Similar() string { return e.Device + " " + value(e.Node) }

type (
	ioOperation string
	errorAction string
)

// Values implements qmp.Enum.
func (ioOperation) Values() []string { return []string{"read", "write"} }

// Values implements qmp.Enum.
func (errorAction) Values() []string { return []string{"ignore", "report", "stop"} }

// ioErrorRate is what newer versions of QEMU have; 7.2 tells of every error.
const ioErrorRate = time.Second

func ioErrorOf(e machine.DriveError) ioError {
	full := errors.Is(e.Err, syscall.ENOSPC)
	d := ioError{Device: e.Name, Node: optional(e.Node()), Operation: "write", Action: "report", NoSpace: &full, Reason: formats.Reason(e.Err)}
	if e.Op == block.OpRead {
		d.Operation = "read"
	}
	return d
}

// jobInfo is QEMU's JobInfo.
type jobInfo struct {
	ID      string    `json:"id"`
	Type    jobType   `json:"type"`
	Status  jobStatus `json:"status"`
	Current int64     `json:"current-progress"`
	Total   int64     `json:"total-progress"`
	Error   *string   `json:"error"`
}

// blockJobInfo is QEMU's BlockJobInfo.
type blockJobInfo struct {
	Type        string     `json:"type"`
	Device      string     `json:"device"`
	Len         int64      `json:"len"`
	Offset      int64      `json:"offset"`
	Busy        bool       `json:"busy"`
	Paused      bool       `json:"paused"`
	Speed       int64      `json:"speed"`
	IO          diskStatus `json:"io-status"`
	Ready       bool       `json:"ready"`
	Status      jobStatus  `json:"status"`
	AutoFinal   bool       `json:"auto-finalize"`
	AutoDismiss bool       `json:"auto-dismiss"`
	Error       *string    `json:"error"`
}

type (
	jobType   string
	jobStatus string
)

// Values implements qmp.Enum.
func (jobType) Values() []string {
	return []string{"commit", "stream", "mirror", "backup", "create", "amend", "snapshot-load", "snapshot-save", "snapshot-delete"}
}

// Values implements qmp.Enum.
func (jobStatus) Values() []string {
	return []string{"undefined", "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting", "concluded", "null"}
}
