package kvm

import (
	"fmt"

	"berth/accel"
	"berth/guestmem"
	"berth/kvmapi"
)

// leave fills exit for an exit that ends Run.
func (c *vcpu) leave(r kvmapi.ExitReason, exit *accel.Exit) {
	switch r {
	case kvmapi.KVM_EXIT_SHUTDOWN:
		c.where(exit)
		exit.Reason = accel.ExitShutdown
	case kvmapi.KVM_EXIT_SYSTEM_EVENT:
		c.systemEvent(exit)
	case kvmapi.KVM_EXIT_FAIL_ENTRY:
		f := c.run.FailEntry()
		c.internal(exit, fmt.Sprintf("the CPU refused to enter the guest (%v, hardware reason 0x%x)", r, f.HardwareEntryFailureReason))
	case kvmapi.KVM_EXIT_INTERNAL_ERROR:
		c.internalError(exit)
	case kvmapi.KVM_EXIT_UNKNOWN:
		c.internal(exit, fmt.Sprintf("%v, hardware reason 0x%x", r, c.run.HardwareReason()))
	default:
		c.internal(exit, fmt.Sprintf("unexpected %v", r))
	}
}

func (c *vcpu) systemEvent(exit *accel.Exit) {
	c.where(exit)
	switch e := c.run.SystemEvent(); e.Type {
	case kvmapi.KVM_SYSTEM_EVENT_SHUTDOWN:
		exit.Reason = accel.ExitPowerOff
	case kvmapi.KVM_SYSTEM_EVENT_RESET:
		exit.Reason = accel.ExitReset
	case kvmapi.KVM_SYSTEM_EVENT_CRASH:
		c.internal(exit, "the guest reported a crash (KVM_SYSTEM_EVENT_CRASH)")
	default:
		c.internal(exit, fmt.Sprintf("KVM_EXIT_SYSTEM_EVENT of type %d", e.Type))
	}
}

// internalError names KVM's own failure. An emulation failure may carry the
// instruction that KVM fetched; it is preferred to what lies in memory by now.
func (c *vcpu) internalError(exit *accel.Exit) {
	in := c.run.Internal()
	detail := fmt.Sprintf("KVM internal error: %v", in.Suberror)
	var fetched []byte
	switch f := c.run.EmulationFailure(); {
	case in.Suberror != kvmapi.KVM_INTERNAL_ERROR_EMULATION:
		for _, d := range in.Data[:min(in.Ndata, uint32(len(in.Data)))] {
			detail += fmt.Sprintf(" 0x%x", d)
		}
	case in.Ndata >= 3 && f.Flags&kvmapi.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES != 0:
		fetched = append(fetched, f.InsnBytes[:min(int(f.InsnSize), len(f.InsnBytes))]...)
	}
	c.where(exit)
	if len(exit.Bytes) == 0 {
		exit.Bytes = fetched
	}
	c.describe(exit, detail)
}

// internal fills exit as an internal error and returns true.
func (c *vcpu) internal(exit *accel.Exit, detail string) bool {
	c.where(exit)
	c.describe(exit, detail)
	return true
}

func (c *vcpu) describe(exit *accel.Exit, detail string) {
	exit.Reason = accel.ExitInternal
	if len(exit.Bytes) == 0 {
		exit.Detail = fmt.Sprintf("vCPU %d: %s at RIP 0x%x, whose bytes cannot be read", c.id, detail, exit.RIP)
		return
	}
	exit.Detail = fmt.Sprintf("vCPU %d: %s at RIP 0x%x, bytes % x", c.id, detail, exit.RIP, exit.Bytes)
}

// where fills RIP and Bytes as well as it can: it is called when things have gone wrong already.
func (c *vcpu) where(exit *accel.Exit) {
	var regs kvmapi.Regs
	var sregs kvmapi.Sregs
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_REGS, &regs); err != nil {
		return
	}
	exit.RIP = regs.RIP
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_SREGS, &sregs); err != nil {
		return
	}
	exit.Bytes = c.instruction(sregs.CS.Base + regs.RIP)
}

// instruction returns up to 15 bytes at a linear address, through the guest's own translation.
func (c *vcpu) instruction(linear uint64) []byte {
	var b []byte
	for len(b) < 15 {
		t := kvmapi.Translation{LinearAddress: linear}
		if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_TRANSLATE, &t); err != nil || t.Valid == 0 {
			return b
		}
		n := min(guestmem.PageSize-linear%guestmem.PageSize, uint64(15-len(b)))
		part := make([]byte, n)
		if c.vm.cfg.Memory.Read(t.PhysicalAddress, part) != nil {
			return b
		}
		b, linear = append(b, part...), linear+n
	}
	return b
}
