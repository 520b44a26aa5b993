package uart

// send takes a byte that the guest transmits.
func (u *UART) send(v byte) {
	u.s.THREPending = false
	if u.s.MCR&mcrLoop != 0 {
		u.arrive(v)
		u.s.LSR |= lsrTHRE | lsrTEMT
		u.s.THREPending = true
		return
	}
	limit := 1
	if u.fifo() {
		limit = fifoSize
	}
	if len(u.s.Transmit) < limit {
		u.s.Transmit = append(u.s.Transmit, v)
	} else {
		u.s.Transmit[limit-1] = v // sent without heed of THRE
	}
	u.transmit()
}

// transmit moves bytes on to the host. What it has no room for stays, with THRE
// clear, until space is called.
func (u *UART) transmit() {
	n := len(u.s.Transmit)
	if u.out != nil {
		n = u.out.Offer(u.s.Transmit)
	}
	u.s.Transmit = append(u.s.Transmit[:0], u.s.Transmit[n:]...)
	if len(u.s.Transmit) > 0 {
		u.s.LSR &^= lsrTHRE | lsrTEMT
		return
	}
	u.s.LSR |= lsrTHRE | lsrTEMT
	u.s.THREPending = true
}

// space is the queue's word that it has room again.
func (u *UART) space() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.s.Transmit) > 0 {
		u.transmit()
		u.update()
	}
}

// capacity is how many bytes the receiver holds.
func (u *UART) capacity() int {
	if u.fifo() {
		return fifoSize
	}
	return 1
}

// arrive puts one byte into the receiver; a full one is an overrun. In FIFO mode
// the byte in the shift register is lost, else the one not yet read.
func (u *UART) arrive(v byte) {
	if len(u.s.Received) >= u.capacity() {
		u.s.LSR |= lsrOverrun
		if !u.fifo() {
			u.s.Received[0] = v
		}
	} else {
		u.s.Received = append(u.s.Received, v)
	}
	if !u.fifo() {
		u.s.Last = v
	}
	u.s.LSR |= lsrData
	u.armTimeout()
}

// take returns the next received byte; with none there, 0 in FIFO mode and the
// last one again without.
func (u *UART) take() byte {
	u.s.TimeoutPending = false
	if len(u.s.Received) == 0 {
		if u.fifo() {
			return 0
		}
		return u.s.Last
	}
	v := u.s.Received[0]
	u.s.Received = append(u.s.Received[:0], u.s.Received[1:]...)
	if len(u.s.Received) == 0 {
		u.s.LSR &^= lsrData | lsrBreak
		u.timeout.Stop()
		u.s.TimeoutAt = 0
	} else {
		u.armTimeout()
	}
	u.refill()
	u.update()
	return v
}

// refill moves waiting input into the receiver as far as it has room.
func (u *UART) refill() {
	var b [1]byte
	for len(u.s.Received) < u.capacity() && u.s.MCR&mcrLoop == 0 && u.in.Take(b[:]) == 1 {
		u.arrive(b[0])
	}
}

// armTimeout restarts the FIFO time-out: four characters without a byte moved
// in either direction (PC16550D §8.4, FIFO interrupt mode).
func (u *UART) armTimeout() {
	if !u.fifo() {
		return
	}
	bits := uint64(7) + uint64(u.s.LCR&3) // start, data and one stop bit
	bits += uint64(u.s.LCR>>2&1) + uint64(u.s.LCR>>3&1)
	character := bits * nsInSecond * max(1, uint64(u.s.Divisor)) / baseRate
	u.s.TimeoutAt = u.clock.Now() + 4*character
	u.timeout.Set(u.s.TimeoutAt)
}

func (u *UART) timedOut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.s.TimeoutAt == 0 || u.clock.Now() < u.s.TimeoutAt {
		return // re-armed or stopped meanwhile
	}
	u.s.TimeoutAt = 0
	u.s.TimeoutPending = len(u.s.Received) > 0
	u.update()
}

// receive is the input's word that bytes have come.
func (u *UART) receive() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.refill()
	u.update()
}

// Drain returns when all that the guest transmitted has reached the host's port.
func (u *UART) Drain() {
	if u.out == nil {
		return
	}
	for {
		u.out.Drain()
		u.mu.Lock()
		if len(u.s.Transmit) > 0 {
			u.transmit()
			u.update()
		}
		left := len(u.s.Transmit)
		u.mu.Unlock()
		if left == 0 {
			u.out.Drain()
			return
		}
	}
}

// Abandon drops output that the host has not taken, now and from now on, so that
// neither Drain nor Close waits for a host that never will.
func (u *UART) Abandon() {
	if u.out != nil {
		u.out.Abandon()
	}
}

// Close waits until the host has taken all output, then closes its port. The
// registers go on working, with nothing plugged in.
func (u *UART) Close() error {
	if u.out == nil {
		return nil
	}
	u.Drain()
	u.in.Close()
	err := u.out.Close()
	if cerr := u.port.Close(); err == nil {
		err = cerr
	}
	return err
}
