package kvm

import (
	"encoding/binary"
	"fmt"

	"berth/kvmapi"
	"berth/x86"
)

// setUpMachineChecks gives the vCPU its machine-check banks, as far as this
// host's KVM has what x86.MCGCap says.
func (c *vcpu) setUpMachineChecks() error {
	if n, err := checkExtension(c.vm.acc.fd, kvmapi.KVM_CAP_MCE); err != nil || n == 0 {
		return err
	}
	var offered uint64
	if _, err := kvmapi.IoctlPtr(c.vm.acc.fd, kvmapi.KVM_X86_GET_MCE_CAP_SUPPORTED, &offered); err != nil {
		return err
	}
	const count = 0xff // the number of banks is not a feature
	mcgCap := x86.MCGCap & (offered | count)
	_, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_X86_SETUP_MCE, &mcgCap)
	return err
}

// InjectNMI implements accel.NMIInjector. KVM_NMI knows nothing of LINT1.
func (c *vcpu) InjectNMI() error {
	if err := c.injectNMI(); err != nil {
		return fmt.Errorf("kvm: vCPU %d: injecting an NMI: %w", c.id, err)
	}
	return nil
}

func (c *vcpu) injectNMI() error {
	const (
		enabled = 1 << 11 // of IA32_APIC_BASE
		lint1   = 0x360
		masked  = 1 << 16
		mode    = 7 << 8
		modeNMI = 4 << 8
	)
	var sregs kvmapi.Sregs
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_SREGS, &sregs); err != nil {
		return err
	}
	var lapic kvmapi.LAPICState
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_LAPIC, &lapic); err != nil {
		return err
	}
	lvt := binary.LittleEndian.Uint32(lapic.Regs[lint1:])
	if sregs.APICBase&enabled != 0 && lvt&(masked|mode) != modeNMI {
		return nil
	}
	_, err := kvmapi.Ioctl(c.fd, kvmapi.KVM_NMI, 0)
	return err
}

// InjectMachineCheck implements accel.MachineCheckInjector.
func (c *vcpu) InjectMachineCheck(m x86.MachineCheck) error {
	k := kvmapi.X86MCE{Status: m.Status | x86.MCStatusVal, Addr: m.Addr, Misc: m.Misc, MCGStatus: m.MCGStatus, Bank: m.Bank}
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_X86_SET_MCE, &k); err != nil {
		return fmt.Errorf("kvm: vCPU %d: machine check in bank %d: %w", c.id, m.Bank, err)
	}
	return nil
}
