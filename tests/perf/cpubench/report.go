package main

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// median is the median of the samples' CPU-seconds.
func median(samples []sample) float64 {
	var v []float64
	for _, s := range samples {
		v = append(v, s.cpu)
	}
	slices.Sort(v)
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

// skippedIn is why a column did not run the row; "": it did.
func (r *result) skippedIn(column int) string {
	for _, s := range r.samples[column] {
		if s.skipped() {
			return s.answer
		}
	}
	return ""
}

// report writes a table of medians and how they compare.
func report(results []*result, tcg string, out io.Writer) {
	fmt.Fprintf(out, "%-14s %9s %9s %9s %10s %12s %11s %9s\n", "CPU-seconds", "native", "berth", tcg, "berth/TCG", "berth/native", "translated", "per exit")
	sum, native, compared, lost := 0.0, 0.0, 0, 0
	for _, r := range results {
		fmt.Fprintf(out, "%-14s", r.name)
		var m [columns]float64
		for column := range columns {
			if r.skippedIn(column) != "" {
				fmt.Fprintf(out, " %9s", "-")
				continue
			}
			m[column] = median(r.samples[column])
			fmt.Fprintf(out, " %9.3f", m[column])
		}
		if why := r.skippedIn(onBerth); why != "" {
			fmt.Fprintf(out, "  berth: %s\n", why)
			continue
		}
		if why := r.skippedIn(onTCG); why != "" {
			fmt.Fprintf(out, " %10s %12.2f%s  TCG: %s\n", "-", m[onBerth]/m[onHost], r.counted.cells(), why)
			continue
		}
		note := ""
		if m[onBerth] > m[onTCG] {
			note = "  slower"
			lost++
		}
		compared++
		sum += math.Log(m[onBerth] / m[onTCG])
		native += math.Log(m[onBerth] / m[onHost])
		fmt.Fprintf(out, " %10.2f %12.2f%s%s\n", m[onBerth]/m[onTCG], m[onBerth]/m[onHost], r.counted.cells(), note)
	}
	if compared > 0 {
		n := float64(compared)
		fmt.Fprintf(out, "geometric mean of %d rows: %.2f of TCG, %.2f of native; %d rows slower than TCG\n", compared, math.Exp(sum/n), math.Exp(native/n), lost)
	}
}

// cells are the table's last two: how much ran translated, and how many instructions between two exits.
func (c counters) cells() string {
	if c.instructions <= 0 {
		return fmt.Sprintf(" %11s %9s", "-", "-")
	}
	// Two boots differ by some exits: a row may have had fewer than that.
	share := min(100, c.share())
	if c.exits <= 0 {
		return fmt.Sprintf(" %10.2f%% %9s", share, "-")
	}
	return fmt.Sprintf(" %10.2f%% %9.1f", share, c.translated/c.exits)
}

// differences reports answers that are not the host's first.
func differences(results []*result) error {
	for _, r := range results {
		want := ""
		for column, samples := range r.samples {
			for _, s := range samples {
				switch {
				case s.skipped():
				case want == "":
					want = s.answer
				case s.answer != want:
					return fmt.Errorf("%s: the answer is %q, but %q %s", r.name, want, s.answer, [columns]string{"on the host", "on berth", "on TCG"}[column])
				}
			}
		}
	}
	return nil
}
