package kvm

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"berth/accel"
	"berth/kvmapi"
	"berth/x86"
)

// vcpu is one KVM vCPU.
//
// How a kick works. Kick notes itself in kicked, sets immediate_exit, and, if
// the vCPU may be in the kernel, signals its thread. KVM_RUN looks at
// immediate_exit after it has completed the previous exit's I/O and before it
// enters the guest, so a kick before the call is seen there and one during the
// call by the signal. Only the vCPU's thread clears immediate_exit, and it does
// so before it takes kicked: a kick in between leaves at worst one KVM_RUN that
// returns at once.
//
// The signal is SIGURG: Go's runtime handles it on every thread already (its
// own preemption uses it), expects it to come for nothing, and no program
// that uses package os/signal can lose it. A thread in KVM_RUN counts as in a
// system call, which the runtime never preempts, so stray exits are rare.
type vcpu struct {
	vm      *vm
	id      int
	fd      int
	cpuid   *kvmapi.CPUID2 // the guest's
	mapping []byte
	run     *kvmapi.Run

	kicked   atomic.Bool
	inKernel atomic.Bool  // KVM_RUN is being called
	tid      atomic.Int32 // of the thread in Run; 0 when none is
	life     sync.Mutex   // held by Kick and close: no kick touches the mapping after close
	closed   bool

	debug debugState

	pausedTSC uint64 // guest TSC while the VM's clock is paused; guarded by vm.mu
}

// NewVCPU makes vCPU id.
func (v *vm) NewVCPU(id int) (accel.VCPU, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if id < 0 || id >= v.cfg.CPUs {
		return nil, fmt.Errorf("kvm: vCPU %d of %d", id, v.cfg.CPUs)
	}
	fd, err := kvmapi.Ioctl(v.fd, kvmapi.KVM_CREATE_VCPU, uintptr(v.cfg.Topology.APICID(id))) // its number is its APIC ID
	if err != nil {
		return nil, fmt.Errorf("kvm: %w", err)
	}
	c := &vcpu{vm: v, id: id, fd: fd}
	if err := c.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("kvm: vCPU %d: %w", id, err), c.close())
	}
	v.vcpus = append(v.vcpus, c)
	slices.SortFunc(v.vcpus, func(a, b *vcpu) int { return a.id - b.id })
	return c, nil
}

func (c *vcpu) setUp() error {
	m, err := unix.Mmap(c.fd, 0, c.vm.acc.runSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping kvm_run: %w", err)
	}
	c.mapping, c.run = m, kvmapi.MapRun(m)
	cpuid := guestCPUID(c.vm.acc.cpuid, c.id, c.vm.cfg.CPUs, c.vm.cfg.Topology, c.vm.acc.hasTSCDeadline())
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_CPUID2, cpuid); err != nil {
		return err
	}
	c.cpuid = cpuid
	if err := c.setUpMachineChecks(); err != nil {
		return err
	}
	if vendor(c.vm.acc.cpuid) != vendorIntel {
		return nil
	}
	return c.enableFastStrings()
}

// enableFastStrings sets IA32_MISC_ENABLE bit 0, as firmware does: Linux on
// Intel CPUs gives up REP MOVS and STOS without it, and KVM starts with it clear.
func (c *vcpu) enableFastStrings() error {
	held, err := c.readMSRs([]uint32{x86.MSRMiscEnable})
	if err != nil || len(held) == 0 {
		return err
	}
	held[0].Value |= 1
	return c.writeMSRs(held)
}

// CPUID implements accel.CPUIDReader.
func (c *vcpu) CPUID(leaf, sub uint32) [4]uint32 {
	for _, e := range c.cpuid.Entries[:c.cpuid.Nent] {
		if e.Function == leaf && (e.Index == sub || e.Flags&kvmapi.KVM_CPUID_FLAG_SIGNIFCANT_INDEX == 0) {
			return [4]uint32{e.EAX, e.EBX, e.ECX, e.EDX}
		}
	}
	return [4]uint32{}
}

func (c *vcpu) close() error {
	c.life.Lock()
	defer c.life.Unlock()
	c.closed = true
	var err error
	if c.mapping != nil {
		err = unix.Munmap(c.mapping)
		c.mapping, c.run = nil, nil
	}
	return errors.Join(err, unix.Close(c.fd))
}

// Kick makes a Run in progress, or else the next one, return ExitKick soon.
func (c *vcpu) Kick() {
	c.life.Lock()
	defer c.life.Unlock()
	if c.closed {
		return
	}
	c.kicked.Store(true)
	c.run.SetImmediateExit(true)
	if tid := c.tid.Load(); tid != 0 && c.inKernel.Load() {
		// ESRCH: the thread has left Run meanwhile, which is what was wanted.
		_ = unix.Tgkill(os.Getpid(), int(tid), unix.SIGURG)
	}
}

// Run executes the guest. Every exit for I/O is followed by another KVM_RUN
// before Run returns, which completes the access in the kernel: with Run's
// return the vCPU's state is whole. GetState and SetState rely on it.
func (c *vcpu) Run(exit *accel.Exit) error {
	c.tid.Store(int32(unix.Gettid()))
	defer c.tid.Store(0)
	*exit = accel.Exit{}
	for {
		c.inKernel.Store(true)
		errno := kvmapi.KVMRun(c.fd)
		c.inKernel.Store(false)
		switch errno {
		case 0:
			if leave, err := c.handle(exit); leave || err != nil {
				return err
			}
		case unix.EINTR:
			c.run.SetImmediateExit(false)
			if c.kicked.Swap(false) {
				exit.Reason = accel.ExitKick
				return nil
			}
		case unix.EAGAIN: // an application processor was woken, or a page is on its way
		default:
			c.where(exit)
			return fmt.Errorf("kvm: vCPU %d: %v at RIP 0x%x: %w", c.id, kvmapi.KVM_RUN, exit.RIP, errno)
		}
	}
}

// handle serves one exit; leave means that Run returns with exit filled.
func (c *vcpu) handle(exit *accel.Exit) (leave bool, err error) {
	switch r := c.run.ExitReason; r {
	case kvmapi.KVM_EXIT_IO:
		return c.portIO(exit), nil
	case kvmapi.KVM_EXIT_MMIO:
		m := c.run.MMIO()
		p := m.Data[:min(m.Len, uint32(len(m.Data)))]
		if m.IsWrite != 0 {
			c.vm.cfg.MMIO.Write(m.PhysAddr, p)
		} else {
			c.vm.cfg.MMIO.Read(m.PhysAddr, p)
		}
		return false, nil
	case kvmapi.KVM_EXIT_DEBUG:
		return c.debugExit(exit)
	case kvmapi.KVM_EXIT_IRQ_WINDOW_OPEN, kvmapi.KVM_EXIT_INTR, kvmapi.KVM_EXIT_SET_TPR:
		return false, nil // nothing to do but go on
	default:
		c.leave(r, exit)
		return true, nil
	}
}

// portIO serves IN, OUT and their string forms.
func (c *vcpu) portIO(exit *accel.Exit) bool {
	io := c.run.IO()
	size, count := uint64(io.Size), uint64(io.Count)
	if io.DataOffset > uint64(len(c.mapping)) || size*count > uint64(len(c.mapping))-io.DataOffset {
		return c.internal(exit, fmt.Sprintf("KVM_EXIT_IO with data outside kvm_run: %+v", *io))
	}
	data := c.mapping[io.DataOffset:][:size*count]
	for ; len(data) > 0; data = data[size:] {
		if io.Direction == kvmapi.KVM_EXIT_IO_OUT {
			c.vm.cfg.Ports.Write(uint64(io.Port), data[:size])
		} else {
			c.vm.cfg.Ports.Read(uint64(io.Port), data[:size])
		}
	}
	return false
}
