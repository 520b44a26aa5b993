package guestmem

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// chunk is what one thread populates or clears at a time, a multiple of every
// huge page's size; maxThreads bounds how many do so at once.
const (
	chunk      = 1 << 30
	maxThreads = 16
)

// inParallel calls f for all of p, in pieces, from several threads, and returns
// the first error.
func inParallel(p []byte, f func([]byte) error) error {
	threads := max(1, min(runtime.NumCPU(), maxThreads))
	// Pieces for all threads, whole 2 MiB pages each; a huge page larger than a
	// piece is met by two threads, which does no harm.
	piece := min(chunk, max(hugePage, (len(p)/threads+hugePage-1)&^(hugePage-1)))
	var next atomic.Int64
	errs := make([]error, threads)
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			for errs[i] == nil {
				at := int(next.Add(int64(piece))) - piece
				if at >= len(p) {
					return
				}
				errs[i] = f(p[at:min(at+piece, len(p))])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Prefault gives every page of RAM its memory now, so that no access of the
// guest waits for it or finds that there is none. The memory is still zero: no
// vCPU has run since it was added or cleared.
func (m *Memory) Prefault() error {
	if b := &m.backing; b.HugePages == 0 {
		// The host would rather kill processes than refuse a page.
		if free, err := available(); err == nil && b.used > free {
			return fmt.Errorf("memory: %s cannot be taken in advance: the host has %s to give", sizeText(b.used), sizeText(free&^(1<<20-1)))
		}
	}
	for _, r := range m.regions {
		if r.ReadOnly {
			continue
		}
		if err := inParallel(r.Host, populate); err != nil {
			return fmt.Errorf("memory: taking %s in advance: %w", sizeText(uint64(len(r.Host))), firstOf(err))
		}
	}
	return nil
}

// available returns how many bytes the host can give without swapping.
func available() (uint64, error) { return meminfo("MemAvailable") }

// meminfo returns a line of /proc/meminfo, in bytes.
func meminfo(name string) (uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	_, after, found := strings.Cut("\n"+string(b), "\n"+name+":")
	f := strings.Fields(after)
	if !found || len(f) == 0 {
		return 0, fmt.Errorf("/proc/meminfo has no %s", name)
	}
	kib, err := strconv.ParseUint(f[0], 10, 54)
	return kib << 10, err
}

// populate touches p for writing.
func populate(p []byte) error {
	err := unix.Madvise(p, unix.MADV_POPULATE_WRITE)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	for i := 0; i < len(p); i += PageSize { // Linux before 5.14
		p[i] = 0
	}
	return nil
}

// firstOf returns the first of joined errors: threads fail alike.
func firstOf(err error) error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()[0]
	}
	return err
}
