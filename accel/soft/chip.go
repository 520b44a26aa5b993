package soft

import (
	"errors"
	"fmt"
	"sync"

	"berth/accel"
	"berth/bus"
	"berth/device/ferr"
	"berth/device/ioapic"
	"berth/device/pic"
	"berth/device/pit"
	"berth/irq"
)

// timerPin is the I/O APIC's input for GSI 0: a PC wires the interval timer there
// (ACPI's interrupt source override says so).
const timerPin = 2

// ferrGSI is where a PC reports errors of the FPU.
const ferrGSI = 13

// SetGSI implements irq.Sink.
func (v *VM) SetGSI(gsi uint32, level bool) {
	v.rises.Set(gsi, level)
	pin := gsi
	if gsi == 0 {
		pin = timerPin
	}
	if gsi != timerPin && !v.cfg.APICOnly { // pin 2 is the 8259s' cascade
		v.pic.Set(gsi, level)
	}
	v.ioapic.Set(pin, level)
}

// Interrupts implements accel.InterruptCounter.
func (v *VM) Interrupts() [irq.Lines]uint64 { return v.rises.Counts() }

// SignalMSI implements irq.Sink.
func (v *VM) SignalMSI(m irq.MSI) error {
	if m.Addr>>20 != 0xfee {
		return fmt.Errorf("soft: message to 0x%x, where no local APIC listens", m.Addr)
	}
	v.lapics.Deliver(m)
	return nil
}

// NewMSISource implements irq.MSIAllocator.
func (v *VM) NewMSISource() (irq.MSISource, error) { return &msiSource{vm: v, masked: true}, nil }

// msiSource sends its message straight to the local APICs.
type msiSource struct {
	vm *VM

	mu     sync.Mutex
	msg    irq.MSI
	masked bool
	closed bool
}

// Program implements irq.MSISource.
func (s *msiSource) Program(m irq.MSI, masked bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("soft: message source is closed")
	}
	s.msg, s.masked = m, masked
	return nil
}

// Trigger implements irq.MSISource. A message to nowhere is lost, as on a bus.
func (s *msiSource) Trigger() {
	s.mu.Lock()
	m, silent := s.msg, s.masked || s.closed
	s.mu.Unlock()
	if !silent {
		_ = s.vm.SignalMSI(m)
	}
}

// Close implements irq.MSISource.
func (s *msiSource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// rest is what lies behind the chips: an I/O space seen from base on.
type rest struct {
	base uint64
	io   accel.IO
}

func (r rest) Read(off uint64, p []byte)  { r.io.Read(r.base+off, p) }
func (r rest) Write(off uint64, p []byte) { r.io.Write(r.base+off, p) }

// spaces lays the chips over the machine's I/O spaces, as KVM's in-kernel chips
// shadow what lies behind them. The local APICs' page is each vCPU's own.
func (v *VM) spaces() (ports, mmio *bus.Space, err error) {
	ports, err = overlay(1<<16, v.cfg.Ports, v.ChipWindows(true))
	if err != nil {
		return nil, nil, err
	}
	mmio, err = overlay(0, v.cfg.MMIO, v.ChipWindows(false))
	return ports, mmio, err
}

// Spaces implements accel.Spaces.
func (v *VM) Spaces() (ports, mmio accel.IO) { return v.ports, v.mmio }

// ChipWindows implements accel.Spaces.
func (v *VM) ChipWindows(ports bool) []bus.Window {
	switch {
	case !ports:
		return []bus.Window{{Base: ioapic.Base, Size: ioapic.Size, Name: "IOAPIC", Handler: v.ioapic}}
	case v.cfg.APICOnly:
		return nil
	}
	return []bus.Window{
		{Base: pic.MasterBase, Size: pic.Size, Name: "8259 master", Handler: v.pic.Master()},
		{Base: pit.Base, Size: pit.Size, Name: "8254", Handler: v.pit.Counters()},
		{Base: pit.SpeakerBase, Size: pit.SpeakerSize, Name: "port 0x61", Handler: v.pit.Speaker()},
		{Base: pic.SlaveBase, Size: pic.Size, Name: "8259 slave", Handler: v.pic.Slave()},
		{Base: ferr.Base, Size: ferr.Size, Name: "FPU error", Handler: v.ferr.Port()},
		{Base: pic.ELCRBase, Size: pic.Size, Name: "ELCR", Handler: v.pic.ELCR()},
	}
}

// overlay returns a space of the given windows, in order, with io in the gaps.
func overlay(size uint64, io accel.IO, windows []bus.Window) (*bus.Space, error) {
	s := bus.New(size)
	at := uint64(0)
	for _, w := range append(windows, bus.Window{Base: size}) {
		if gap := w.Base - at; gap != 0 {
			if _, err := s.Map(at, gap, "machine", rest{at, io}); err != nil {
				return nil, fmt.Errorf("soft: %w", err)
			}
		}
		if w.Size == 0 {
			break
		}
		if _, err := s.Map(w.Base, w.Size, w.Name, w.Handler); err != nil {
			return nil, fmt.Errorf("soft: %w", err)
		}
		at = w.Base + w.Size
	}
	return s, nil
}

// SaveChip implements accel.Stater.
func (v *VM) SaveChip() (irq.ChipState, error) {
	return irq.ChipState{
		Version: chipVersion,
		PIC:     v.pic.Save(),
		IOAPIC:  v.ioapic.Save(),
		PIT:     v.pit.Save(),
		LAPIC:   v.lapics.Save(),
		FERR:    v.ferr.Save(),
	}, nil
}

// LoadChip implements accel.Stater. The clock and the vCPUs' TSCs must already
// show the time to which the state belongs.
func (v *VM) LoadChip(s irq.ChipState) error {
	if s.Version != chipVersion {
		return fmt.Errorf("soft: interrupt controllers' state version %d, not %d", s.Version, chipVersion)
	}
	return errors.Join(v.pic.Load(s.PIC), v.ioapic.Load(s.IOAPIC), v.pit.Load(s.PIT), v.lapics.Load(s.LAPIC), v.ferr.Load(s.FERR))
}

const chipVersion = 1
