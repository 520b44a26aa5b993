package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// report writes a table of medians, and the geometric mean of how they compare:
// above 1 berth is better, whatever the unit.
func report(title string, all []figure, w io.Writer) {
	type key struct{ net, row string }
	values := map[key]map[string][]float64{}
	var order []key
	add := func(k key, vmm string, v float64) {
		if values[k] == nil {
			values[k] = map[string][]float64{}
			order = append(order, k)
		}
		values[k][vmm] = append(values[k][vmm], v)
	}
	for _, f := range all {
		add(key{f.net, f.row}, f.vmm, f.value)
		if f.cpu > 0 {
			add(key{f.net, f.row + " CPU"}, f.vmm, f.cpu)
		}
	}
	fmt.Fprintf(w, "\n%s\n%-6s %-18s %-10s %10s %10s %7s\n", title, "net", "row", "unit", "berth", "QEMU", "ratio")
	sum, rows, lost := 0.0, 0, 0
	for _, k := range order {
		b, q := median(values[k]["berth"]), median(values[k]["QEMU"])
		unit, less := unitOf(k.row)
		ratio := b / q
		if less {
			ratio = q / b
		}
		note := ""
		if ratio < 1 {
			note = "  lost"
			lost++
		}
		if b > 0 && q > 0 {
			sum += math.Log(ratio)
			rows++
		}
		fmt.Fprintf(w, "%-6s %-18s %-10s %10.4g %10.4g %7.2f%s\n", k.net, k.row, unit, b, q, ratio, note)
	}
	if rows > 0 {
		fmt.Fprintf(w, "geometric mean %.2f; %d of %d lost\n", math.Exp(sum/float64(rows)), lost, len(order))
	}
}

// unitOf is a row's unit, and whether less of it is better.
func unitOf(row string) (unit string, less bool) {
	switch {
	case strings.HasSuffix(row, " CPU"):
		return "s/GiB", true
	case row == "ping":
		return "ms", true
	case strings.HasPrefix(row, "packets"):
		return "packets/s", false
	}
	return "Mbit/s", false
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
