package interp

import (
	"fmt"

	"berth/x86"
)

// Machine-check architecture (Intel SDM vol. 3B chapter 15). Nothing here breaks:
// errors are logged, and reported, only as InjectMachineCheck says.

const (
	mcgCap        = x86.MCGCap
	mcgStatusBits = x86.MCGStatusRIPV | x86.MCGStatusEIPV | x86.MCGStatusMCIP
)

// mcBank is a bank's IA32_MCi_CTL, STATUS, ADDR and MISC.
type mcBank [4]uint64

const (
	mcCtl = iota
	mcStatus
	mcAddr
	mcMisc
)

// machineCheck is the registers behind them. INIT leaves them alone.
type machineCheck struct {
	status, ctl uint64 // IA32_MCG_STATUS and IA32_MCG_CTL
	bank        [x86.MCBanks]mcBank
}

// newMachineCheck returns the registers after power-on, every error enabled, as
// firmware leaves them.
func newMachineCheck() machineCheck {
	m := machineCheck{ctl: ^uint64(0)}
	for i := range m.bank {
		m.bank[i][mcCtl] = ^uint64(0)
	}
	return m
}

// register returns the place of a bank's MSR and whether it is a STATUS, which
// can only be cleared.
func (m *machineCheck) register(i uint32) (p *uint64, status bool) {
	n := i - x86.MSRMC0Ctl
	if n >= 4*x86.MCBanks {
		return nil, false
	}
	return &m.bank[n/4][n%4], n%4 == mcStatus
}

// log enters an error in its bank. An uncorrected one is not displaced by one
// that was corrected; whichever is lost leaves OVER (§15.3.2.2.1).
func (m *machineCheck) log(e *x86.MachineCheck) {
	b := &m.bank[e.Bank]
	status, held := e.Status|x86.MCStatusVal, b[mcStatus]
	if held&x86.MCStatusVal != 0 {
		if held&x86.MCStatusUC != 0 && status&x86.MCStatusUC == 0 {
			b[mcStatus] |= x86.MCStatusOver
			return
		}
		status |= x86.MCStatusOver
	}
	b[mcStatus], b[mcAddr], b[mcMisc] = status, e.Addr, e.Misc
}

// InjectMachineCheck makes the vCPU find a hardware error. A corrected one is
// logged only. An uncorrected one that the guest has not disabled is #MC before
// the next instruction, or a shutdown where the guest cannot take it: with
// CR4.MCE clear, or while another is handled. Only the vCPU's thread, outside Run.
func (c *CPU) InjectMachineCheck(e x86.MachineCheck) error {
	if e.Bank >= x86.MCBanks {
		return fmt.Errorf("interp: machine check in bank %d of %d", e.Bank, x86.MCBanks)
	}
	m := &c.sys.msrs.mc
	if e.Status&x86.MCStatusUC == 0 {
		m.log(&e)
		return nil
	}
	if m.ctl != ^uint64(0) || m.bank[e.Bank][mcCtl] != ^uint64(0) {
		return nil
	}
	if m.status&x86.MCGStatusMCIP != 0 || c.CR4&x86.CR4MCE == 0 {
		c.post(pendShutdown)
		return nil
	}
	m.log(&e)
	m.status = e.MCGStatus & mcgStatusBits
	c.post(pendMC)
	return nil
}
