package kvm

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/irq"
	"berth/kvmapi"
	"berth/x86"
)

// chipStateVersion is irq.ChipState's.
const chipStateVersion = 1

// SaveChip reads the interrupt controllers, the interval timer and kvmclock. No vCPU is in Run.
func (v *vm) SaveChip() (irq.ChipState, error) {
	s := irq.ChipState{Version: chipStateVersion}
	v.mu.Lock()
	defer v.mu.Unlock()
	err := v.saveControllers(&s)
	if err == nil && !v.cfg.APICOnly {
		err = v.savePIT(&s.PIT)
	}
	if err == nil {
		s.ParavirtClock, err = v.kvmclock()
	}
	for _, c := range v.vcpus {
		if err != nil {
			break
		}
		var l irq.LAPICState
		l, err = c.saveLAPIC()
		s.LAPIC = append(s.LAPIC, l)
	}
	if err != nil {
		return irq.ChipState{}, fmt.Errorf("kvm: saving the interrupt controllers: %w", err)
	}
	return s, nil
}

// LoadChip writes what SaveChip read. It comes after SetState of every vCPU: a
// LAPIC's timer starts from the TSC that SetState writes.
func (v *vm) LoadChip(s irq.ChipState) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.Version != chipStateVersion || len(s.LAPIC) != len(v.vcpus) {
		return fmt.Errorf("kvm: chip state of version %d with %d LAPICs: want version %d with %d",
			s.Version, len(s.LAPIC), chipStateVersion, len(v.vcpus))
	}
	err := v.setKVMClock(s.ParavirtClock)
	for i, c := range v.vcpus {
		if err == nil {
			err = c.loadLAPIC(s.LAPIC[i])
		}
	}
	if err == nil {
		err = v.loadControllers(&s)
	}
	if err == nil && !v.cfg.APICOnly {
		err = v.loadPIT(s.PIT)
	}
	if err != nil {
		return fmt.Errorf("kvm: loading the interrupt controllers: %w", err)
	}
	return nil
}

func (v *vm) saveControllers(s *irq.ChipState) error {
	for i := range s.PIC {
		chip := kvmapi.IRQChip{ChipID: uint32(kvmapi.KVM_IRQCHIP_PIC_MASTER + i)}
		if _, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_GET_IRQCHIP, &chip); err != nil {
			return err
		}
		s.PIC[i] = fromPIC(chip.PIC())
	}
	chip := kvmapi.IRQChip{ChipID: kvmapi.KVM_IRQCHIP_IOAPIC}
	if _, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_GET_IRQCHIP, &chip); err != nil {
		return err
	}
	k := chip.IOAPIC()
	s.IOAPIC = irq.IOAPICState{ID: uint8(k.ID), Select: k.IORegSel, IRR: k.IRR, Redirect: k.RedirTbl}
	return nil
}

func (v *vm) loadControllers(s *irq.ChipState) error {
	for i := range s.PIC {
		chip := kvmapi.IRQChip{ChipID: uint32(kvmapi.KVM_IRQCHIP_PIC_MASTER + i)}
		*chip.PIC() = toPIC(&s.PIC[i])
		if _, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_SET_IRQCHIP, &chip); err != nil {
			return err
		}
	}
	chip := kvmapi.IRQChip{ChipID: kvmapi.KVM_IRQCHIP_IOAPIC}
	*chip.IOAPIC() = kvmapi.IOAPICState{
		BaseAddress: ioapicBase, IORegSel: s.IOAPIC.Select, ID: uint32(s.IOAPIC.ID), IRR: s.IOAPIC.IRR, RedirTbl: s.IOAPIC.Redirect,
	}
	_, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_SET_IRQCHIP, &chip)
	return err
}

// ioapicBase is where the in-kernel IOAPIC always is.
const ioapicBase = 0xfec00000

func fromPIC(k *kvmapi.PICState) irq.PICState {
	return irq.PICState{
		LastIRR: k.LastIRR, IRR: k.IRR, IMR: k.IMR, ISR: k.ISR, PriorityAdd: k.PriorityAdd, VectorBase: k.IRQBase,
		ReadISR: k.ReadRegSelect != 0, Poll: k.Poll != 0, SpecialMask: k.SpecialMask != 0, InitState: k.InitState,
		AutoEOI: k.AutoEOI != 0, RotateOnAutoEOI: k.RotateOnAutoEOI != 0, SpecialFullyNested: k.SpecialFullyNestedMode != 0,
		Init4: k.Init4 != 0, LevelTriggered: k.ELCR, LevelTriggeredPermitted: k.ELCRMask,
	}
}

func toPIC(s *irq.PICState) kvmapi.PICState {
	return kvmapi.PICState{
		LastIRR: s.LastIRR, IRR: s.IRR, IMR: s.IMR, ISR: s.ISR, PriorityAdd: s.PriorityAdd, IRQBase: s.VectorBase,
		ReadRegSelect: bit(s.ReadISR), Poll: bit(s.Poll), SpecialMask: bit(s.SpecialMask), InitState: s.InitState,
		AutoEOI: bit(s.AutoEOI), RotateOnAutoEOI: bit(s.RotateOnAutoEOI), SpecialFullyNestedMode: bit(s.SpecialFullyNested),
		Init4: bit(s.Init4), ELCR: s.LevelTriggered, ELCRMask: s.LevelTriggeredPermitted,
	}
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// hostNow is the clock of PITChannelState.CountLoadTime.
func hostNow() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	return ts.Nano(), nil
}

// guestNow is the machine's clock in ns, 0 if it has none.
func (v *vm) guestNow() uint64 {
	if v.cfg.Clock == nil {
		return 0
	}
	return v.cfg.Clock.Now()
}

// savePIT reads the 8254. Load times move from the host's clock to the guest's.
func (v *vm) savePIT(s *irq.PITState) error {
	var k kvmapi.PITState2
	if _, err := kvmapi.IoctlPtr(v.fd, kvmapi.KVM_GET_PIT2, &k); err != nil {
		return err
	}
	host, err := hostNow()
	if err != nil {
		return err
	}
	guest := v.guestNow()
	for i, c := range k.Channels {
		s.Channel[i] = irq.PITChannel{
			Count: c.Count, LatchedCount: c.LatchedCount, CountLatched: c.CountLatched, StatusLatched: c.StatusLatched != 0,
			Status: c.Status, ReadState: c.ReadState, WriteState: c.WriteState, WriteLatch: c.WriteLatch,
			RWMode: c.RWMode, Mode: c.Mode, BCD: c.BCD != 0, Gate: c.Gate != 0,
			LoadTime: guest - min(guest, uint64(max(0, host-c.CountLoadTime))),
		}
	}
	s.SpeakerOn = k.Flags&kvmapi.KVM_PIT_FLAGS_SPEAKER_DATA_ON != 0
	return nil
}

// loadPIT writes the 8254. KVM starts each count anew at the moment of loading.
func (v *vm) loadPIT(s irq.PITState) error {
	host, err := hostNow()
	if err != nil {
		return err
	}
	guest := v.guestNow()
	var k kvmapi.PITState2
	for i, c := range s.Channel {
		k.Channels[i] = kvmapi.PITChannelState{
			Count: c.Count, LatchedCount: c.LatchedCount, CountLatched: c.CountLatched, StatusLatched: bit(c.StatusLatched),
			Status: c.Status, ReadState: c.ReadState, WriteState: c.WriteState, WriteLatch: c.WriteLatch,
			RWMode: c.RWMode, Mode: c.Mode, BCD: bit(c.BCD), Gate: bit(c.Gate),
			CountLoadTime: host - int64(guest-min(guest, c.LoadTime)),
		}
	}
	if s.SpeakerOn {
		k.Flags = kvmapi.KVM_PIT_FLAGS_SPEAKER_DATA_ON
	}
	_, err = kvmapi.IoctlPtr(v.fd, kvmapi.KVM_SET_PIT2, &k)
	return err
}

// x2APIC is IA32_APIC_BASE's mode bit. KVM shows the ID of a LAPIC in that mode
// as an xAPIC's all the same (without KVM_CAP_X2APIC_API): in the top byte.
const x2APIC = 1 << 10

// lapicID is the index of the ID register.
const lapicID = 2

// saveLAPIC reads one LAPIC. Its pending errors and ExtINT messages KVM does not show.
func (c *vcpu) saveLAPIC() (irq.LAPICState, error) {
	var s irq.LAPICState
	var k kvmapi.LAPICState
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_LAPIC, &k); err != nil {
		return s, err
	}
	for i := range s.Regs {
		s.Regs[i] = binary.LittleEndian.Uint32(k.Regs[i*16:])
	}
	held, err := c.readMSRs([]uint32{x86.MSRAPICBase, x86.MSRTSCDeadline})
	for _, m := range held {
		if m.Index == x86.MSRAPICBase {
			s.Base = m.Value
		} else {
			s.TSCDeadline = m.Value
		}
	}
	if s.Base&x2APIC != 0 {
		s.Regs[lapicID] >>= 24
	}
	return s, err
}

// loadLAPIC sets the mode first, since the registers' form depends on it, and
// the deadline last, since KVM takes it only in TSC-deadline mode.
func (c *vcpu) loadLAPIC(s irq.LAPICState) error {
	if err := c.writeMSRs([]x86.MSR{{Index: x86.MSRAPICBase, Value: s.Base}}); err != nil {
		return err
	}
	var k kvmapi.LAPICState
	if s.Base&x2APIC != 0 {
		s.Regs[lapicID] <<= 24
	}
	for i, r := range s.Regs {
		binary.LittleEndian.PutUint32(k.Regs[i*16:], r)
	}
	if _, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_LAPIC, &k); err != nil {
		return err
	}
	if s.TSCDeadline == 0 {
		return nil
	}
	return c.writeMSRs([]x86.MSR{{Index: x86.MSRTSCDeadline, Value: s.TSCDeadline}})
}
