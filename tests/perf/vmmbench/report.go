package main

import (
	"fmt"
	"io"
	"slices"
)

// The goals. Time on the real KVM passes under TCG, where only ratios mean something.
const (
	goalStart = 20.0 // CPU-ms to the first instruction
	goalMiB   = 16.0 // private memory outside guest RAM
	goalIdle  = 1.0  // % of a core at the prompt
	goalInit  = 1.0  // ms of package initialisation
)

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[len(s)/2] + s[(len(s)-1)/2]) / 2
}

// medianOf is the median of what f takes out of runs.
func medianOf[T any](runs []T, f func(T) float64) float64 {
	var v []float64
	for _, r := range runs {
		v = append(v, f(r))
	}
	return median(v)
}

// verdict compares with a goal.
func verdict(got, goal float64) string {
	if got <= goal {
		return fmt.Sprintf("goal %g: met", goal)
	}
	return fmt.Sprintf("goal %g: MISSED", goal)
}

func reportInit(trace []initialiser, out io.Writer) {
	var clock float64
	var bytes, allocs int
	for _, i := range trace {
		clock, bytes, allocs = clock+i.Clock, bytes+i.Bytes, allocs+i.Allocs
	}
	fmt.Fprintf(out, "berth's package initialisation: %.2f ms, %d bytes, %d allocations; %s\n", clock, bytes, allocs, verdict(clock, goalInit))
	for _, i := range trace[:min(5, len(trace))] {
		fmt.Fprintf(out, "  %-48s %7.3f ms %9d bytes %6d allocations\n", i.Package, i.Clock, i.Bytes, i.Allocs)
	}
	fmt.Fprintln(out)
}

// report prints what an engine's VMMs cost; the first is berth, the second its
// peer. hostSoft is as in reportStarts.
func report(title string, all []*vmm, hostSoft float64, out io.Writer) {
	fmt.Fprintf(out, "%s, medians\n", title)
	if len(all[0].Starts) > 0 {
		reportStarts(all, hostSoft, out)
	}
	var booted []*vmm
	for _, v := range all {
		if len(v.Boots) > 0 {
			booted = append(booted, v)
		}
	}
	if len(booted) > 0 {
		reportBoots(booted, out)
	}
	fmt.Fprintln(out)
}

// reportStarts prints the starts; hostSoft is the CPU-ms of berth soft on the host, 0: not known.
func reportStarts(all []*vmm, hostSoft float64, out io.Writer) {
	cpu := func(s start) float64 { return s.CPU }
	fmt.Fprintf(out, "%-44s %10s %10s %10s\n", "start to first instruction and end", "CPU-ms", "min", "wall ms")
	for _, v := range all {
		least := slices.MinFunc(v.Starts, func(a, b start) int { return int(a.CPU*1e3) - int(b.CPU*1e3) })
		fmt.Fprintf(out, "%-44s %10.1f %10.1f %10.1f\n", v.Name, medianOf(v.Starts, cpu), least.CPU,
			medianOf(v.Starts, func(s start) float64 { return s.Wall }))
	}
	berth, peer := medianOf(all[0].Starts, cpu), medianOf(all[1].Starts, cpu)
	fmt.Fprintf(out, "  berth/QEMU %.2f", berth/peer)
	last := all[len(all)-1]
	switch {
	case last.Name != scale:
		fmt.Fprintf(out, "; %s\n", verdict(berth, goalStart))
	case hostSoft > 0:
		slower := medianOf(last.Starts, cpu) / hostSoft
		fmt.Fprintf(out, "; the outer guest is %.0f times slower than its host, where this were %.1f CPU-ms; %s\n",
			slower, berth/slower, verdict(berth/slower, goalStart))
	default:
		fmt.Fprintln(out)
	}
}

func reportBoots(all []*vmm, out io.Writer) {
	memory := func(b boot) float64 { return float64(b.Memory) / (1 << 20) }
	cpu := func(b boot) float64 { return b.CPU }
	idle := func(b boot) float64 { return b.Idle }
	fmt.Fprintf(out, "%-44s %10s %10s %10s\n", "Debian's kernel, 25 s at a shell's prompt", "own MiB", "idle CPU %", "boot CPU-s")
	for _, v := range all {
		fmt.Fprintf(out, "%-44s %10.1f %10.2f %10.2f\n", v.Name, medianOf(v.Boots, memory), medianOf(v.Boots, idle), medianOf(v.Boots, cpu))
	}
	b, q := all[0].Boots, all[1].Boots
	fmt.Fprintf(out, "  private memory outside guest RAM: berth/QEMU %.2f; %s\n", medianOf(b, memory)/medianOf(q, memory), verdict(medianOf(b, memory), goalMiB))
	if b[0].Exits == nil {
		fmt.Fprintf(out, "  idle: %s\n", verdict(medianOf(b, idle), goalIdle))
	} else {
		// Percentages of the outer guest's core are as many times too large as it is slower.
		fmt.Fprintf(out, "  idle: berth/QEMU %.2f\n", medianOf(b, idle)/medianOf(q, idle))
		reportExits(b, q, out)
	}
}

func reportExits(b, q []boot, out io.Writer) {
	fmt.Fprintf(out, "%-44s %10s %10s %10s\n", "VM exits to userland, by KVM's count", "berth", "QEMU", "ratio")
	for _, name := range kvmCounts() {
		count := func(b boot) float64 { return float64(b.Exits[name]) }
		berth, qemu := medianOf(b, count), medianOf(q, count)
		if berth == 0 && qemu == 0 {
			continue
		}
		ratio := "-"
		if qemu > 0 {
			ratio = fmt.Sprintf("%.2f", berth/qemu)
		}
		fmt.Fprintf(out, "  %-42s %10.0f %10.0f %10s\n", name, berth, qemu, ratio)
	}
}
