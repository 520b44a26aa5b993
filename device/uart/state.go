package uart

import "fmt"

// StateVersion is the version of State.
const StateVersion = 1

// State is a serial port, with the bytes between the guest and the host's port.
// Drain first, or what the host has not yet written is missing.
type State struct {
	Version                           uint32
	Divisor                           uint16
	IER, FCR, LCR, MCR, LSR, MSR, SCR uint8
	Last                              uint8 // what an empty receiver reads without FIFO
	THREPending, TimeoutPending       bool
	TimeoutAt                         uint64 // guest time in ns; 0 when not armed
	Received                          []byte // the receiver's FIFO, at most 16
	Transmit                          []byte // the transmitter's FIFO, at most 16
	Input                             []byte // read from the host and not yet received
}

// Save returns the port's state.
func (u *UART) Save() State {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.s
	s.Received = append([]byte(nil), s.Received...)
	s.Transmit = append([]byte(nil), s.Transmit...)
	s.Input = u.in.Save()
	return s
}

// Load replaces the port's state and drives its line accordingly.
func (u *UART) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("uart: state version %d, want %d", s.Version, StateVersion)
	}
	if len(s.Received) > fifoSize || len(s.Transmit) > fifoSize {
		return fmt.Errorf("uart: state has %d received and %d transmitted bytes, more than the FIFOs' %d",
			len(s.Received), len(s.Transmit), fifoSize)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.timeout.Stop()
	u.s = s
	u.s.Received = append([]byte(nil), s.Received...)
	u.s.Transmit = append([]byte(nil), s.Transmit...)
	u.s.Input = nil
	u.in.Load(s.Input)
	if s.TimeoutAt != 0 {
		u.timeout.Set(s.TimeoutAt)
	}
	if len(s.Transmit) > 0 {
		u.transmit()
	}
	u.refill()
	u.level = u.pending() != iirNone
	u.irq.Set(u.level)
	return nil
}
