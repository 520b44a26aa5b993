package kvm

import (
	"errors"
	"fmt"
	"slices"

	"berth/accel"
	"berth/kvmapi"
	"berth/x86"
)

// debugRegisters is how many breakpoints and pieces of watchpoints a CPU has room for.
const debugRegisters = 4

// Bits of DR6 (Intel SDM vol. 3B §17.2.3).
const (
	dr6Hits = 0xf     // a breakpoint's each
	dr6BS   = 1 << 14 // single step
)

// debugState is what a debugger has the vCPU stop for. While a debug register is
// in use for it, KVM keeps the guest's aside: the guest reads and writes them, but
// its own breakpoints do not work.
type debugState struct {
	want    x86.Debug
	control uint32
	arch    [8]uint64                // for KVM: DR0 to DR3 and DR7
	stops   [debugRegisters]x86.Stop // what each register is for
	used    int
}

// DebugLimits implements accel.Debugger.
func (c *vcpu) DebugLimits() x86.DebugLimits {
	return x86.DebugLimits{Plants: true, Registers: debugRegisters, NoHold: c.vm.acc.debugFlags&kvmapi.KVM_GUESTDBG_BLOCKIRQ == 0}
}

// SetDebug implements accel.Debugger. The engine steps from where RIP is now.
func (c *vcpu) SetDebug(d x86.Debug) error {
	s := debugState{want: d}
	s.want.Breakpoints, s.want.Watchpoints = slices.Clone(d.Breakpoints), slices.Clone(d.Watchpoints)
	err := s.arrange(c.vm.acc.debugFlags)
	if err == nil {
		err = c.guestDebug(&s, 0)
	}
	if err != nil {
		return fmt.Errorf("kvm: vCPU %d: debugging: %w", c.id, err)
	}
	c.debug = s
	return nil
}

func (c *vcpu) guestDebug(s *debugState, inject uint32) error {
	control := s.control
	if inject != 0 {
		control |= inject | kvmapi.KVM_GUESTDBG_ENABLE
	}
	k := kvmapi.GuestDebug{Control: control, DebugReg: s.arch}
	_, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_GUEST_DEBUG, &k)
	return err
}

// arrange works out what KVM is told, which has these flags beyond the first ones.
func (s *debugState) arrange(flags uint32) error {
	if !s.want.Any() {
		return nil
	}
	s.control = kvmapi.KVM_GUESTDBG_ENABLE
	if s.want.Step {
		s.control |= kvmapi.KVM_GUESTDBG_SINGLESTEP
		if s.want.Hold {
			s.control |= kvmapi.KVM_GUESTDBG_BLOCKIRQ & flags
		}
	}
	s.arch[7] = 0x400
	for _, b := range s.want.Breakpoints {
		if !b.Hardware {
			s.control |= kvmapi.KVM_GUESTDBG_USE_SW_BP
			continue
		}
		if err := s.add(x86.Stop{Kind: x86.StopBreakpoint, Breakpoint: b}, b.Addr, 1, 0); err != nil {
			return err
		}
	}
	for _, w := range s.want.Watchpoints {
		if err := s.addWatchpoint(w); err != nil {
			return err
		}
	}
	if s.used > 0 {
		s.control |= kvmapi.KVM_GUESTDBG_USE_HW_BP
	}
	return nil
}

var errDebugRegisters = fmt.Errorf("the CPU has %d debug registers for hardware breakpoints and watchpoints", debugRegisters)

// add takes a register; access is DR7's R/W field.
func (s *debugState) add(stop x86.Stop, addr, n, access uint64) error {
	if s.used == debugRegisters {
		return errDebugRegisters
	}
	length := [...]uint64{1: 0, 2: 1, 4: 3, 8: 2}[n]
	i := s.used
	s.arch[i], s.stops[i] = addr, stop
	s.arch[7] |= 2<<(2*i) | access<<(16+4*i) | length<<(18+4*i)
	s.used++
	return nil
}

// addWatchpoint takes a register for each piece that one can watch.
func (s *debugState) addWatchpoint(w x86.Watchpoint) error {
	access := uint64(3)
	switch w.Kind {
	case x86.WatchRead:
		return errors.New("the CPU has no watchpoints for reads alone: watch reads and writes")
	case x86.WatchWrite:
		access = 1
	}
	for at, left := w.Addr, w.Len; left > 0; {
		n := uint64(8)
		for n > left || at%n != 0 {
			n /= 2
		}
		if err := s.add(x86.Stop{Kind: x86.StopWatchpoint, Watchpoint: w}, at, n, access); err != nil {
			return err
		}
		at, left = at+n, left-n
	}
	return nil
}

// debugExit serves KVM_EXIT_DEBUG: a stop for the debugger, which ends Run, or a
// trap of the guest's own, which it gets.
func (c *vcpu) debugExit(exit *accel.Exit) (bool, error) {
	k := *c.run.Debug()
	stop, ok := c.debug.stopFor(&k)
	if ok {
		c.where(exit)
		exit.Reason, exit.Stop = accel.ExitDebug, stop
		return true, nil
	}
	if k.Exception == x86.BP {
		return false, c.guestDebug(&c.debug, kvmapi.KVM_GUESTDBG_INJECT_BP)
	}
	var regs kvmapi.DebugRegs
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_DEBUGREGS, &regs); err != nil {
		return false, err
	}
	regs.DR6 |= k.DR6 & dr6BS
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_DEBUGREGS, &regs); err != nil {
		return false, err
	}
	return false, c.guestDebug(&c.debug, kvmapi.KVM_GUESTDBG_INJECT_DB)
}

// stopFor finds what KVM stopped for; not ok: nothing that the debugger wants.
func (s *debugState) stopFor(k *kvmapi.RunDebug) (x86.Stop, bool) {
	if k.Exception == x86.BP {
		i := slices.IndexFunc(s.want.Breakpoints, func(b x86.Breakpoint) bool { return !b.Hardware && b.Addr == k.PC })
		if i < 0 {
			return x86.Stop{}, false
		}
		return x86.Stop{Kind: x86.StopBreakpoint, Breakpoint: s.want.Breakpoints[i]}, true
	}
	for i := range s.used {
		if k.DR6&dr6Hits>>i&1 != 0 {
			return s.stops[i], true
		}
	}
	return x86.Stop{Kind: x86.StopStep}, s.want.Step && k.DR6&dr6BS != 0
}
