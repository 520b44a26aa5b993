package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/rundir"
)

// counted is what has been counted of a running VM until one moment.
type counted struct {
	rundir.Usage
	status string
	memory int64            // bytes that the guest has
	disks  map[string]moved // by device
	nics   map[string]moved // by ID
}

// moved is what has passed a disk or a NIC: read by the guest and written.
type moved struct{ inBytes, outBytes, inOps, outOps uint64 }

// count asks everybody who knows.
func count(ctx context.Context, v *rundir.VM) (c counted, err error) {
	if c.Usage, err = v.Usage(); err != nil {
		return c, err
	}
	c.memory = int64(v.Spec.Memory.Size)
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	q, err := v.Monitor(ctx, nil)
	if err != nil {
		c.status = "no answer"
		return c, nil
	}
	defer q.Close()
	var status struct {
		Status string `json:"status"`
	}
	var disks []struct {
		Device string `json:"device"`
		Node   string `json:"node-name"`
		Stats  struct {
			ReadBytes  uint64 `json:"rd_bytes"`
			WriteBytes uint64 `json:"wr_bytes"`
			Reads      uint64 `json:"rd_operations"`
			Writes     uint64 `json:"wr_operations"`
		} `json:"stats"`
	}
	var nics []struct {
		ID        string `json:"id"`
		RxBytes   uint64 `json:"rx-bytes"`
		TxBytes   uint64 `json:"tx-bytes"`
		RxPackets uint64 `json:"rx-packets"`
		TxPackets uint64 `json:"tx-packets"`
	}
	err = errors.Join(q.Do(ctx, "query-status", nil, &status), q.Do(ctx, "query-blockstats", nil, &disks), q.Do(ctx, "__berth_query-nics", nil, &nics))
	if err != nil {
		c.status = "no answer" // it ends, or a dump keeps its monitor busy
		return c, nil
	}
	c.status, c.disks, c.nics = status.Status, map[string]moved{}, map[string]moved{}
	for i, d := range disks {
		name := d.Device
		if name == "" {
			name = d.Node
		}
		if name == "" {
			name = fmt.Sprintf("disk%d", i)
		}
		c.disks[name] = moved{d.Stats.ReadBytes, d.Stats.WriteBytes, d.Stats.Reads, d.Stats.Writes}
	}
	for _, n := range nics {
		c.nics[n.ID] = moved{n.RxBytes, n.TxBytes, n.RxPackets, n.TxPackets}
	}
	return c, nil
}

// topCommand shows what running VMs do in a second.
func topCommand(stdout io.Writer) *cobra.Command {
	var every time.Duration
	var times int
	c := &cobra.Command{
		Use: "top [VM]", Short: "Show what running VMs use: vCPUs, disks and network cards", Args: cobra.MaximumNArgs(1),
		Long: "Show what this user's running VMs use, one line each, or of one VM each vCPU, disk and network card.\n" +
			"On a terminal it goes on until Ctrl-C; otherwise it prints once.",
		ValidArgsFunction: completeVM,
		RunE: func(c *cobra.Command, args []string) error {
			if every < 100*time.Millisecond {
				return fmt.Errorf("--interval %s: at least 100ms are needed", every)
			}
			f, ok := stdout.(*os.File)
			t := top{every: every, times: times, clear: ok && term.IsTerminal(int(f.Fd())), out: stdout}
			if t.times == 0 && !t.clear {
				t.times = 1
			}
			if len(args) > 0 {
				t.only = args[0]
			}
			return t.run(c.Context())
		},
	}
	c.Flags().DurationVarP(&every, "interval", "i", 2*time.Second, "`TIME` that rates are taken over")
	c.Flags().IntVarP(&times, "count", "n", 0, "how often it is shown; 0: until Ctrl-C on a terminal, else once")
	return c
}

// top is one run of the command.
type top struct {
	every time.Duration
	times int
	clear bool   // the screen, before it is written anew
	only  string // the VM, "" all
	out   io.Writer
}

func (t *top) run(ctx context.Context) error {
	before, err := t.look(ctx)
	if err != nil {
		return err
	}
	for n := 0; t.times == 0 || n < t.times; n++ {
		select {
		case <-time.After(t.every):
		case <-ctx.Done():
			return nil
		}
		now, err := t.look(ctx)
		if err != nil {
			return err
		}
		if t.clear {
			fmt.Fprint(t.out, "\x1b[H\x1b[2J")
		}
		if err := t.show(before, now); err != nil {
			return err
		}
		before = now
	}
	return nil
}

// look counts what the VMs that are to be shown have done.
func (t *top) look(ctx context.Context) (map[string]counted, error) {
	list, err := rundir.List(rundir.Root())
	if t.only != "" {
		var v *rundir.VM
		if v, err = rundir.Find(rundir.Root(), t.only); err == nil {
			list = []rundir.VM{*v}
		}
	}
	if err != nil {
		return nil, err
	}
	all := map[string]counted{}
	for i := range list {
		c, err := count(ctx, &list[i])
		if errors.Is(err, rundir.ErrNotFound) {
			continue // ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", list[i].Name, err)
		}
		all[list[i].Name] = c
	}
	return all, nil
}

func (t *top) show(before, now map[string]counted) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 3, ' ', tabwriter.AlignRight)
	if t.only != "" {
		showParts(w, before[t.only], now[t.only])
		return w.Flush()
	}
	fmt.Fprintln(w, "NAME\tSTATUS\tVCPU%\tCPU%\tMEMORY\tREAD/s\tWRITE/s\tIO/s\tIN/s\tOUT/s\tPKT/s\t")
	for _, name := range slices.Sorted(maps.Keys(now)) {
		a, b := before[name], now[name]
		r := rates{b.At.Sub(a.At).Seconds()}
		d, n := r.sum(a.disks, b.disks), r.sum(a.nics, b.nics)
		var vcpus time.Duration
		for i, spent := range b.VCPUs {
			vcpus += spent - a.VCPUs[i]
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%s/%s\t%s\t%s\t%.0f\t%s\t%s\t%.0f\t\n", name, b.status, r.percent(vcpus), r.percent(b.CPU-a.CPU),
			amount(float64(b.Resident)), amount(float64(b.memory)), amount(d.inBytes), amount(d.outBytes), d.inOps+d.outOps,
			amount(n.inBytes), amount(n.outBytes), n.inOps+n.outOps)
	}
	return w.Flush()
}

// showParts shows one VM's vCPUs, disks and network cards.
func showParts(w io.Writer, a, b counted) {
	r := rates{b.At.Sub(a.At).Seconds()}
	fmt.Fprintln(w, "PART\tCPU%\tIN/s\tOUT/s\tIN-OPS/s\tOUT-OPS/s\t")
	for _, i := range slices.Sorted(maps.Keys(b.VCPUs)) {
		fmt.Fprintf(w, "vCPU %d\t%.0f\t\t\t\t\t\n", i, r.percent(b.VCPUs[i]-a.VCPUs[i]))
	}
	fmt.Fprintf(w, "process\t%.0f\t\t\t\t\t\n", r.percent(b.CPU-a.CPU))
	for _, p := range []struct {
		what          string
		before, after map[string]moved
	}{{"disk", a.disks, b.disks}, {"nic", a.nics, b.nics}} {
		for _, name := range slices.Sorted(maps.Keys(p.after)) {
			m := r.of(p.before[name], p.after[name])
			fmt.Fprintf(w, "%s %s\t\t%s\t%s\t%.0f\t%.0f\t\n", p.what, name, amount(m.inBytes), amount(m.outBytes), m.inOps, m.outOps)
		}
	}
}

// rates makes rates of what was counted that many seconds apart.
type rates struct{ seconds float64 }

type rate struct{ inBytes, outBytes, inOps, outOps float64 }

func (r rates) percent(spent time.Duration) float64 { return max(spent.Seconds()/r.seconds*100, 0) }

// of is what passed in a second; what began anew in between counts from then on.
func (r rates) of(a, b moved) rate {
	per := func(a, b uint64) float64 {
		if b < a {
			a = 0
		}
		return float64(b-a) / r.seconds
	}
	return rate{per(a.inBytes, b.inBytes), per(a.outBytes, b.outBytes), per(a.inOps, b.inOps), per(a.outOps, b.outOps)}
}

func (r rates) sum(a, b map[string]moved) (s rate) {
	for name, m := range b {
		one := r.of(a[name], m)
		s.inBytes, s.outBytes, s.inOps, s.outOps = s.inBytes+one.inBytes, s.outBytes+one.outBytes, s.inOps+one.inOps, s.outOps+one.outOps
	}
	return s
}

// amount is a number of bytes with three digits or four.
func amount(v float64) string {
	units := []string{"", "K", "M", "G", "T"}
	for v >= 1024 && len(units) > 1 {
		v, units = v/1024, units[1:]
	}
	if s := fmt.Sprintf("%.1f", v); v < 10 && units[0] != "" && !strings.HasSuffix(s, ".0") {
		return s + units[0]
	}
	return fmt.Sprintf("%.0f%s", v, units[0])
}
