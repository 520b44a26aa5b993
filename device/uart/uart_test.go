package uart

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"sync"
	"testing"

	"berth/chardev"
	"berth/clock"
)

// level is a line that remembers.
type level struct {
	mu    sync.Mutex
	on    bool
	rises int
}

func (l *level) Set(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if on && !l.on {
		l.rises++
	}
	l.on = on
}

func (l *level) high() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.on
}

type rig struct {
	*UART
	t     *testing.T
	line  *level
	clock *clock.Manual
}

func newRig(t *testing.T, port chardev.Port) *rig {
	r := &rig{t: t, line: &level{}, clock: clock.NewManual()}
	r.UART = New(Config{IRQ: r.line, Clock: r.clock, Port: port})
	return r
}

func (r *rig) get(off uint64) byte {
	var p [1]byte
	r.Read(off, p[:])
	return p[0]
}

func (r *rig) put(off uint64, v byte) { r.Write(off, []byte{v}) }

func (r *rig) want(what string, got, want byte) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: %#02x, want %#02x", what, got, want)
	}
}

// feed gives the receiver input as the host's reader does.
func (r *rig) feed(p string) {
	r.in.Load(append(r.in.Save(), p...))
	r.receive()
}

func TestResetState(t *testing.T) {
	r := newRig(t, nil)
	r.want("LSR", r.get(regLSR), 0x60)
	r.want("IIR", r.get(regIIR), 0x01)
	r.want("MSR", r.get(regMSR), 0xb0)
	r.want("IER", r.get(regIER), 0)
	r.want("LCR", r.get(regLCR), 0)
}

func TestScratchAndDivisorLatch(t *testing.T) {
	r := newRig(t, nil)
	r.put(regSCR, 0xa5)
	r.put(regLCR, 0x83)
	r.put(regData, 0x34)
	r.put(regIER, 0x12)
	r.want("DLL", r.get(regData), 0x34)
	r.want("DLM", r.get(regIER), 0x12)
	r.put(regLCR, 0x03)
	r.want("IER", r.get(regIER), 0)
	r.want("SCR", r.get(regSCR), 0xa5)
}

// PC16550D §8.6.2, the IIR's FIFO bits and the reset that changing FCR0 implies.
func TestFIFOEnableShowsInIIRAndClears(t *testing.T) {
	r := newRig(t, nil)
	r.put(regIIR, 0x01)
	r.want("IIR", r.get(regIIR), 0xc1)
	r.feed("abc")
	r.put(regIIR, 0x00)
	r.want("LSR", r.get(regLSR), 0x60)
	r.want("IIR", r.get(regIIR), 0x01)
}

func TestTransmitReachesHostInOrder(t *testing.T) {
	host, dev := chardev.Pipe(1 << 20)
	r := newRig(t, dev)
	want := bytes.Repeat([]byte("0123456789abcdef\n"), 4000)
	got := make(chan []byte)
	go func() {
		p, _ := io.ReadAll(host)
		got <- p
	}()
	for _, b := range want {
		for r.get(regLSR)&lsrTHRE == 0 {
		}
		r.put(regData, b)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if p := <-got; !bytes.Equal(p, want) {
		t.Errorf("host got %d bytes, want %d", len(p), len(want))
	}
	r.put(regData, 'x') // after Close: dropped, not blocked
	r.want("LSR", r.get(regLSR), 0x60)
}

// gate is a host that reads nothing until opened.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	got  []byte
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got = append(g.got, p...)
	return len(p), nil
}
func (g *gate) Read([]byte) (int, error) { return 0, io.EOF }
func (g *gate) Close() error             { return nil }

func TestSlowHostHoldsTHREClearAndLosesNothing(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	r := newRig(t, g)
	r.put(regIIR, 0x01)
	r.put(regIER, ierTransmit)
	sent := []byte{}
	for i := 0; r.get(regLSR)&lsrTHRE != 0; i++ {
		if i > 1<<20 {
			t.Fatal("THRE never clears")
		}
		for range fifoSize {
			b := byte(len(sent) * 7)
			r.put(regData, b)
			sent = append(sent, b)
		}
	}
	if r.line.high() {
		t.Error("THRE interrupt while the transmitter is full")
	}
	rises := r.line.rises
	close(g.open)
	r.Drain()
	if lsr := r.get(regLSR); lsr&0x60 != 0x60 {
		t.Errorf("LSR %#x after drain", lsr)
	}
	if !r.line.high() || r.line.rises == rises {
		t.Error("no THRE interrupt when room came back")
	}
	if !bytes.Equal(g.got, sent) {
		t.Errorf("host got %d bytes, want %d", len(g.got), len(sent))
	}
}

type failing struct{ gate }

func (*failing) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestFailedHostNeverBlocksTheGuest(t *testing.T) {
	r := newRig(t, &failing{})
	for range 3 * queueSize {
		r.put(regData, 'x')
	}
	r.Drain()
	r.want("LSR", r.get(regLSR), 0x60)
	if err := r.Close(); err == nil {
		t.Error("the host's error is lost")
	}
}

// PC16550D table IV: THRE is reset by reading IIR (if the source) or writing THR.
func TestTHREInterrupt(t *testing.T) {
	r := newRig(t, nil)
	r.put(regIER, ierTransmit)
	if !r.line.high() {
		t.Fatal("enabling with an empty transmitter gives no interrupt")
	}
	r.want("IIR", r.get(regIIR), iirTransmit)
	if r.line.high() {
		t.Error("still pending after IIR showed it")
	}
	r.want("IIR", r.get(regIIR), iirNone)
	r.put(regIER, 0)
	r.put(regIER, ierTransmit)
	r.want("IIR after enabling again", r.get(regIIR), iirTransmit)
	r.put(regData, 'x')
	r.want("IIR after a byte went out", r.get(regIIR), iirTransmit)
}

func TestReceiveWithoutFIFO(t *testing.T) {
	r := newRig(t, nil)
	r.put(regIER, ierReceive)
	r.feed("ab")
	r.want("IIR", r.get(regIIR), iirReceive)
	r.want("RBR", r.get(regData), 'a')
	r.want("LSR", r.get(regLSR), 0x61) // the next one has come
	r.want("RBR", r.get(regData), 'b')
	r.want("LSR", r.get(regLSR), 0x60)
	if r.line.high() {
		t.Error("line high with nothing to read")
	}
	r.want("empty RBR", r.get(regData), 'b')
	r.put(regIIR, 0x01)
	r.want("empty FIFO", r.get(regData), 0)
}

// PC16550D §8.4: trigger level, then the time-out for what stays below it.
func TestFIFOTriggerLevelAndTimeout(t *testing.T) {
	for i, trigger := range triggers {
		r := newRig(t, nil)
		r.put(regLCR, 0x83)
		r.put(regData, 1)
		r.put(regLCR, 0x03)
		r.put(regIIR, byte(i)<<6|1)
		r.put(regIER, ierReceive)
		r.feed(string(make([]byte, trigger-1)))
		r.want("IIR below trigger", r.get(regIIR), 0xc1)
		r.clock.Advance(4 * 10 * nsInSecond / baseRate)
		if trigger > 1 {
			r.want("IIR after four characters", r.get(regIIR), 0xcc)
			r.get(regData)
			if trigger > 2 {
				r.want("IIR after a read", r.get(regIIR), 0xc1)
			}
			r.feed("x")
		}
		r.feed("x")
		r.want("IIR at trigger", r.get(regIIR), 0xc4)
		for r.get(regLSR)&lsrData != 0 {
			r.get(regData)
		}
		r.want("IIR when empty", r.get(regIIR), 0xc1)
		r.clock.Advance(nsInSecond)
		r.want("IIR empty and late", r.get(regIIR), 0xc1)
	}
}

func TestReceiveIsHeldBackNotOverrun(t *testing.T) {
	host, dev := chardev.Pipe(1 << 10)
	r := newRig(t, dev)
	r.put(regIIR, 0x01)
	want := bytes.Repeat([]byte("The quick brown fox. "), 5000)
	go host.Write(want)
	var got []byte
	for len(got) < len(want) {
		lsr := r.get(regLSR)
		if lsr&lsrOverrun != 0 {
			t.Fatal("overrun")
		}
		if lsr&lsrData != 0 {
			got = append(got, r.get(regData))
		}
		if len(got)%500 == 0 {
			if n := len(r.Save().Input); n > 2*inputSize {
				t.Fatalf("%d bytes ahead of the guest", n)
			}
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("input damaged")
	}
	r.Close()
}

// PC16550D §8.6.7, loopback: outputs feed the modem inputs, data comes back.
func TestLoopback(t *testing.T) {
	r := newRig(t, nil)
	r.put(regMCR, mcrLoop|mcrOut2|mcrRTS)
	r.want("MSR", r.get(regMSR)&0xf0, 0x90) // what Linux's autoconfig expects
	r.put(regMCR, mcrLoop|mcrDTR|mcrOut1)
	r.want("MSR", r.get(regMSR)&0xf0, 0x60)
	r.put(regMCR, mcrLoop) // RI falls: TERI
	r.want("MSR deltas", r.get(regMSR), 0x06)
	r.want("MSR deltas cleared", r.get(regMSR), 0)
	r.feed("h") // held at the host
	r.put(regData, 'l')
	r.want("looped", r.get(regData), 'l')
	r.want("LSR", r.get(regLSR), 0x60)
	r.put(regMCR, 0)
	r.want("host byte after loopback", r.get(regData), 'h')
}

func TestOverrunInLoopbackRaisesLineStatus(t *testing.T) {
	r := newRig(t, nil)
	r.put(regIER, ierLine)
	r.put(regMCR, mcrLoop)
	r.put(regData, 'a')
	r.put(regData, 'b')
	r.want("IIR", r.get(regIIR), iirLine)
	r.want("LSR", r.get(regLSR), 0x63)
	r.want("IIR after LSR", r.get(regIIR), iirNone)
	r.want("RBR keeps the newest", r.get(regData), 'b')
}

func TestModemInterrupt(t *testing.T) {
	r := newRig(t, nil)
	r.put(regIER, ierModem)
	r.put(regMCR, mcrLoop) // DCD, DSR, CTS fall
	r.want("IIR", r.get(regIIR), iirModem)
	r.want("MSR", r.get(regMSR), 0x0b)
	if r.line.high() {
		t.Error("line high after MSR was read")
	}
}

func TestStateRoundTripInMidOperation(t *testing.T) {
	a := newRig(t, nil)
	a.put(regIIR, 0xc1)
	a.put(regIER, ierReceive)
	a.put(regSCR, 7)
	a.feed("hello, the FIFO is sixteen")
	a.get(regData)
	s := a.Save()
	b := newRig(t, nil)
	if err := b.Load(s); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(b.Save(), s) {
		t.Errorf("got %+v, want %+v", b.Save(), s)
	}
	for a.get(regLSR)&lsrData != 0 {
		a.want("byte", b.get(regData), a.get(regData))
		a.want("IIR", b.get(regIIR), a.get(regIIR))
	}
	s = b.Save()
	s.TimeoutAt = 5
	s.Received = []byte{1}
	s.LSR |= lsrData
	if err := b.Load(s); err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(10)
	b.want("IIR", b.get(regIIR), 0xcc)
	for _, bad := range []State{{Version: 2}, {Version: 1, Received: make([]byte, 17)}, {Version: 1, Transmit: make([]byte, 17)}} {
		if b.Load(bad) == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

func TestSavedTransmitGoesOutAfterLoad(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	r := newRig(t, g)
	s := r.Save()
	s.FCR, s.Transmit, s.LSR = 1, []byte("tail"), 0
	if err := r.Load(s); err != nil {
		t.Fatal(err)
	}
	r.Drain()
	if string(g.got) != "tail" {
		t.Errorf("host got %q", g.got)
	}
	r.want("LSR", r.get(regLSR), 0x60)
}

// Found by FuzzUART: loading its own state doubled the input each time.
func TestLoadReplacesInput(t *testing.T) {
	r := newRig(t, nil)
	r.feed("abc")
	for range 2 {
		if err := r.Load(r.Save()); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []byte("abcc") {
		r.want("RBR", r.get(regData), want)
	}
}

func TestResetKeepsHostInput(t *testing.T) {
	r := newRig(t, nil)
	r.feed("ab")
	r.put(regIER, 0xff)
	r.Reset()
	if r.line.high() {
		t.Error("line high after reset")
	}
	r.want("RBR", r.get(regData), 'b')
}

func TestHostileAccessEveryOffsetAndWidth(t *testing.T) {
	r := newRig(t, nil)
	for _, width := range []int{1, 2, 4, 8} {
		for off := uint64(0); off+uint64(width) <= Size; off++ {
			for _, fill := range []byte{0, 0x55, 0xff} {
				p := bytes.Repeat([]byte{fill}, width)
				r.Write(off, p)
				r.Read(off, p)
			}
		}
	}
}

// FuzzUART: no sequence of accesses, input and time panics or blocks, and what
// the state holds stays bounded and loads again.
func FuzzUART(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := newRig(t, nil)
		for len(ops) >= 2 {
			op, v := ops[0], ops[1]
			ops = ops[2:]
			width := 1 << (op >> 3 & 3)
			off := uint64(op&7) % uint64(Size-width+1)
			switch op >> 5 {
			case 0, 1, 2:
				r.Write(off, bytes.Repeat([]byte{v}, width))
			case 3, 4:
				r.Read(off, make([]byte, width))
			case 5:
				r.feed(string(make([]byte, v&31)))
			case 6:
				r.clock.Advance(uint64(v) << (op & 31))
			case 7:
				s := r.Save()
				if err := r.Load(s); err != nil {
					t.Fatal(err)
				}
			}
			if len(r.s.Received) > fifoSize || len(r.s.Transmit) > fifoSize {
				t.Fatalf("FIFOs hold %d and %d", len(r.s.Received), len(r.s.Transmit))
			}
			if want := r.pending() != iirNone; r.line.high() != want {
				t.Fatalf("line %v, pending %v", r.line.high(), want)
			}
		}
	})
}
