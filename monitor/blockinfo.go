package monitor

import (
	"encoding/json"
	"slices"

	"berth/block"
	"berth/block/formats"
	"berth/machine"
	"berth/qmp"
)

// blockInfo is QEMU's BlockInfo.
type blockInfo struct {
	Device    string      `json:"device"`
	Path      *string     `json:"qdev"`
	Type      string      `json:"type"`
	Removable bool        `json:"removable"`
	Locked    bool        `json:"locked"`
	Inserted  *nodeInfo   `json:"inserted"`
	TrayOpen  *bool       `json:"tray_open"`
	Status    *diskStatus `json:"io-status"`
}

type diskStatus string

// Values implements qmp.Enum.
func (diskStatus) Values() []string { return []string{"ok", "failed", "nospace"} }

// nodeInfo is QEMU's BlockDeviceInfo: a node, and what the device above it adds.
type nodeInfo struct {
	File      string       `json:"file"`
	Name      *string      `json:"node-name"`
	ReadOnly  bool         `json:"ro"`
	Driver    string       `json:"drv"`
	Backing   *string      `json:"backing_file"`
	Depth     int64        `json:"backing_file_depth"`
	Encrypted bool         `json:"encrypted"`
	Zeroes    detectZeroes `json:"detect_zeroes"`
	throttling
	Image     imageInfo    `json:"image"`
	Group     *string      `json:"group"`
	Cache     cacheInfo    `json:"cache"`
	Threshold int64        `json:"write_threshold"`
	Bitmaps   []bitmapInfo `json:"dirty-bitmaps,omitempty"`
}

type cacheInfo struct {
	Writeback bool `json:"writeback"`
	Direct    bool `json:"direct"`
	NoFlush   bool `json:"no-flush"`
}

type bitmapInfo struct {
	Name         *string `json:"name"`
	Count        int64   `json:"count"` // bytes
	Granularity  int64   `json:"granularity"`
	Recording    bool    `json:"recording"`
	Busy         bool    `json:"busy"`
	Persistent   bool    `json:"persistent"`
	Inconsistent *bool   `json:"inconsistent"`
}

// imageInfo is QEMU's ImageInfo.
type imageInfo struct {
	Filename  string         `json:"filename"`
	Format    string         `json:"format"`
	Dirty     *bool          `json:"dirty-flag"`
	Actual    *int64         `json:"actual-size"`
	Size      int64          `json:"virtual-size"`
	Cluster   *int64         `json:"cluster-size"`
	Encrypted *bool          `json:"encrypted"`
	Packed    *bool          `json:"compressed"`
	Backing   *string        `json:"backing-filename"`
	Full      *string        `json:"full-backing-filename"`
	Stated    *string        `json:"backing-filename-format"`
	Snapshots []snapshotInfo `json:"snapshots,omitempty"`
	Below     *imageInfo     `json:"backing-image"`
	Specific  *specificInfo  `json:"format-specific"`
}

type snapshotInfo struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	State   int64  `json:"vm-state-size"`
	Date    int64  `json:"date-sec"`
	DateNS  int64  `json:"date-nsec"`
	Clock   int64  `json:"vm-clock-sec"`
	ClockNS int64  `json:"vm-clock-nsec"`
	ICount  *int64 `json:"icount"`
}

// specificInfo is QEMU's ImageInfoSpecific.
type specificInfo struct {
	Type  specificKind        `json:"type" qmp:"tag"`
	Qcow2 *wrapped[qcow2Info] `json:"-" qmp:"case=qcow2"`
	VMDK  *wrapped[vmdkInfo]  `json:"-" qmp:"case=vmdk"`
}

type specificKind string

// Values implements qmp.Enum.
func (specificKind) Values() []string { return []string{"qcow2", "vmdk"} }

type qcow2Info struct {
	Compat      string            `json:"compat"`
	DataFile    *string           `json:"data-file"`
	DataRaw     *bool             `json:"data-file-raw"`
	ExtendedL2  *bool             `json:"extended-l2"`
	Lazy        *bool             `json:"lazy-refcounts"`
	Corrupt     *bool             `json:"corrupt"`
	Refcount    int64             `json:"refcount-bits"`
	Bitmaps     []qcow2BitmapInfo `json:"bitmaps,omitempty"`
	Compression compression       `json:"compression-type"`
}

type qcow2BitmapInfo struct {
	Name        string       `json:"name"`
	Granularity int64        `json:"granularity"`
	Flags       []bitmapFlag `json:"flags"`
}

type (
	compression string
	bitmapFlag  string
)

// Values implements qmp.Enum.
func (compression) Values() []string { return []string{"zlib", "zstd"} }

// Values implements qmp.Enum.
func (bitmapFlag) Values() []string { return []string{"in-use", "auto"} }

type vmdkInfo struct {
	Type    string      `json:"create-type"`
	CID     int64       `json:"cid"`
	Parent  int64       `json:"parent-cid"`
	Extents []imageInfo `json:"extents"`
}

// describeDrive is a drive as query-block has it.
func describeDrive(d *machine.Drive) blockInfo {
	status := diskStatus("ok")
	n := describeNode(d.Root, true)
	n.throttling = throttlingOf(d.Limits())
	if d.Limits().Any() {
		n.Group = optional(d.Group)
	}
	n.Cache.Writeback = d.WriteCache()
	return blockInfo{Device: d.Name, Path: optional(d.Path), Type: "unknown", Inserted: &n, Status: &status}
}

// describeNode is a node; deep tells of what it stands on too.
func describeNode(n *formats.Node, deep bool) nodeInfo {
	image := n.Describe()
	info := nodeInfo{
		File: n.Filename, Name: &n.Name, ReadOnly: n.ReadOnly, Driver: n.Driver, Backing: optional(n.BackingFilename),
		Encrypted: image.Encrypted, Zeroes: detectZeroes(n.DetectZeroes), Image: describeImage(image),
		Cache:   cacheInfo{Writeback: true, Direct: n.Direct(), NoFlush: n.NoFlush()},
		Bitmaps: describeBitmaps(n),
	}
	if !deep {
		return info
	}
	at := &info.Image
	for b := n.Backing; b != nil; b = b.Backing {
		below := describeImage(b.Describe())
		at.Below, at = &below, &below
		info.Depth++
	}
	return info
}

func describeImage(i formats.ImageInfo) imageInfo {
	info := imageInfo{Filename: i.Filename, Format: i.Format, Dirty: &i.Dirty, Size: i.Size, Backing: optional(i.Backing), Full: optional(i.FullBacking), Stated: optional(i.BackingFormat)}
	if i.Allocated >= 0 {
		info.Actual = &i.Allocated
	}
	if i.ClusterSize != 0 {
		info.Cluster = &i.ClusterSize
	}
	yes := true
	if i.Encrypted {
		info.Encrypted = &yes
	}
	if i.Compressed {
		info.Packed = &yes
	}
	for _, s := range i.Snapshots {
		d := snapshotInfo{
			ID: s.ID, Name: s.Name, State: s.VMStateSize, Date: s.Date.Unix(), DateNS: int64(s.Date.Nanosecond()),
			Clock: int64(s.VMClock / 1e9), ClockNS: int64(s.VMClock % 1e9),
		}
		if s.ICount >= 0 {
			d.ICount = &s.ICount
		}
		info.Snapshots = append(info.Snapshots, d)
	}
	info.Specific = describeSpecific(i)
	return info
}

// describeSpecific is what a format says of its image beside what all say.
func describeSpecific(i formats.ImageInfo) *specificInfo {
	s := &specificInfo{Type: specificKind(i.Format)}
	var to any
	switch i.Format {
	case "qcow2":
		s.Qcow2 = &wrapped[qcow2Info]{}
		to = &s.Qcow2.Data
	case "vmdk":
		s.VMDK = &wrapped[vmdkInfo]{}
		to = &s.VMDK.Data
	}
	if i.Specific == nil || to == nil {
		return nil
	}
	b, err := json.Marshal(object(i.Specific))
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		return nil
	}
	return s
}

// object is a description as encoding/json has objects.
func object(fields []block.Field) map[string]any {
	m := map[string]any{}
	for _, f := range fields {
		switch v := f.Value.(type) {
		case []block.Field:
			m[f.Name] = object(v)
		case [][]block.Field:
			list := []any{}
			for _, e := range v {
				list = append(list, object(e))
			}
			m[f.Name] = list
		default:
			m[f.Name] = v
		}
	}
	return m
}

// describeBitmaps lists the bitmaps of a node's image.
func describeBitmaps(n *formats.Node) (list []bitmapInfo) {
	b, ok := n.Image.(block.Bitmapper)
	if !ok {
		return nil
	}
	for _, i := range b.Bitmaps() {
		d := bitmapInfo{Name: optional(i.Name), Granularity: i.Granularity, Recording: i.Auto && !i.InUse, Persistent: true}
		if i.InUse {
			d.Inconsistent = &i.InUse
		} else if err := b.DirtyRanges(i.Name, func(_, n int64) bool { d.Count += n; return true }); err != nil {
			d.Inconsistent = new(bool)
			*d.Inconsistent = true
		}
		list = append(list, d)
	}
	return list
}

// queryBlock lists the disks.
func (m *Monitor) queryBlock(*qmp.Call, *qmp.None) (list []blockInfo, err error) {
	err = m.vm.Do(func() error {
		for _, d := range m.vm.Drives() {
			list = append(list, describeDrive(d))
		}
		return nil
	})
	return list, err
}

type queryNodes struct {
	Flat *bool `json:"flat"`
}

// queryNodes lists all nodes, the newest first.
func (m *Monitor) queryNodes(_ *qmp.Call, a *queryNodes) (list []nodeInfo, err error) {
	m.vm.Nodes().Each(func(n *formats.Node) { list = append(list, describeNode(n, a.Flat == nil || !*a.Flat)) })
	slices.Reverse(list)
	return list, nil
}
