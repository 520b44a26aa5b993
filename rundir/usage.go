package rundir

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a VM's process has used of its host.
type Usage struct {
	At       time.Time
	CPU      time.Duration         // of all its threads
	VCPUs    map[int]time.Duration // of each vCPU's, those that have begun
	Resident int64                 // bytes of memory that are there now
}

// Usage reads what the VM has used until now.
func (v *VM) Usage() (Usage, error) {
	u := Usage{At: time.Now(), VCPUs: map[int]time.Duration{}}
	dir := fmt.Sprintf("/proc/%d", v.PID)
	threads, err := filepath.Glob(dir + "/task/*/stat")
	if err != nil {
		return u, err
	}
	for _, t := range append(threads, dir+"/stat") {
		b, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has ended
		}
		name, spent, err := parseStat(b)
		if err != nil {
			return u, fmt.Errorf("%s: %w", t, err)
		}
		var n int
		switch got, _ := fmt.Sscanf(name, "CPU %d/", &n); {
		case t == dir+"/stat":
			u.CPU = spent
		case got == 1:
			u.VCPUs[n] = spent
		}
	}
	b, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return u, fmt.Errorf("%s: %w", v.Name, ErrNotFound)
	}
	var size int64
	if _, err := fmt.Sscan(string(b), &size, &u.Resident); err != nil {
		return u, fmt.Errorf("%s/statm: %w", dir, err)
	}
	u.Resident *= int64(os.Getpagesize())
	return u, nil
}

// parseStat returns a thread's name and its user and system time (proc(5), stat:
// fields 2, 14 and 15).
//
//	1234 (CPU 0/soft) S … 14 utime 15 stime …
func parseStat(b []byte) (name string, spent time.Duration, err error) {
	const tick = time.Second / 100 // USER_HZ on x86
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return "", 0, fmt.Errorf("%q has no name", b)
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 13 {
		return "", 0, fmt.Errorf("%q is cut off", b)
	}
	for _, n := range f[11:13] {
		ticks, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return "", 0, err
		}
		spent += time.Duration(ticks) * tick
	}
	return string(b[open+1 : end]), spent, nil
}
