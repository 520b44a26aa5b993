// Package process starts programs that are measured, and reads what Linux counts of them.
package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// CPUSeconds is the user and system time of a process's threads (proc(5), fields 14 and 15 of stat).
func CPUSeconds(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	utime, err1 := strconv.ParseFloat(f[11], 64)
	stime, err2 := strconv.ParseFloat(f[12], 64)
	const ticksPerSecond = 100 // USER_HZ on x86
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("stat of process %d is not numbers", pid)
	}
	return (utime + stime) / ticksPerSecond, nil
}

// Private is how much memory of a process is its own and is not its guest's RAM, in
// bytes: the private pages (proc(5), smaps) of all mappings but those of ram bytes.
func Private(pid int, ram int64) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, err
	}
	var sum int64
	counts := false
	for line := range strings.Lines(string(b)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			counts = int64(to-from) != ram
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		if !counts || key != "Private_Clean" && key != "Private_Dirty" {
			continue
		}
		var kib int64
		if _, err := fmt.Sscan(value, &kib); err != nil {
			return 0, fmt.Errorf("smaps of process %d: %q: %w", pid, line, err)
		}
		sum += kib << 10
	}
	return sum, nil
}

// Resident is how much memory of a process is resident, in bytes (proc(5), field 2 of statm).
func Resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, fmt.Errorf("statm of process %d: %w", pid, err)
	}
	return resident * int64(os.Getpagesize()), nil
}
