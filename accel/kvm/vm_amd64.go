package kvm

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"berth/accel"
	"berth/guestmem"
	"berth/irq"
	"berth/kvmapi"
)

// vm is one KVM VM. Memslot n is the n-th region of Config.Memory.
type vm struct {
	acc  *Accelerator
	cfg  accel.Config
	log  *slog.Logger
	fd   int
	chip *chip
	msrs *msrSet

	mu     sync.Mutex // guards what follows
	vcpus  []*vcpu    // in order of creation
	bitmap []uint64   // of CollectDirty, long enough for the largest slot
	clock  pausedClock

	closed atomic.Bool // set by Close; interrupts of devices that outlive the VM go nowhere then
}

// NewVM makes a VM with its memory, interrupt controllers and interval timer.
func (a *Accelerator) NewVM(cfg accel.Config) (accel.VM, error) {
	limit, err := checkExtension(a.fd, kvmapi.KVM_CAP_MAX_VCPUS)
	if err != nil {
		return nil, fmt.Errorf("kvm: %w", err)
	}
	// An xAPIC ID has eight bits, and 255 means all.
	if limit = min(limit, 255); cfg.CPUs < 1 || cfg.CPUs > limit {
		return nil, fmt.Errorf("kvm: %d vCPUs: this host's KVM makes 1 to %d", cfg.CPUs, limit)
	}
	fd, err := kvmapi.Ioctl(a.fd, kvmapi.KVM_CREATE_VM, 0)
	if err != nil {
		remedy := ""
		if errors.Is(err, unix.EBUSY) {
			remedy = "another hypervisor holds the CPU's virtualization: stop it"
		}
		return nil, &OpenError{Path: a.path, Kind: ErrUnusable, Cause: err, Remedy: remedy}
	}
	v := &vm{acc: a, cfg: cfg, log: a.log, fd: fd, msrs: newMSRSet(a.msrs, a.log)}
	if err := v.setUp(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("kvm: %w", err)
	}
	return v, nil
}

// setUp does what must come before the first vCPU. The TSS and identity map are
// needed on Intel only, and set everywhere so that both kinds of host agree.
func (v *vm) setUp() error {
	for _, r := range v.cfg.Memory.Regions() {
		if r.GPA < ReservedBase+ReservedSize && r.End() > ReservedBase {
			return fmt.Errorf("memory 0x%x+0x%x lies in KVM's own range 0x%x+0x%x", r.GPA, len(r.Host), uint64(ReservedBase), ReservedSize)
		}
	}
	identity := uint64(ReservedBase)
	if _, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_SET_IDENTITY_MAP_ADDR, &identity); err != nil {
		return err
	}
	if _, err := kvmapi.Ioctl(v.fd, kvmapi.KVM_SET_TSS_ADDR, ReservedBase+guestmem.PageSize); err != nil {
		return err
	}
	if _, err := kvmapi.Ioctl(v.fd, kvmapi.KVM_CREATE_IRQCHIP, 0); err != nil {
		return err
	}
	if !v.cfg.APICOnly {
		// The dummy speaker makes KVM answer port 0x61, which guests calibrate the TSC with.
		if _, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_CREATE_PIT2, &kvmapi.PITConfig{Flags: kvmapi.KVM_PIT_SPEAKER_DUMMY}); err != nil {
			return err
		}
	}
	var err error
	if v.chip, err = newChip(v); err != nil {
		return err
	}
	return v.setMemslots(0)
}

// setMemslots writes every memslot, with flags beside those that its region asks for.
func (v *vm) setMemslots(flags uint32) error {
	for i, r := range v.cfg.Memory.Regions() {
		slot := kvmapi.UserspaceMemoryRegion{
			Slot: uint32(i), Flags: flags, GuestPhysAddr: r.GPA,
			MemorySize: uint64(len(r.Host)), UserspaceAddr: uint64(r.HostAddr()),
		}
		if r.ReadOnly {
			slot.Flags |= kvmapi.KVM_MEM_READONLY
		}
		if _, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_SET_USER_MEMORY_REGION, &slot); err != nil {
			return err
		}
	}
	return nil
}

// WallClock reports whether KVM shows this host's guests kvmclock.
func (v *vm) WallClock() bool {
	const features, clock, clock2 = 0x40000001, 1 << 0, 1 << 3 // Documentation/virt/kvm/x86/cpuid.rst
	for _, e := range v.acc.cpuid.Entries[:v.acc.cpuid.Nent] {
		if e.Function == features {
			return e.EAX&(clock|clock2) != 0
		}
	}
	return false
}

// IRQChip returns the in-kernel interrupt controllers.
func (v *vm) IRQChip() accel.IRQChip { return v.chip }

// Interrupts implements accel.InterruptCounter. What the kernel's own timer does is not in it.
func (v *vm) Interrupts() [irq.Lines]uint64 { return v.chip.rises.Counts() }

// Close ends the VM. No vCPU is in Run any more.
func (v *vm) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed.Swap(true) {
		return nil
	}
	var err error
	for _, c := range v.vcpus {
		err = errors.Join(err, c.close())
	}
	return errors.Join(err, unix.Close(v.fd))
}

// AddDoorbell makes KVM signal eventfd for guest writes at the MMIO address addr.
func (v *vm) AddDoorbell(addr uint64, size int, value *uint64, eventfd int) error {
	return v.doorbell(0, addr, size, value, eventfd)
}

// RemoveDoorbell undoes AddDoorbell with the same arguments.
func (v *vm) RemoveDoorbell(addr uint64, size int, value *uint64, eventfd int) error {
	return v.doorbell(kvmapi.KVM_IOEVENTFD_FLAG_DEASSIGN, addr, size, value, eventfd)
}

func (v *vm) doorbell(flags uint32, addr uint64, size int, value *uint64, eventfd int) error {
	b := kvmapi.IOEventFD{Addr: addr, Len: uint32(size), FD: int32(eventfd), Flags: flags}
	if value != nil {
		b.DataMatch = *value
		b.Flags |= kvmapi.KVM_IOEVENTFD_FLAG_DATAMATCH
	}
	if _, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_IOEVENTFD, &b); err != nil {
		return fmt.Errorf("kvm: %w", err)
	}
	return nil
}

// SetDirtyLog switches KVM's log of pages that vCPUs write.
func (v *vm) SetDirtyLog(on bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	flags := uint32(0)
	if on {
		flags = kvmapi.KVM_MEM_LOG_DIRTY_PAGES
		longest := 0
		for _, r := range v.cfg.Memory.Regions() {
			longest = max(longest, len(r.Host))
		}
		v.bitmap = make([]uint64, (longest/guestmem.PageSize+63)/64)
	}
	if err := v.setMemslots(flags); err != nil {
		return fmt.Errorf("kvm: dirty log: %w", err)
	}
	if !on {
		v.bitmap = nil
	}
	return nil
}

// CollectDirty calls f for each page written by a vCPU since the last call.
func (v *vm) CollectDirty(f func(gpa uint64)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bitmap == nil {
		return errors.New("kvm: the dirty log is off")
	}
	for slot, r := range v.cfg.Memory.Regions() {
		words := v.bitmap[:(len(r.Host)/guestmem.PageSize+63)/64]
		if err := kvmapi.GetDirtyLog(v.fd, uint32(slot), words); err != nil {
			return fmt.Errorf("kvm: %w", err)
		}
		for i, w := range words {
			for ; w != 0; w &= w - 1 {
				f(r.GPA + uint64(i*64+bits.TrailingZeros64(w))*guestmem.PageSize)
			}
		}
	}
	return nil
}
