package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// watch is what the process knows of itself.
type watch struct {
	patience time.Duration
	slowest  time.Duration // answer to a wish
	done     work          // by all guests
	first    *usage        // at the end of the warm-up
}

func newWatch(patience time.Duration) *watch { return &watch{patience: patience} }

// obeyed does what somebody wishes of the monitor; an error, and all stacks on
// standard error, if it takes too long.
func (w *watch) obeyed(what string, do func() error) error {
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- do() }()
	select {
	case err := <-done:
		w.slowest = max(w.slowest, time.Since(began))
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	case <-time.After(w.patience):
		buf := make([]byte, 1<<20)
		_, _ = os.Stderr.Write(buf[:runtime.Stack(buf, true)])
		return fmt.Errorf("%s: not obeyed within %s", what, w.patience)
	}
}

// usage is what a process can lose.
type usage struct {
	goroutines, files, threads, mappings int
	heap, resident                       int // bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d threads, %d mappings, heap %d KiB, resident %d MiB",
		u.goroutines, u.files, u.threads, u.mappings, u.heap>>10, u.resident>>20)
}

// measure reads /proc/self and the runtime.
func measure() (usage, error) {
	var u usage
	u.goroutines = runtime.NumGoroutine()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return u, err
	}
	u.files = len(files)
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return u, err
	}
	u.mappings = strings.Count(string(maps), "\n")
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return u, err
	}
	for l := range strings.Lines(string(status)) {
		switch f := strings.Fields(l); f[0] {
		case "Threads:":
			_, err = fmt.Sscan(f[1], &u.threads)
		case "VmRSS:":
			_, err = fmt.Sscan(f[1], &u.resident)
			u.resident <<= 10
		}
		if err != nil {
			return u, err
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.heap = int(m.HeapAlloc)
	return u, nil
}

// now is measure for people.
func (w *watch) now() string {
	debug.FreeOSMemory()
	u, err := measure()
	if err != nil {
		return err.Error()
	}
	return u.String()
}

// settled measures between two VMs: goroutines that are about to end get the time to.
func settled(done func(usage) bool) (u usage, err error) {
	for range 100 {
		debug.FreeOSMemory()
		if u, err = measure(); err != nil || done(u) {
			return u, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return u, nil
}

// grown says what the process has more of than at the end of the warm-up.
// Threads that ran once are kept by Go for later, as many as ever ran at once.
func (w *watch) grown() error {
	if w.first == nil {
		u, err := settled(func(u usage) bool { return u.goroutines <= 2 })
		w.first = &u
		return err
	}
	f := w.first
	u, err := settled(func(u usage) bool { return u.goroutines <= f.goroutines })
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range []struct {
		what            string
		now, was, slack int
	}{
		{"goroutines", u.goroutines, f.goroutines, 0},
		{"files", u.files, f.files, 0},
		{"threads", u.threads, f.threads, 60},
		{"mappings", u.mappings, f.mappings, 400},
		{"heap", u.heap, f.heap, 4 << 20},
		{"resident memory", u.resident, f.resident, 96 << 20},
	} {
		if c.now > c.was+c.slack {
			errs = append(errs, fmt.Errorf("leak: %s: %d after the warm-up, now %d", c.what, c.was, c.now))
		}
	}
	if len(errs) > 0 {
		buf := make([]byte, 1<<20)
		_, _ = os.Stderr.Write(buf[:runtime.Stack(buf, true)])
	}
	return errors.Join(errs...)
}

// budget is the most that a running VM may need.
func (w *watch) budget(c *vm) usage {
	const (
		base      = 20
		perDisk   = 10 // workers
		cacheSize = 160 << 20
	)
	// Of two disks, a console with three ports and the random numbers: a worker and
	// an eventfd each, and one for the message that it ends with.
	queues := max(c.count, 4) + c.count + 2 + 2*3 + 1
	return usage{
		goroutines: base + c.count + 2*perDisk + queues,
		files:      base + 20 + c.count + 2*queues,
		threads:    150,
		mappings:   2000,
		heap:       2 * (64<<20 + c.count*cacheSize), // Go's collector lets it double
	}
}

// within checks a running VM against its budget.
func (w *watch) within(b usage) error {
	u, err := measure()
	if err != nil {
		return err
	}
	if u.goroutines > b.goroutines || u.files > b.files || u.threads > b.threads || u.mappings > b.mappings || u.heap > b.heap {
		buf := make([]byte, 1<<20)
		_, _ = os.Stderr.Write(buf[:runtime.Stack(buf, true)])
		return fmt.Errorf("the monitor takes more than a VM needs: %s", u)
	}
	return nil
}
