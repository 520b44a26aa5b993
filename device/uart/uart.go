// Package uart is a 16550A serial port.
package uart

import (
	"sync"

	"berth/bus"
	"berth/chardev"
	"berth/clock"
	"berth/irq"
)

// Size is the number of ports, from 0x3f8 for COM1.
const Size = 8

// Registers by offset (PC16550D datasheet, table II). DLAB turns 0 and 1 into the divisor.
const (
	regData = 0 // RBR, THR, DLL
	regIER  = 1 // IER, DLM
	regIIR  = 2 // IIR, FCR
	regLCR  = 3
	regMCR  = 4
	regLSR  = 5
	regMSR  = 6
	regSCR  = 7
)

const (
	ierReceive  = 1 << 0
	ierTransmit = 1 << 1
	ierLine     = 1 << 2
	ierModem    = 1 << 3

	iirNone     = 0x01
	iirModem    = 0x00
	iirTransmit = 0x02
	iirReceive  = 0x04
	iirLine     = 0x06
	iirTimeout  = 0x0c
	iirFIFO     = 0xc0

	fcrEnable    = 1 << 0
	fcrClearRecv = 1 << 1
	fcrClearXmit = 1 << 2
	fcrKept      = 0xc9 // enable, DMA mode, trigger level

	lcrDLAB = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOut1 = 1 << 2
	mcrOut2 = 1 << 3
	mcrLoop = 1 << 4

	lsrData      = 1 << 0
	lsrOverrun   = 1 << 1
	lsrBreak     = 1 << 4
	lsrTHRE      = 1 << 5
	lsrTEMT      = 1 << 6
	lsrInterrupt = 0x1e // what IER's line status bit asks for

	msrDeltas = 0x0f
	msrTERI   = 1 << 2
	msrCTS    = 1 << 4
	msrDSR    = 1 << 5
	msrRI     = 1 << 6
	msrDCD    = 1 << 7
)

const (
	fifoSize   = 16
	queueSize  = 64 << 10
	inputSize  = 4096
	baseRate   = 115200
	nsInSecond = 1_000_000_000
)

var triggers = [4]int{1, 4, 8, 14} // FCR bits 7..6

// Config is what a UART needs around it.
type Config struct {
	IRQ   irq.Line
	Clock clock.Clock
	// Port is the host's end; nil is a port with nothing plugged in. The UART
	// reads it from one goroutine and writes it from another, and closes it.
	Port chardev.Port
}

// UART is one serial port. Transmission takes no guest time, but while the host
// is slow to read, THRE stays clear, so that no byte of a driver that heeds it is
// lost. Safe for concurrent use.
type UART struct {
	bus.Bytes
	irq     irq.Line
	clock   clock.Clock
	timeout clock.Timer
	port    chardev.Port
	in      *chardev.Input
	out     *chardev.Queue // nil without a port

	mu    sync.Mutex // taken before the line's, the input's and the queue's locks
	s     State      // save for Input, which is in's
	level bool
}

// New returns a UART after reset and starts to read cfg.Port.
func New(cfg Config) *UART {
	u := &UART{irq: cfg.IRQ, clock: cfg.Clock, port: cfg.Port}
	u.Bytes = bus.Bytes{In: u.read, Out: u.write}
	u.timeout = cfg.Clock.NewTimer(u.timedOut)
	u.reset()
	if u.port != nil {
		u.out = chardev.NewQueue(u.port, queueSize, u.space)
	}
	u.in = chardev.NewInput(u.port, inputSize)
	u.in.Start(u.receive)
	return u
}

// Reset puts the registers into their state after power-on. Input that waits
// at the host stays.
func (u *UART) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reset()
	u.refill()
	u.update()
}

func (u *UART) reset() {
	u.timeout.Stop()
	u.s = State{
		Version: StateVersion, Divisor: 12, LSR: lsrTHRE | lsrTEMT, MCR: mcrOut2,
		MSR: msrDCD | msrDSR | msrCTS,
	}
}

func (u *UART) read(off uint64) byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch off & 7 {
	case regData:
		if u.s.LCR&lcrDLAB != 0 {
			return byte(u.s.Divisor)
		}
		return u.take()
	case regIER:
		if u.s.LCR&lcrDLAB != 0 {
			return byte(u.s.Divisor >> 8)
		}
		return u.s.IER
	case regIIR:
		return u.readIIR()
	case regLCR:
		return u.s.LCR
	case regMCR:
		return u.s.MCR
	case regLSR:
		v := u.s.LSR
		u.s.LSR &^= lsrOverrun | lsrBreak
		u.update()
		return v
	case regMSR:
		v := u.modem() | u.s.MSR&msrDeltas
		u.s.MSR &^= msrDeltas
		u.update()
		return v
	default:
		return u.s.SCR
	}
}

// readIIR returns the highest interrupt; seeing THRE in it acknowledges THRE.
func (u *UART) readIIR() byte {
	v := u.pending()
	if v == iirTransmit {
		u.s.THREPending = false
		u.update()
	}
	if u.fifo() {
		v |= iirFIFO
	}
	return v
}

func (u *UART) write(off uint64, v byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch off & 7 {
	case regData:
		if u.s.LCR&lcrDLAB != 0 {
			u.s.Divisor = u.s.Divisor&0xff00 | uint16(v)
			return
		}
		u.send(v)
	case regIER:
		if u.s.LCR&lcrDLAB != 0 {
			u.s.Divisor = u.s.Divisor&0xff | uint16(v)<<8
			return
		}
		u.writeIER(v & 0x0f)
	case regIIR:
		u.writeFCR(v)
	case regLCR:
		u.s.LCR = v
	case regMCR:
		u.writeMCR(v & 0x1f)
	case regSCR:
		u.s.SCR = v
	}
	u.update()
}

// writeIER: enabling THRE while the transmitter is empty asserts it, even if
// reading IIR had acknowledged it before.
func (u *UART) writeIER(v byte) {
	if (u.s.IER^v)&ierTransmit != 0 {
		u.s.THREPending = v&ierTransmit != 0 && u.s.LSR&lsrTHRE != 0
	}
	u.s.IER = v
}

func (u *UART) writeFCR(v byte) {
	if (u.s.FCR^v)&fcrEnable != 0 {
		v |= fcrClearRecv | fcrClearXmit
	}
	u.s.FCR = v & fcrKept
	if v&fcrClearRecv != 0 {
		u.timeout.Stop()
		u.s.TimeoutPending, u.s.TimeoutAt = false, 0
		u.s.Received = u.s.Received[:0]
		u.s.LSR &^= lsrData | lsrBreak
		u.refill()
	}
	if v&fcrClearXmit != 0 {
		u.s.Transmit = u.s.Transmit[:0]
		u.s.LSR |= lsrTHRE | lsrTEMT
		u.s.THREPending = true
	}
}

// writeMCR: in loopback the outputs drive the modem inputs, whose changes show as deltas.
func (u *UART) writeMCR(v byte) {
	before := u.modem()
	u.s.MCR = v
	after := u.modem()
	changed := (before ^ after) >> 4
	if changed&msrTERI != 0 && after&msrRI != 0 {
		changed &^= msrTERI // RI reports its trailing edge only
	}
	u.s.MSR |= changed
	u.refill()
}

// modem returns MSR's upper half.
func (u *UART) modem() byte {
	if u.s.MCR&mcrLoop == 0 {
		return u.s.MSR &^ msrDeltas
	}
	var v byte
	for _, w := range [...]struct{ out, in byte }{{mcrDTR, msrDSR}, {mcrRTS, msrCTS}, {mcrOut1, msrRI}, {mcrOut2, msrDCD}} {
		if u.s.MCR&w.out != 0 {
			v |= w.in
		}
	}
	return v
}

func (u *UART) fifo() bool { return u.s.FCR&fcrEnable != 0 }

// pending returns the IIR code of the highest enabled interrupt (PC16550D, table IV).
func (u *UART) pending() byte {
	s := &u.s
	switch {
	case s.IER&ierLine != 0 && s.LSR&lsrInterrupt != 0:
		return iirLine
	case s.IER&ierReceive != 0 && s.TimeoutPending:
		return iirTimeout
	case s.IER&ierReceive != 0 && s.LSR&lsrData != 0 && len(s.Received) >= u.trigger():
		return iirReceive
	case s.IER&ierTransmit != 0 && s.THREPending:
		return iirTransmit
	case s.IER&ierModem != 0 && s.MSR&msrDeltas != 0:
		return iirModem
	}
	return iirNone
}

// trigger is how many received bytes ask for an interrupt.
func (u *UART) trigger() int {
	if !u.fifo() {
		return 1
	}
	return triggers[u.s.FCR>>6]
}

func (u *UART) update() {
	if level := u.pending() != iirNone; level != u.level {
		u.level = level
		u.irq.Set(level)
	}
}
