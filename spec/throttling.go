package spec

// Throttling limits what a disk may be asked for, with QEMU's keys and meanings:
// operations and bytes a second, and the rates of bursts with the seconds that
// they may last. 0 stands for no limit.
type Throttling struct {
	IOPSTotal          int64 `json:"iopsTotal,omitempty" short:"iops"`
	IOPSRead           int64 `json:"iopsRead,omitempty" short:"iops_rd"`
	IOPSWrite          int64 `json:"iopsWrite,omitempty" short:"iops_wr"`
	IOPSTotalMax       int64 `json:"iopsTotalMax,omitempty" short:"iops_max"`
	IOPSReadMax        int64 `json:"iopsReadMax,omitempty" short:"iops_rd_max"`
	IOPSWriteMax       int64 `json:"iopsWriteMax,omitempty" short:"iops_wr_max"`
	IOPSTotalMaxLength int64 `json:"iopsTotalMaxLength,omitempty"`
	IOPSReadMaxLength  int64 `json:"iopsReadMaxLength,omitempty"`
	IOPSWriteMaxLength int64 `json:"iopsWriteMaxLength,omitempty"`
	BPSTotal           int64 `json:"bpsTotal,omitempty" short:"bps"`
	BPSRead            int64 `json:"bpsRead,omitempty" short:"bps_rd"`
	BPSWrite           int64 `json:"bpsWrite,omitempty" short:"bps_wr"`
	BPSTotalMax        int64 `json:"bpsTotalMax,omitempty" short:"bps_max"`
	BPSReadMax         int64 `json:"bpsReadMax,omitempty" short:"bps_rd_max"`
	BPSWriteMax        int64 `json:"bpsWriteMax,omitempty" short:"bps_wr_max"`
	BPSTotalMaxLength  int64 `json:"bpsTotalMaxLength,omitempty"`
	BPSReadMaxLength   int64 `json:"bpsReadMaxLength,omitempty"`
	BPSWriteMaxLength  int64 `json:"bpsWriteMaxLength,omitempty"`
	// IOPSSize is the number of bytes above which a request counts as several.
	IOPSSize int64 `json:"iopsSize,omitempty" short:"iops_size"`
}
