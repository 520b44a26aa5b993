package monitor

import (
	"berth/block/backend"
	"berth/block/formats"
	"berth/block/raw"
	"berth/machine"
	"berth/qmp"
)

// blockStats is QEMU's BlockStats.
type blockStats struct {
	Device  *string      `json:"device"`
	Path    *string      `json:"qdev"`
	Node    *string      `json:"node-name"`
	Stats   diskStats    `json:"stats"`
	Driver  *driverStats `json:"driver-specific"`
	Parent  *blockStats  `json:"parent"`
	Backing *blockStats  `json:"backing"`
}

// diskStats is QEMU's BlockDeviceStats. Nothing is merged, and no intervals are timed.
type diskStats struct {
	ReadBytes    int64       `json:"rd_bytes"`
	WriteBytes   int64       `json:"wr_bytes"`
	UnmapBytes   int64       `json:"unmap_bytes"`
	Reads        int64       `json:"rd_operations"`
	Writes       int64       `json:"wr_operations"`
	Flushes      int64       `json:"flush_operations"`
	Unmaps       int64       `json:"unmap_operations"`
	ReadTime     int64       `json:"rd_total_time_ns"`
	WriteTime    int64       `json:"wr_total_time_ns"`
	FlushTime    int64       `json:"flush_total_time_ns"`
	UnmapTime    int64       `json:"unmap_total_time_ns"`
	Highest      int64       `json:"wr_highest_offset"`
	MergedReads  int64       `json:"rd_merged"`
	MergedWrites int64       `json:"wr_merged"`
	MergedUnmaps int64       `json:"unmap_merged"`
	Idle         *int64      `json:"idle_time_ns"`
	FailedRead   int64       `json:"failed_rd_operations"`
	FailedWrite  int64       `json:"failed_wr_operations"`
	FailedFlush  int64       `json:"failed_flush_operations"`
	FailedUnmap  int64       `json:"failed_unmap_operations"`
	InvalidRead  int64       `json:"invalid_rd_operations"`
	InvalidWrite int64       `json:"invalid_wr_operations"`
	InvalidFlush int64       `json:"invalid_flush_operations"`
	InvalidUnmap int64       `json:"invalid_unmap_operations"`
	WithInvalid  bool        `json:"account_invalid"`
	WithFailed   bool        `json:"account_failed"`
	Timed        []timedStat `json:"timed_stats"`
}

// timedStat is QEMU's BlockDeviceTimedStats, of which there are none.
type timedStat struct {
	Length   int64   `json:"interval_length"`
	MinRead  int64   `json:"min_rd_latency_ns"`
	MaxRead  int64   `json:"max_rd_latency_ns"`
	AvgRead  int64   `json:"avg_rd_latency_ns"`
	MinWrite int64   `json:"min_wr_latency_ns"`
	MaxWrite int64   `json:"max_wr_latency_ns"`
	AvgWrite int64   `json:"avg_wr_latency_ns"`
	MinFlush int64   `json:"min_flush_latency_ns"`
	MaxFlush int64   `json:"max_flush_latency_ns"`
	AvgFlush int64   `json:"avg_flush_latency_ns"`
	Reads    float64 `json:"avg_rd_queue_depth"`
	Writes   float64 `json:"avg_wr_queue_depth"`
}

// driverStats is QEMU's BlockStatsSpecific.
type driverStats struct {
	Driver     blockDriver `json:"driver" qmp:"tag"`
	File       *fileStats  `json:"-" qmp:"case=file"`
	HostDevice *fileStats  `json:"-" qmp:"case=host_device"`
}

type fileStats struct {
	Discards int64 `json:"discard-nb-ok"`
	Failed   int64 `json:"discard-nb-failed"`
	Bytes    int64 `json:"discard-bytes-ok"`
}

type queryStats struct {
	Nodes *bool `json:"query-nodes"`
}

func (m *Monitor) queryBlockStats(_ *qmp.Call, a *queryStats) (list []blockStats, err error) {
	if a.Nodes != nil && *a.Nodes {
		m.vm.Nodes().Each(func(n *formats.Node) { list = append(list, nodeStats(n, false)) })
		return list, nil
	}
	err = m.vm.Do(func() error {
		for _, d := range m.vm.Drives() {
			list = append(list, driveStats(d))
		}
		return nil
	})
	return list, err
}

// driveStats is what a disk has done, and the nodes that it stands on.
func driveStats(d *machine.Drive) blockStats {
	s := nodeStats(d.Root, true)
	b := d.Stats()
	s.Device, s.Path, s.Stats = &d.Name, optional(d.Path), deviceStats(b)
	if d.Root.Driver == "raw" && s.Parent != nil { // an io_uring passes the file by
		s.Parent.Stats.Highest = max(s.Parent.Stats.Highest, b.HighestWrite)
	}
	return s
}

func deviceStats(b backend.Stats) diskStats {
	s := diskStats{
		ReadBytes: b.Read.Bytes, WriteBytes: b.Write.Bytes, UnmapBytes: b.Unmap.Bytes,
		Reads: b.Read.Operations, Writes: b.Write.Operations, Flushes: b.Flush.Operations, Unmaps: b.Unmap.Operations,
		ReadTime: int64(b.Read.Time), WriteTime: int64(b.Write.Time), FlushTime: int64(b.Flush.Time), UnmapTime: int64(b.Unmap.Time),
		Highest:    b.HighestWrite,
		FailedRead: b.Read.Failed, FailedWrite: b.Write.Failed, FailedFlush: b.Flush.Failed, FailedUnmap: b.Unmap.Failed,
		InvalidRead: b.Read.Invalid, InvalidWrite: b.Write.Invalid, InvalidFlush: b.Flush.Invalid, InvalidUnmap: b.Unmap.Invalid,
		WithInvalid: true, WithFailed: true,
	}
	if b.Idle >= 0 {
		idle := int64(b.Idle)
		s.Idle = &idle
	}
	return s
}

// nodeStats is what has passed a node and the file below it; backing tells of what
// it stands on too.
func nodeStats(n *formats.Node, backing bool) blockStats {
	s := blockStats{Node: &n.Name}
	if f, ok := n.Image.(*raw.File); ok {
		t := f.Traffic()
		s.Stats.Highest = t.HighestWrite
		stats := &fileStats{t.Discards, t.DiscardsFailed, t.DiscardedBytes}
		s.Driver = &driverStats{Driver: blockDriver(n.Driver), File: stats}
		if n.Driver == "host_device" {
			s.Driver.File, s.Driver.HostDevice = nil, stats
		}
	}
	parent := n.File
	if n.Data != nil {
		parent = n.Data
	}
	if parent != nil {
		p := nodeStats(parent, backing)
		s.Parent = &p
	}
	if n.Backing != nil && backing {
		b := nodeStats(n.Backing, true)
		s.Backing = &b
	}
	return s
}
