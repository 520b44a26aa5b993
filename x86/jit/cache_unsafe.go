package jit

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is memory mapped twice, once to write and once to execute: no mapping is
// ever both.
type mapping struct {
	rw []byte
	rx unsafe.Pointer
}

// mapTwice maps a new file of memory. unsafe: the second mapping is known by its
// address only, for nothing in Go reads it.
func mapTwice(size int) (m mapping, err error) {
	fd, err := unix.MemfdCreate("berth-jit", unix.MFD_CLOEXEC)
	if err != nil {
		return m, fmt.Errorf("memory for code: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return m, fmt.Errorf("memory for code: %w", err)
	}
	if m.rw, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return m, fmt.Errorf("mapping memory for code: %w", err)
	}
	if m.rx, err = unix.MmapPtr(fd, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED); err != nil {
		return m, errors.Join(fmt.Errorf("mapping executable memory: %w", err), unix.Munmap(m.rw))
	}
	return m, nil
}

// close unmaps both. unsafe: undoes mapTwice.
func (m *mapping) close() error {
	return errors.Join(unix.Munmap(m.rw), unix.MunmapPtr(m.rx, uintptr(len(m.rw))))
}

// release gives the memory from offset from on back to the host.
func (m *mapping) release(from int) error {
	if err := unix.Madvise(m.rw[from:], unix.MADV_REMOVE); err != nil {
		return fmt.Errorf("giving memory of code back: %w", err)
	}
	return nil
}

// populate has the host map n bytes from offset from on, both ways, in one go: a fault for
// each page takes longer. unsafe: names a range of the executable mapping. If the host
// does not know how, the faults come.
func (m *mapping) populate(from, n uint32) {
	end := min(uint64(from)+uint64(n), uint64(len(m.rw)))
	if unix.Madvise(m.rw[from:end], unix.MADV_POPULATE_WRITE) == nil {
		_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Add(m.rx, from)), end-uint64(from)), unix.MADV_POPULATE_READ)
	}
}

// Run enters the code at e, which must be a Unit's Entry or an Exit's Retry, and
// returns the Exit it left by, with its number. The vCPU's state is at frame and
// regs; the Exit is valid until the next Translate. unsafe: an address within the
// executable mapping.
func (c *Cache) Run(frame *Frame, regs *[18]uint64, e Entry) (uint32, *Exit) {
	enter(frame, regs, c.Address(e))
	return frame.Exit, &c.exits[frame.Exit]
}

// Address is where e is on the host, for the table of jumps. unsafe: as for Run.
func (c *Cache) Address(e Entry) uintptr { return c.mem.address(e) }

// EntryAt is the Entry whose Address is a.
func (c *Cache) EntryAt(a uintptr) Entry { return Entry(a - c.mem.address(0)) }

// address is where e is on the host. unsafe: as for Run.
func (m *mapping) address(e Entry) uintptr { return uintptr(m.rx) + uintptr(e) }
