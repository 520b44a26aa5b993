package monitor

import (
	"cmp"

	"berth/monitor/hmp"
)

// infoBlock are the subcommands of info about disks.
func (m *Monitor) infoBlock() []humanCommand {
	return []humanCommand{
		{
			name: "block", params: "[-n] [device]", help: "show info of one block device or all block devices (-n: show named nodes)", needs: "query-block",
			args: []hmp.Arg{{Name: "n", Kind: hmp.Flag}, {Name: "device", Kind: hmp.Block, Optional: true, Values: m.driveNames}}, run: m.humanBlock,
		},
		{name: "blockstats", help: "show block device statistics", needs: "query-blockstats", run: m.humanBlockStats},
		{name: "block-jobs", help: "show progress of ongoing block device operations", needs: "query-block-jobs", run: func(h *human) error {
			_, err := h.do("query-block-jobs")
			h.Printf("No active jobs\n")
			return err
		}},
	}
}

func (m *Monitor) humanBlock(h *human) error {
	first, want := true, h.Text("device")
	apart := func() {
		if !first {
			h.Printf("\n")
		}
		first = false
	}
	if h.On("n") {
		nodes, err := answer[[]nodeInfo](h, "query-named-block-nodes")
		for _, n := range nodes {
			if want == "" || want == value(n.Name) {
				apart()
				h.Printf("%s", value(n.Name))
				h.node(&n)
			}
		}
		return err
	}
	list, err := answer[[]blockInfo](h, "query-block")
	for _, b := range list {
		if want != "" && want != b.Device {
			continue
		}
		apart()
		h.disk(&b)
	}
	return err
}

// disk prints one disk.
func (h *human) disk(b *blockInfo) {
	n := b.Inserted
	switch {
	case n == nil:
		h.Printf("%s: [not inserted]\n", cmp.Or(b.Device, value(b.Path)))
	case b.Device != "" && n.Name != nil:
		h.Printf("%s (%s)", b.Device, *n.Name)
	default:
		h.Printf("%s", cmp.Or(b.Device, value(n.Name), value(b.Path), "<anonymous>"))
	}
	if n != nil {
		h.image(n)
	}
	if b.Path != nil {
		h.Printf("    Attached to:      %s\n", *b.Path)
	}
	if b.Status != nil && *b.Status != "ok" {
		h.Printf("    I/O status:       %s\n", *b.Status)
	}
	if n != nil {
		h.settings(n)
	}
}

// node prints one node, whose name is printed already.
func (h *human) node(n *nodeInfo) {
	h.image(n)
	h.settings(n)
}

func (h *human) image(n *nodeInfo) {
	readOnly := ""
	if n.ReadOnly {
		readOnly = ", read-only"
	}
	h.Printf(": %s (%s%s)\n", n.File, n.Driver, readOnly)
}

func (h *human) settings(n *nodeInfo) {
	mode := "writethrough"
	if n.Cache.Writeback {
		mode = "writeback"
	}
	if n.Cache.Direct {
		mode += ", direct"
	}
	if n.Cache.NoFlush {
		mode += ", ignore flushes"
	}
	h.Printf("    Cache mode:       %s\n", mode)
	if n.Backing != nil {
		h.Printf("    Backing file:     %s (chain depth: %d)\n", *n.Backing, n.Depth)
	}
	if n.Zeroes != "off" {
		h.Printf("    Detect zeroes:    %s\n", n.Zeroes)
	}
	t := n.throttling
	if t.Bytes|t.BytesRead|t.BytesWrite|t.Ops|t.OpsRead|t.OpsWrite != 0 {
		or := func(p *int64) int64 {
			if p == nil {
				return 0
			}
			return *p
		}
		h.Printf("    I/O throttling:   bps=%d bps_rd=%d bps_wr=%d bps_max=%d bps_rd_max=%d bps_wr_max=%d iops=%d iops_rd=%d iops_wr=%d iops_max=%d iops_rd_max=%d iops_wr_max=%d iops_size=%d group=%s\n",
			t.Bytes, t.BytesRead, t.BytesWrite, or(t.BytesMax), or(t.BytesReadMax), or(t.BytesWriteMax),
			t.Ops, t.OpsRead, t.OpsWrite, or(t.OpsMax), or(t.OpsReadMax), or(t.OpsWriteMax), or(t.OpsSize), value(n.Group))
	}
}

func (m *Monitor) humanBlockStats(h *human) error {
	list, err := answer[[]blockStats](h, "query-blockstats")
	for _, b := range list {
		if value(b.Device) == "" {
			continue
		}
		s := b.Stats
		h.Printf("%s: rd_bytes=%d wr_bytes=%d rd_operations=%d wr_operations=%d flush_operations=%d wr_total_time_ns=%d rd_total_time_ns=%d flush_total_time_ns=%d rd_merged=%d wr_merged=%d",
			*b.Device, s.ReadBytes, s.WriteBytes, s.Reads, s.Writes, s.Flushes, s.WriteTime, s.ReadTime, s.FlushTime, s.MergedReads, s.MergedWrites)
		if s.Idle != nil {
			h.Printf(" idle_time_ns=%d", *s.Idle)
		}
		h.Printf("\n")
	}
	return err
}
