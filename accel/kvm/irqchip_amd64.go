package kvm

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"berth/irq"
	"berth/kvmapi"
)

// chip is the in-kernel 8259 pair, IOAPIC and LAPICs, and the GSI routing table in front of them.
//
// GSIs 0-15 lead to the 8259 pair (2, its cascade, does not) and to the IOAPIC
// pin of their number, but for GSI 0, the interval timer, which leads to pin 2
// as PC boards wire it (the MADT says so); 16-23 lead to the IOAPIC alone; 24
// and up are message sources. KVM_SET_GSI_ROUTING replaces the table, so it is
// always written whole. Lock order: msiSource, then chip.
type chip struct {
	vm    *vm
	rises irq.Counter

	mu      sync.Mutex
	routing *kvmapi.IRQRouting
	legacy  int                // entries of routing for GSIs 0-23
	sources map[uint32]irq.MSI // programmed messages by GSI
	used    []bool             // by GSI-24: taken by a source
}

const firstMSI = kvmapi.KVM_IOAPIC_NUM_PINS

func newChip(v *vm) (*chip, error) {
	limit, err := checkExtension(v.fd, kvmapi.KVM_CAP_IRQ_ROUTING)
	if err != nil {
		return nil, err
	}
	c := &chip{vm: v, routing: &kvmapi.IRQRouting{}, sources: map[uint32]irq.MSI{}}
	for gsi := range uint32(kvmapi.KVM_IOAPIC_NUM_PINS) {
		if gsi < 16 && gsi != 2 {
			c.addLegacy(gsi, kvmapi.KVM_IRQCHIP_PIC_MASTER+gsi/8, gsi%8)
		}
		switch gsi {
		case 0:
			c.addLegacy(gsi, kvmapi.KVM_IRQCHIP_IOAPIC, 2)
		case 2:
		default:
			c.addLegacy(gsi, kvmapi.KVM_IRQCHIP_IOAPIC, gsi)
		}
	}
	c.used = make([]bool, max(0, min(limit, kvmapi.MaxRoutes)-c.legacy-firstMSI))
	return c, c.writeRoutes()
}

func (c *chip) addLegacy(gsi, chip, pin uint32) {
	c.routing.Entries[c.legacy] = kvmapi.IRQRoutingEntry{GSI: gsi, Type: kvmapi.KVM_IRQ_ROUTING_IRQCHIP, U: [8]uint32{chip, pin}}
	c.legacy++
}

// writeRoutes writes the whole table; c.mu is held or the chip is new.
func (c *chip) writeRoutes() error {
	if c.vm.closed.Load() {
		return nil
	}
	n := c.legacy
	for i := range c.used {
		gsi := uint32(i + firstMSI)
		if m, ok := c.sources[gsi]; ok {
			c.routing.Entries[n] = kvmapi.IRQRoutingEntry{
				GSI: gsi, Type: kvmapi.KVM_IRQ_ROUTING_MSI,
				U: [8]uint32{uint32(m.Addr), uint32(m.Addr >> 32), m.Data},
			}
			n++
		}
	}
	c.routing.Nr = uint32(n)
	_, err := kvmapi.IoctlPtr(c.vm.fd, kvmapi.KVM_SET_GSI_ROUTING, c.routing)
	return err
}

// SetGSI sets the level of one input.
func (c *chip) SetGSI(gsi uint32, level bool) {
	if c.vm.closed.Load() {
		return
	}
	c.rises.Set(gsi, level)
	l := kvmapi.IRQLevel{IRQ: gsi}
	if level {
		l.Level = 1
	}
	if _, err := kvmapi.IoctlPtr(c.vm.fd, kvmapi.KVM_IRQ_LINE, &l); err != nil {
		c.vm.log.Error("kvm: interrupt lost", "error", err)
	}
}

// SignalMSI sends one message. A message that no LAPIC accepts is lost, as on hardware.
func (c *chip) SignalMSI(m irq.MSI) error {
	k := kvmapi.MSI{AddressLo: uint32(m.Addr), AddressHi: uint32(m.Addr >> 32), Data: m.Data}
	if _, err := kvmapi.IoctlPtr(c.vm.fd, kvmapi.KVM_SIGNAL_MSI, &k); err != nil {
		return fmt.Errorf("kvm: %w", err)
	}
	return nil
}

// msiSource is an eventfd that KVM turns into a message while it is attached as an irqfd.
type msiSource struct {
	chip *chip
	gsi  uint32
	fd   int

	mu       sync.Mutex
	attached bool
	closed   bool
}

// NewMSISource takes a GSI of its own for a message source.
func (c *chip) NewMSISource() (irq.MSISource, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("kvm: eventfd: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.used, false)
	if i < 0 {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("kvm: all %d message interrupts are in use", len(c.used))
	}
	c.used[i] = true
	return &msiSource{chip: c, gsi: uint32(i + firstMSI), fd: fd}, nil
}

// route makes gsi send m.
func (c *chip) route(gsi uint32, m irq.MSI) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.sources[gsi]; ok && old == m {
		return nil
	}
	c.sources[gsi] = m
	return c.writeRoutes()
}

// release gives gsi back.
func (c *chip) release(gsi uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used[gsi-firstMSI] = false
	if _, ok := c.sources[gsi]; !ok {
		return nil
	}
	delete(c.sources, gsi)
	return c.writeRoutes()
}

// Program sets the message; a masked source is detached from KVM.
func (s *msiSource) Program(m irq.MSI, masked bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("kvm: message source is closed")
	}
	if masked {
		return s.attach(false)
	}
	if err := s.chip.route(s.gsi, m); err != nil {
		return fmt.Errorf("kvm: %w", err)
	}
	return s.attach(true)
}

// attach connects the eventfd with KVM or disconnects it; s.mu is held.
func (s *msiSource) attach(on bool) error {
	if s.attached == on || s.chip.vm.closed.Load() {
		return nil
	}
	f := kvmapi.IRQFD{FD: uint32(s.fd), GSI: s.gsi}
	if !on {
		f.Flags = kvmapi.KVM_IRQFD_FLAG_DEASSIGN
	}
	if _, err := kvmapi.IoctlPtr(s.chip.vm.fd, kvmapi.KVM_IRQFD, &f); err != nil {
		return fmt.Errorf("kvm: %w", err)
	}
	s.attached = on
	return nil
}

// Trigger sends the message. The lock keeps a trigger that races with masking
// from leaving a count in the eventfd, which a later unmasking would deliver.
func (s *msiSource) Trigger() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.attached {
		return
	}
	one := [8]byte{1}
	// EAGAIN would mean 2^64-2 triggers unserved: the interrupt is pending already.
	_, _ = unix.Write(s.fd, one[:])
}

// Close releases the source.
func (s *msiSource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.attach(false)
	s.attached = false
	return errors.Join(err, s.chip.release(s.gsi), unix.Close(s.fd))
}
