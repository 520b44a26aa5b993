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

// means is the geometric mean of ratios.
type means struct {
	sum     float64
	n, lost int
}

func (m *means) add(ratio float64) {
	m.sum += math.Log(ratio)
	m.n++
	if ratio > 1 {
		m.lost++
	}
}

func (m *means) value() float64 { return math.Exp(m.sum / float64(m.n)) }

// report writes a table of medians and how they compare. tcg names the columns of QEMU's
// versions, the last of which may have no samples.
func report(results []*result, tcg [2]string, out io.Writer) {
	fmt.Fprintf(out, "%-14s %9s %9s %9s %10s %12s %11s %9s", "CPU-seconds", "native", "berth", tcg[0], "berth/TCG", "berth/native", "translated", "per exit")
	if tcg[1] != "" {
		fmt.Fprintf(out, " %9s %10s", tcg[1], "berth/it")
	}
	fmt.Fprintln(out)
	var native, old, newer means
	for _, r := range results {
		m := r.write(tcg, out)
		if !math.IsNaN(m[onBerth] / m[onTCG]) {
			native.add(m[onBerth] / m[onHost])
			old.add(m[onBerth] / m[onTCG])
		}
		if !math.IsNaN(m[onBerth] / m[onNewer]) {
			newer.add(m[onBerth] / m[onNewer])
		}
	}
	if old.n > 0 {
		fmt.Fprintf(out, "geometric mean of %d rows: %.2f of %s, %.2f of native; %d rows slower than TCG\n", old.n, old.value(), tcg[0], native.value(), old.lost)
	}
	if newer.n > 0 {
		fmt.Fprintf(out, "geometric mean of %d rows: %.2f of %s; %d rows slower\n", newer.n, newer.value(), tcg[1], newer.lost)
	}
}

// write writes the row's line and returns its medians, NaN where there is none.
func (r *result) write(tcg [2]string, out io.Writer) (m [columns]float64) {
	for column := range columns {
		m[column] = math.NaN()
		if len(r.samples[column]) > 0 && r.skippedIn(column) == "" {
			m[column] = median(r.samples[column])
		}
	}
	fmt.Fprintf(out, "%-14s", r.name)
	for column := range onNewer {
		fmt.Fprintf(out, " %9s", number("%.3f", m[column]))
	}
	fmt.Fprintf(out, " %10s %12s%s", number("%.2f", m[onBerth]/m[onTCG]), number("%.2f", m[onBerth]/m[onHost]), r.counted.cells())
	if tcg[1] != "" {
		fmt.Fprintf(out, " %9s %10s", number("%.3f", m[onNewer]), number("%.2f", m[onBerth]/m[onNewer]))
	}
	if m[onBerth] > m[onTCG] || m[onBerth] > m[onNewer] {
		fmt.Fprint(out, "  slower")
	}
	for column, who := range [columns]string{onBerth: "berth", onTCG: tcg[0], onNewer: tcg[1]} {
		if why := r.skippedIn(column); why != "" {
			fmt.Fprintf(out, "  %s: %s", who, why)
		}
	}
	fmt.Fprintln(out)
	return m
}

// number is v, which may be none.
func number(format string, v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf(format, v)
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
					return fmt.Errorf("%s: the answer is %q, but %q %s", r.name, want, s.answer, [columns]string{"on the host", "on berth", "on TCG", "on the newer TCG"}[column])
				}
			}
		}
	}
	return nil
}
