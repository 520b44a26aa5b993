// Package ferr is a PC's wiring of the FPU's error pins: FERR# to IRQ 13, and port 0xF0 to IGNNE#.
package ferr

import (
	"fmt"
	"sync"

	"berth/bus"
	"berth/irq"
)

// Port window: 0xF0 and, on a PC with a 80287, its reset at 0xF1, which does nothing.
const (
	Base = 0xf0
	Size = 2
)

// FERR is the logic between one CPU and the interrupt controllers (ICH9 datasheet
// §5.13.2, coprocessor error support). Safe for concurrent use.
type FERR struct {
	line   irq.Line
	ignore func(on bool)

	mu sync.Mutex // taken before the line's locks
	s  irq.FERRState
}

// New returns the logic as after reset. line is IRQ 13; ignore drives the CPU's
// IGNNE# and may not call back.
func New(line irq.Line, ignore func(on bool)) *FERR { return &FERR{line: line, ignore: ignore} }

// Set drives FERR#. Its assertion latches IRQ 13, its end ends IGNNE#.
func (f *FERR) Set(asserted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if asserted == f.s.Asserted {
		return
	}
	if f.s.Asserted = asserted; asserted {
		f.line.Set(true)
		return
	}
	f.setIgnored(false)
}

// Port is the window: any write to 0xF0 ends the interrupt and, while FERR# is
// asserted, has the CPU ignore the error. It reads as ones.
func (f *FERR) Port() bus.Handler {
	return bus.Bytes{
		In: func(uint64) byte { return 0xff },
		Out: func(off uint64, _ byte) {
			if off != 0 {
				return
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.line.Set(false)
			f.setIgnored(f.s.Asserted)
		},
	}
}

func (f *FERR) setIgnored(on bool) {
	f.s.Ignored = on
	f.ignore(on)
}

// Reset ends everything.
func (f *FERR) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s.Asserted = false
	f.line.Set(false)
	f.setIgnored(false)
}

// Save returns the state.
func (f *FERR) Save() irq.FERRState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.s
}

// Load replaces the state; the interrupt controllers have what the line was.
func (f *FERR) Load(s irq.FERRState) error {
	if s.Ignored && !s.Asserted {
		return fmt.Errorf("ferr: an error is ignored that is not there")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.s = s
	f.ignore(s.Ignored)
	return nil
}
