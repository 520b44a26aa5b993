// Package guestmem is guest RAM: it turns guest-physical addresses into host bytes and remembers what was written.
package guestmem

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// PageSize is the granularity of page flags, in bytes.
const PageSize = 4096

// maxRegion is more than any host maps: 128 TiB of addresses are a process's.
const maxRegion = 1 << 47

// ErrBounds is wrapped by every error for a range that is not wholly RAM.
var ErrBounds = errors.New("not guest memory")

// Region is a run of guest RAM or ROM, contiguous in the guest and on the host.
type Region struct {
	GPA      uint64
	Host     []byte // mmapped, page aligned, never moves
	ReadOnly bool   // the guest cannot write it (ROM)

	flags    []uint32 // per page: FlagCode, FlagDirty; atomic
	reserved []byte   // the mapping that Host is part of, guards included

	fileOffset uint64 // of Host in the memory's file, where it has one
}

// End returns the first guest-physical address past the region.
func (r *Region) End() uint64 { return r.GPA + uint64(len(r.Host)) }

// Page flags, kept per 4 KiB page and changed atomically.
const (
	// FlagCode is set while an engine holds decoded or translated code of the page.
	FlagCode uint32 = 1 << iota
	// FlagDirty is set by every write since it was last collected.
	FlagDirty
	// FlagDirect is set while an engine may store to the page without a look at
	// these flags. See GrantDirect.
	FlagDirect

	// FlagHolder is one of the engines that hold code of the page: the bits from
	// here up count them, and FlagCode is set while any do. See HoldCode.
	FlagHolder uint32 = 1 << 8
)

// HoldCode notes in a page's flags that one more engine holds code of the page.
// Before that one reads the bytes, and if direct is true, every engine must have
// given up its direct stores to the page; EndDirect says that all have.
func HoldCode(flags *uint32) (direct bool) {
	for {
		old := atomic.LoadUint32(flags)
		if atomic.CompareAndSwapUint32(flags, old, old+FlagHolder|FlagCode) {
			return old&FlagDirect != 0
		}
	}
}

// GrantDirect lets an engine store to a page without a look at its flags from now
// on, until it is told that code of the page is held. False: it is held already.
func GrantDirect(flags *uint32) bool {
	switch old := atomic.LoadUint32(flags); {
	case old&FlagCode != 0:
		return false
	case old&FlagDirect != 0:
		return true
	}
	return atomic.OrUint32(flags, FlagDirect)&FlagCode == 0
}

// EndDirect says that no engine stores directly to a page any more. The caller
// holds code of it, so that nobody is granted it anew.
func EndDirect(flags *uint32) { atomic.AndUint32(flags, ^FlagDirect) }

// ReleaseCode undoes one HoldCode.
func ReleaseCode(flags *uint32) {
	for {
		old := atomic.LoadUint32(flags)
		v := old - FlagHolder
		if v < FlagHolder {
			v &^= FlagCode
		}
		if atomic.CompareAndSwapUint32(flags, old, v) {
			return
		}
	}
}

// CodeWatcher is told of host-side writes into pages whose FlagCode is set. It
// is called after the bytes were stored, on the writer's goroutine, and must
// only record the fact and wake the engine.
type CodeWatcher func(gpa uint64)

// Memory is all RAM of one VM. Its regions do not change once vCPUs run.
// Reads and writes are safe for concurrent use, with the guest too: an aligned
// access of 1, 2, 4 or 8 bytes through Load and Store is one host access.
type Memory struct {
	regions  []*Region // sorted by GPA, disjoint
	backing  backing
	watch    atomic.Pointer[CodeWatcher]
	logging  atomic.Bool
	closeOne sync.Once
}

// New returns a memory with no regions, whose RAM will be anonymous.
func New() *Memory { return &Memory{backing: backing{fd: -1}} }

// AddRAM maps size bytes of zeroed memory at gpa. Unless it comes from a pool of
// huge pages, no swap is reserved: pages the guest never touches cost nothing.
// Both arguments must be multiples of PageSize, or of the huge pages' size.
func (m *Memory) AddRAM(gpa, size uint64) (*Region, error) {
	if gpa%PageSize != 0 || size%PageSize != 0 || size == 0 || gpa+size < gpa {
		return nil, fmt.Errorf("guestmem: region 0x%x+0x%x is not whole pages", gpa, size)
	}
	for _, r := range m.regions {
		if gpa < r.End() && r.GPA < gpa+size {
			return nil, fmt.Errorf("guestmem: region 0x%x+0x%x overlaps 0x%x+0x%x", gpa, size, r.GPA, len(r.Host))
		}
	}
	if b := &m.backing; b.HugePages != 0 && (gpa%b.HugePages != 0 || size%b.HugePages != 0) || b.Size != 0 && size > b.Size-b.used {
		return nil, fmt.Errorf("guestmem: region 0x%x+0x%x is not whole huge pages, or more than was announced", gpa, size)
	}
	reserved, host, err := m.backing.mapRAM(gpa, size)
	switch {
	case errors.Is(err, unix.ENOMEM) && m.backing.HugePages != 0:
		return nil, fmt.Errorf("memory: %w", m.backing.poolError())
	case err != nil:
		return nil, fmt.Errorf("guestmem: reserving %d MiB: %w", size>>20, err)
	}
	flags, err := mapFlags(size / PageSize)
	if err != nil {
		err = errors.Join(err, unix.Munmap(reserved))
		return nil, fmt.Errorf("guestmem: page flags for %d MiB: %w", size>>20, err)
	}
	r := &Region{GPA: gpa, Host: host, flags: flags, reserved: reserved, fileOffset: m.backing.used}
	m.backing.used += size
	i := 0
	for i < len(m.regions) && m.regions[i].GPA < gpa {
		i++
	}
	m.regions = append(m.regions[:i], append([]*Region{r}, m.regions[i:]...)...)
	return r, nil
}

// Regions returns the regions in address order. The slice is shared: do not change it.
func (m *Memory) Regions() []*Region { return m.regions }

// Close unmaps everything. No vCPU or device may use the memory any more.
func (m *Memory) Close() error {
	var err error
	m.closeOne.Do(func() {
		for _, r := range m.regions {
			err = errors.Join(err, unmap(r))
		}
		m.regions = nil
		err = errors.Join(err, m.backing.close())
	})
	return err
}

// Clear makes all RAM zero again and gives what pages it may back to the host. No vCPU
// runs and no device works meanwhile.
func (m *Memory) Clear() error {
	for _, r := range m.regions {
		if r.ReadOnly {
			continue
		}
		if err := m.backing.clear(r); err != nil {
			return fmt.Errorf("guestmem: clearing 0x%x+0x%x: %w", r.GPA, len(r.Host), err)
		}
		for p := range r.flags { // only read: pages of flags that nobody touched stay unmapped
			m.written(r, uint64(p), atomic.LoadUint32(&r.flags[p]))
		}
	}
	return nil
}

// Find returns the region that holds gpa, or nil.
func (m *Memory) Find(gpa uint64) *Region {
	for _, r := range m.regions {
		if gpa-r.GPA < uint64(len(r.Host)) {
			return r
		}
	}
	return nil
}

// Slice returns the host bytes of [gpa, gpa+n), which must lie in one region.
// Whoever writes through the slice calls MarkWritten after the store.
func (m *Memory) Slice(gpa, n uint64) ([]byte, error) {
	r := m.Find(gpa)
	if r == nil || n > r.End()-gpa {
		return nil, fmt.Errorf("guestmem: 0x%x+0x%x: %w", gpa, n, ErrBounds)
	}
	off := gpa - r.GPA
	return r.Host[off : off+n : off+n], nil
}

// Read copies guest memory to p.
func (m *Memory) Read(gpa uint64, p []byte) error {
	b, err := m.Slice(gpa, uint64(len(p)))
	if err == nil {
		copy(p, b)
	}
	return err
}

// Write copies p to guest memory and marks the pages. ROM can be written so.
func (m *Memory) Write(gpa uint64, p []byte) error {
	b, err := m.Slice(gpa, uint64(len(p)))
	if err == nil {
		copy(b, p)
		m.MarkWritten(gpa, uint64(len(p)))
	}
	return err
}

// WatchCode registers the one watcher of writes into pages with FlagCode; nil removes it.
func (m *Memory) WatchCode(w CodeWatcher) {
	if w == nil {
		m.watch.Store(nil)
		return
	}
	m.watch.Store(&w)
}

// SetDirtyLog switches the collection of FlagDirty by MarkWritten on or off.
func (m *Memory) SetDirtyLog(on bool) { m.logging.Store(on) }

// DirtyLog reports whether FlagDirty is being collected.
func (m *Memory) DirtyLog() bool { return m.logging.Load() }

// MarkWritten notes a host-side write of [gpa, gpa+n) that has already been
// stored. Every DMA path must call it: a page with decoded code in it is
// otherwise executed stale.
func (m *Memory) MarkWritten(gpa, n uint64) {
	if n == 0 {
		return
	}
	r := m.Find(gpa)
	if r == nil {
		return
	}
	for p := (gpa - r.GPA) / PageSize; p <= (gpa-r.GPA+n-1)/PageSize && p < uint64(len(r.flags)); p++ {
		// A full fence, not a load: either the flag is seen here, or who sets it
		// (HoldCode) reads the new bytes.
		m.written(r, p, atomic.OrUint32(&r.flags[p], 0))
	}
}

// written acts on a write to page p of r, whose flags are f.
func (m *Memory) written(r *Region, p uint64, f uint32) {
	if f&FlagDirty == 0 && m.logging.Load() {
		atomic.OrUint32(&r.flags[p], FlagDirty)
	}
	if f&FlagCode != 0 {
		if w := m.watch.Load(); w != nil {
			(*w)(r.GPA + p*PageSize)
		}
	}
}

// Flags returns the flag word of the page that holds gpa, for atomic use; nil outside RAM.
func (m *Memory) Flags(gpa uint64) *uint32 {
	r := m.Find(gpa)
	if r == nil {
		return nil
	}
	return &r.flags[(gpa-r.GPA)/PageSize]
}

// CollectDirty calls f with the GPA of every page whose FlagDirty is set, and clears it.
func (m *Memory) CollectDirty(f func(gpa uint64)) {
	for _, r := range m.regions {
		for p := range r.flags {
			if atomic.LoadUint32(&r.flags[p])&FlagDirty != 0 {
				atomic.AndUint32(&r.flags[p], ^FlagDirty)
				f(r.GPA + uint64(p)*PageSize)
			}
		}
	}
}
