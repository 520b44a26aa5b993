package main

import (
	"fmt"
	"io"
	"math"
)

// report writes a table of the best figure of each job, and the geometric mean of
// how they compare.
func report(title string, all []result, w io.Writer) {
	type key struct{ format, job string }
	best := map[key]map[string]float64{}
	var order []key
	for _, r := range all {
		k := key{r.format, r.job}
		if best[k] == nil {
			best[k] = map[string]float64{}
			order = append(order, k)
		}
		best[k][r.vmm] = max(best[k][r.vmm], r.iops)
	}
	fmt.Fprintf(w, "\n%s, operations a second\n%-8s %-18s %10s %10s %7s\n", title, "format", "job:size:depth", "berth", "QEMU", "ratio")
	sum, lost := 0.0, 0
	for _, k := range order {
		b, q := best[k]["berth"], best[k]["QEMU"]
		note := ""
		if b < q {
			note = "  slower"
			lost++
		}
		sum += math.Log(b / q)
		fmt.Fprintf(w, "%-8s %-18s %10.0f %10.0f %7.2f%s\n", k.format, k.job, b, q, b/q, note)
	}
	if len(order) > 0 {
		fmt.Fprintf(w, "geometric mean %.2f; %d of %d slower\n", math.Exp(sum/float64(len(order))), lost, len(order))
	}
}
