// Package pic is the PC's pair of cascaded 8259A interrupt controllers.
package pic

import (
	"fmt"
	"sync"

	"berth/bus"
	"berth/irq"
)

// Port windows: each 8259A has two ports, and the ELCR pair one for each chip.
const (
	MasterBase, SlaveBase, ELCRBase = 0x20, 0xa0, 0x4d0

	Size = 2
)

const (
	cascade = 2 // the master's input that the slave drives
	none    = 8 // no input in a priority search

	// Inputs that may be level triggered: not the timer, keyboard, cascade, RTC and FPU.
	masterELCR, slaveELCR = 0xf8, 0xde
)

// PIC is the pair. Inputs 0-7 are the master's, 8-15 the slave's; INTR is the
// line to the CPU. Safe for concurrent use.
type PIC struct {
	intr irq.Line

	mu    sync.Mutex // taken before intr's locks
	chip  [2]chip
	level bool // of intr
}

type chip struct {
	irq.PICState
	master bool
}

// New returns the pair as after power-on, driving intr.
func New(intr irq.Line) *PIC {
	p := &PIC{intr: intr}
	p.reset()
	return p
}

// Reset puts both chips into their state after power-on. The inputs keep their levels.
func (p *PIC) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset()
	p.update()
}

func (p *PIC) reset() {
	for i := range p.chip {
		c := &p.chip[i]
		*c = chip{master: i == 0, PICState: irq.PICState{LastIRR: c.LastIRR, LevelTriggeredPermitted: slaveELCR}}
		if c.master {
			c.LevelTriggeredPermitted = masterELCR
		}
	}
}

// Set drives input n, 0-15; others are ignored.
func (p *PIC) Set(n uint32, level bool) {
	if n > 15 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chip[n>>3].set(uint8(1)<<(n&7), level)
	p.update()
}

// Acknowledge is the INTA cycle: it takes the highest request and returns its
// vector. With none left it is the spurious input 7.
func (p *PIC) Acknowledge() (vector uint8) {
	p.mu.Lock()
	defer p.mu.Unlock()
	master, slave := &p.chip[0], &p.chip[1]
	n := master.request()
	if n == none {
		return master.VectorBase | 7
	}
	vector = master.VectorBase | n
	if n == cascade {
		s := slave.request()
		if s == none {
			s = 7
		} else {
			slave.take(s)
		}
		vector = slave.VectorBase | s
	}
	master.take(n)
	p.update()
	return vector
}

// Vector returns the vector of input n, 0-15.
func (p *PIC) Vector(n uint8) uint8 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.chip[n>>3&1].VectorBase | n&7
}

// cascade passes the slave's output to the master as a level: each INTA cycle
// ends its pulse, so that a request still waiting is a new edge.
func (p *PIC) cascade() {
	master := &p.chip[0]
	master.IRR &^= 1 << cascade
	if p.chip[1].request() != none {
		master.IRR |= 1 << cascade
	}
}

// update passes on the slave's output, then the master's to INTR.
func (p *PIC) update() {
	p.cascade()
	if level := p.chip[0].request() != none; level != p.level {
		p.level = level
		p.intr.Set(level)
	}
}

// Master and Slave are the chips' port windows.
func (p *PIC) Master() bus.Handler { return p.window(0) }

// Slave is the second chip's window.
func (p *PIC) Slave() bus.Handler { return p.window(1) }

func (p *PIC) window(i int) bus.Handler {
	return bus.Bytes{
		In: func(off uint64) byte {
			p.mu.Lock()
			defer p.mu.Unlock()
			defer p.update()
			return p.chip[i].read(off & 1)
		},
		Out: func(off uint64, v byte) {
			p.mu.Lock()
			defer p.mu.Unlock()
			defer p.update()
			if off&1 == 0 {
				p.chip[i].command(v)
			} else {
				p.chip[i].data(v)
			}
		},
	}
}

// ELCR is the window of the edge/level control registers (ICH9 datasheet §13.4.11).
func (p *PIC) ELCR() bus.Handler {
	return bus.Bytes{
		In: func(off uint64) byte {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.chip[off&1].LevelTriggered
		},
		Out: func(off uint64, v byte) {
			p.mu.Lock()
			defer p.mu.Unlock()
			c := &p.chip[off&1]
			c.LevelTriggered = v & c.LevelTriggeredPermitted
			c.IRR = c.IRR&^c.LevelTriggered | c.LastIRR&c.LevelTriggered
			p.update()
		},
	}
}

// Save returns the state of master and slave.
func (p *PIC) Save() [2]irq.PICState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return [2]irq.PICState{p.chip[0].PICState, p.chip[1].PICState}
}

// Load replaces the state of both and drives INTR accordingly.
func (p *PIC) Load(s [2]irq.PICState) error {
	for i := range s {
		if s[i].InitState > 3 || s[i].PriorityAdd > 7 || s[i].VectorBase&7 != 0 {
			return fmt.Errorf("pic: chip %d: impossible state", i)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range s {
		p.chip[i].PICState = s[i]
	}
	p.cascade()
	p.level = p.chip[0].request() != none
	p.intr.Set(p.level)
	return nil
}
