package kvm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/kvmapi"
	"berth/x86"
)

// pausedClock is the VM's time while it stands still. Each vCPU's pausedTSC
// belongs to it.
type pausedClock struct {
	stopped  bool
	kvmclock uint64 // ns
}

// PauseClock stops TSC and kvmclock: it notes them, and ResumeClock continues from there.
func (v *vm) PauseClock() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.clock.stopped {
		return nil
	}
	clock, err := v.kvmclock()
	if err != nil {
		return fmt.Errorf("kvm: pausing the clock: %w", err)
	}
	tscs, err := v.tscs()
	if err != nil {
		return fmt.Errorf("kvm: pausing the clock: %w", err)
	}
	for i, c := range v.vcpus {
		c.pausedTSC = tscs[i]
	}
	v.clock = pausedClock{stopped: true, kvmclock: clock}
	return nil
}

// ResumeClock lets time go on.
func (v *vm) ResumeClock() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.clock.stopped {
		return nil
	}
	v.clock.stopped = false
	if err := v.setKVMClock(v.clock.kvmclock); err != nil {
		return fmt.Errorf("kvm: resuming the clock: %w", err)
	}
	now, err := v.tscs()
	if err != nil {
		return fmt.Errorf("kvm: resuming the clock: %w", err)
	}
	for i, c := range v.vcpus {
		if err := c.shiftTSC(c.pausedTSC - now[i]); err != nil {
			return fmt.Errorf("kvm: resuming the clock of vCPU %d: %w", c.id, err)
		}
		// The guest's watchdogs learn that it was stopped. EINVAL: it uses no kvmclock.
		if _, err := kvmapi.Ioctl(c.fd, kvmapi.KVM_KVMCLOCK_CTRL, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("kvm: resuming the clock of vCPU %d: %w", c.id, err)
		}
	}
	return nil
}

// tscs returns every vCPU's TSC as of one moment: the first is read, the others
// follow from their offsets, so that reading takes no vCPU out of step.
func (v *vm) tscs() ([]uint64, error) {
	var base uint64
	out := make([]uint64, len(v.vcpus))
	for i, c := range v.vcpus {
		off, err := c.tscOffset()
		if err == nil && i > 0 {
			out[i] = base + off
			continue
		}
		held, e := c.readMSRs([]uint32{x86.MSRTSC})
		if e != nil || len(held) == 0 {
			return nil, errors.Join(errors.New("the TSC cannot be read"), e)
		}
		out[i] = held[0].Value
		base = out[i] - off
	}
	return out, nil
}

func (c *vcpu) tscOffset() (off uint64, err error) {
	err = kvmapi.DeviceAttr64(c.fd, kvmapi.KVM_GET_DEVICE_ATTR, kvmapi.KVM_VCPU_TSC_CTRL, kvmapi.KVM_VCPU_TSC_OFFSET, &off)
	return off, err
}

// shiftTSC adds delta to the vCPU's TSC. Kernels before 5.16 have no offset to
// set; there the TSC is written, which KVM rounds to its siblings' when close.
func (c *vcpu) shiftTSC(delta uint64) error {
	off, err := c.tscOffset()
	if err == nil {
		off += delta
		return kvmapi.DeviceAttr64(c.fd, kvmapi.KVM_SET_DEVICE_ATTR, kvmapi.KVM_VCPU_TSC_CTRL, kvmapi.KVM_VCPU_TSC_OFFSET, &off)
	}
	held, err := c.readMSRs([]uint32{x86.MSRTSC})
	if err != nil || len(held) == 0 {
		return errors.Join(errors.New("the TSC cannot be read"), err)
	}
	return c.writeMSRs([]x86.MSR{{Index: x86.MSRTSC, Value: held[0].Value + delta}})
}

// stoppedTSC replaces the TSC in s by its stopped value while the clock is paused.
func (c *vcpu) stoppedTSC(s *x86.State) {
	c.vm.mu.Lock()
	defer c.vm.mu.Unlock()
	if !c.vm.clock.stopped {
		return
	}
	for i := range s.MSRs {
		if s.MSRs[i].Index == x86.MSRTSC {
			s.MSRs[i].Value = c.pausedTSC
		}
	}
}

// stopTSC makes tsc the value to resume from; false if the clock runs.
func (c *vcpu) stopTSC(tsc uint64) bool {
	c.vm.mu.Lock()
	defer c.vm.mu.Unlock()
	if c.vm.clock.stopped {
		c.pausedTSC = tsc
	}
	return c.vm.clock.stopped
}

// kvmclock returns what guests' kvmclock shows, in ns; v.mu is held.
func (v *vm) kvmclock() (uint64, error) {
	if v.clock.stopped {
		return v.clock.kvmclock, nil
	}
	var k kvmapi.ClockData
	_, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_GET_CLOCK, &k)
	return k.Clock, err
}

// setKVMClock sets it; v.mu is held.
func (v *vm) setKVMClock(ns uint64) error {
	if v.clock.stopped {
		v.clock.kvmclock = ns
		return nil
	}
	_, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_SET_CLOCK, &kvmapi.ClockData{Clock: ns})
	return err
}
