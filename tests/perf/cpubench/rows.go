package main

import (
	"fmt"
	"regexp"
	"strings"
)

// row is one workload: a command that busybox's shell runs in the folder of the
// workloads, in the guest and on the host.
type row struct {
	name    string
	command string // with %d: how much work
	work    int    // at -scale 1: some 0.1 to 0.3 CPU-seconds of a host
}

func (r row) at(scale float64) string {
	return fmt.Sprintf(r.command, max(1, int(float64(r.work)*scale)))
}

// rows are all workloads. The first decides how the TLB is built.
var rows = []row{
	{"fork+exec", "./fork %d", 600},
	{"integer", "./work integer %d", 1_000_000},
	{"states", "./work states %d", 50_000_000},
	{"sort", "./work sort %d", 2_000_000},
	{"hash", "./work hash %d", 10_000_000},
	// Without the instructions for SHA, which the guest's CPU does not have.
	{"sha256", "GODEBUG=cpu.sha=off ./work sha256 %d", 100},
	{"gzip", "./busybox head -c %dk text | ./gzip -6 -c | ./busybox sha256sum", 2000},
	{"xz", "./busybox head -c %dk text | ./xz -1 -T1 -c | ./busybox sha256sum", 1000},
	{"busybox gzip", "./busybox head -c %dk text | ./busybox gzip -c | ./busybox sha256sum", 2000},
	{"matmul SSE2", "./matmul-sse2 %d", 2000},
	{"matmul AVX2", "./matmul-avx2 %d", 4000},
	{"x87", "./x87 %d", 8_000_000},
	{"chase", "./work chase %d", 5_000_000},
	{"histogram", "./work histogram %d", 300},
	{"syscalls", "./syscalls %d", 1_000_000},
	{"mmap", "./mmap %d", 5000},
	{"pipes", "./pipe %d", 40_000},
	{"shell", "i=0; while [ $i -lt %d ]; do ./busybox echo $i; i=$((i+1)); done | ./busybox sha256sum", 200},
	{"perl", "./perl script.pl %d", 500},
	{"Go signals", "./work signals %d", 600},
	// 32-bit programs.
	{"states 386", "./work386 states %d", 50_000_000},
	{"hash 386", "./work386 hash %d", 5_000_000},
	{"sha256 386", "./work386 sha256 %d", 5},
}

// textSize is the size of the file text in KiB.
const textSize = 2000

// choose returns the rows whose names match.
func choose(pattern string) ([]row, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("-rows: %w", err)
	}
	var chosen []row
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
		if re.MatchString(r.name) {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-rows %q matches no row; there are: %s", pattern, strings.Join(names, ", "))
	}
	return chosen, nil
}

// id is the row's name as one word.
func (r row) id() string { return strings.ReplaceAll(r.name, " ", "-") }
