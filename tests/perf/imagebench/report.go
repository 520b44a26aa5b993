package main

import (
	"fmt"
	"math"
	"strings"
)

func header() string {
	return fmt.Sprintf("%-50s %21s  %21s  %15s\n%-50s %9s %9s %5s %9s %9s  %7s %7s\n", "", "wall, s", "CPU, s", "memory, MiB",
		"", "berth", "qemu-img", "", "berth", "qemu-img", "berth", "qemu-img")
}

func (r *row) line() string {
	b, q := r.taken[0], r.taken[1]
	verdict := ""
	if r.ratio() < 1 {
		verdict += "  LOST"
	}
	if b.memory > 2*q.memory {
		verdict += "  MEMORY"
	}
	return fmt.Sprintf("%-50s %9.3f %9.3f %4.1fx %9.3f %9.3f  %7.1f %7.1f%s\n", r.name, b.wall, q.wall, r.ratio(), b.cpu, q.cpu,
		mebibytes(b.memory), mebibytes(q.memory), verdict)
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// summary is the geometric mean of how many times faster berth was, and what it lost.
func summary(done []*row) string {
	var logs, cpu float64
	var lost, fat []string
	for _, r := range done {
		logs += math.Log(r.ratio())
		cpu += math.Log(max(r.taken[1].cpu, 0.001) / max(r.taken[0].cpu, 0.001))
		if r.ratio() < 1 {
			lost = append(lost, r.name)
		}
		if r.taken[0].memory > 2*r.taken[1].memory {
			fat = append(fat, r.name)
		}
	}
	n := float64(len(done))
	s := fmt.Sprintf("geometric mean of %d rows: %.2fx by the clock, %.2fx in CPU-seconds\n", len(done), math.Exp(logs/n), math.Exp(cpu/n))
	s += fmt.Sprintf("lost: %s\n", list(lost))
	return s + fmt.Sprintf("more than twice the memory: %s\n", list(fat))
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "; ")
}
