// Package pit is the PC's 8254 interval timer with the speaker port 0x61.
package pit

import (
	"fmt"
	"sync"
	"sync/atomic"

	"berth/bus"
	"berth/clock"
	"berth/irq"
)

// Hz is the counters' input frequency.
const Hz = 1193182

// Port windows.
const (
	Base, Size               = 0x40, 4
	SpeakerBase, SpeakerSize = 0x61, 1
)

// minPeriod bounds how often channel 0 interrupts, in ns: a guest that asks for
// more loses ticks instead of filling the clock's goroutine.
const minPeriod = 200_000

// refreshHalf is half the period of the DRAM refresh that port 0x61 shows, in ns.
const refreshHalf = 15085

// PIT is the timer. Channel 0 drives the interrupt line, channel 2's gate and
// output are in port 0x61. A rising output of channel 0 is passed on as a rising
// edge of the line; its falling edges, which no controller heeds, are not kept
// exactly. Safe for concurrent use.
type PIT struct {
	irq   irq.Line
	clock clock.Clock
	timer clock.Timer

	mu      sync.Mutex // taken before the line's locks
	ch      [3]channel
	speaker bool
	edge    uint64 // guest time of channel 0's next rising output; 0: none

	hears   bool        // somebody calls Ended
	serving atomic.Bool // the guest has an interrupt that has not ended; changed under mu
	owed    int         // ticks that came meanwhile
	deaf    bool        // the guest ends none: nothing waits for it
}

// maxOwed bounds the ticks that wait for a guest. So many without an end: it does not
// take the interrupt at all, and they are forgotten.
const maxOwed = 16

type channel struct{ irq.PITChannel }

// New returns the timer as after power-on.
func New(line irq.Line, c clock.Clock) *PIT {
	p := &PIT{irq: line, clock: c}
	p.timer = c.NewTimer(p.fire)
	p.reset()
	return p
}

// HearEnds has channel 0 wait with an edge until the interrupt before has ended, of
// which Ended tells: a guest whose vCPU the host held up gets all its ticks, late.
// Call it before the timer is used.
func (p *PIT) HearEnds() { p.hears = true }

// Serving reports that Ended is to be called at the end of channel 0's interrupt. It
// takes no lock.
func (p *PIT) Serving() bool { return p.serving.Load() }

// Ended tells of the end of channel 0's interrupt.
func (p *PIT) Ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = false
	if p.owed == 0 {
		p.serving.Store(false)
		return
	}
	p.owed--
	p.rise()
}

// tick is a rising output of channel 0, which may have to wait.
func (p *PIT) tick() {
	if p.hears && p.serving.Swap(true) && !p.deaf {
		if p.owed < maxOwed {
			p.owed++
			return
		}
		p.owed, p.deaf = 0, true
	}
	p.rise()
}

// rise is an edge of the line.
func (p *PIT) rise() {
	p.irq.Set(false)
	p.irq.Set(true)
}

// Reset puts the timer into its state after power-on: mode 3, not loaded.
func (p *PIT) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset()
}

func (p *PIT) reset() {
	p.stop()
	p.speaker = false
	for i := range p.ch {
		p.ch[i] = channel{irq.PITChannel{Count: 0x10000, Mode: 3, Gate: i != 2, LoadTime: p.clock.Now(), Idle: true}}
	}
}

// Counters is the window of the four ports at 0x40.
func (p *PIT) Counters() bus.Handler {
	return bus.Bytes{In: p.read, Out: p.write}
}

// Speaker is the window of port 0x61.
func (p *PIT) Speaker() bus.Handler {
	return bus.Bytes{In: p.readSpeaker, Out: p.writeSpeaker}
}

func (p *PIT) read(off uint64) byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if off >= 3 {
		return 0 // the control word cannot be read
	}
	now := p.now()
	return p.ch[off].read(now)
}

func (p *PIT) write(off uint64, v byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if off < 3 {
		if p.ch[off].write(v, now); off == 0 {
			p.start(now)
		}
		return
	}
	if n := v >> 6; n < 3 {
		if p.ch[n].control(v, now) && n == 0 {
			p.stop()
		}
		return
	}
	for n := range p.ch { // read-back
		if v&(2<<n) != 0 {
			p.ch[n].readBack(v, now)
		}
	}
}

// now returns the guest time, to which every channel is brought.
func (p *PIT) now() uint64 {
	now := p.clock.Now()
	for i := range p.ch {
		p.ch[i].settle(now)
	}
	return now
}

// stop cancels channel 0's edge and lowers the line.
func (p *PIT) stop() {
	p.timer.Stop()
	p.edge, p.owed, p.deaf = 0, 0, false
	p.serving.Store(false)
	p.irq.Set(false)
}

// start lowers the line and waits for channel 0's next rising edge.
func (p *PIT) start(now uint64) {
	p.stop()
	p.edge = p.ch[0].nextRise(now)
	if p.edge != 0 {
		p.timer.Set(p.edge)
	}
}

func (p *PIT) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.edge == 0 || now < p.edge {
		return // reprogrammed meanwhile
	}
	p.tick()
	if p.edge = p.ch[0].nextRise(now); p.edge != 0 {
		p.edge = max(p.edge, now+minPeriod)
		p.timer.Set(p.edge)
	}
}

// Port 0x61 (ICH9 datasheet §13.7.1, NMI status and control):
//
//	5 channel 2 output | 4 refresh | 1 speaker | 0 channel 2 gate
func (p *PIT) readSpeaker(uint64) byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	v := byte(now/refreshHalf&1) << 4
	if p.ch[2].Gate {
		v |= 1
	}
	if p.speaker {
		v |= 2
	}
	if p.ch[2].out(now) {
		v |= 1 << 5
	}
	return v
}

func (p *PIT) writeSpeaker(_ uint64, v byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.speaker = v&2 != 0
	p.ch[2].gate(v&1 != 0, p.now())
}

// Save returns the timer's state.
func (p *PIT) Save() irq.PITState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := irq.PITState{SpeakerOn: p.speaker}
	for i := range p.ch {
		s.Channel[i] = p.ch[i].PITChannel
	}
	return s
}

// Load replaces the timer's state. The clock must already show the guest time
// to which the state belongs.
func (p *PIT) Load(s irq.PITState) error {
	for i, c := range s.Channel {
		if c.Count == 0 || max(c.Count, c.Next) > 0x10000 || c.Mode > 5 || c.RWMode > 3 ||
			c.ReadState > 4 || c.WriteState > 4 || c.CountLatched > 4 {
			return fmt.Errorf("pit: channel %d: impossible state", i)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.speaker = s.SpeakerOn
	for i := range p.ch {
		p.ch[i].PITChannel = s.Channel[i]
	}
	p.stop()
	if p.ch[0].RWMode != 0 { // programmed since reset
		p.start(p.clock.Now())
	}
	return nil
}
