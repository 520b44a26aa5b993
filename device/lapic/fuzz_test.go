package lapic

import (
	"sync"
	"testing"

	"berth/clock"
	"berth/device/ioapic"
	"berth/device/pic"
	"berth/irq"
	"berth/x86"
)

// board is local APICs, an I/O APIC and the 8259s, wired as in a PC.
type board struct {
	*Set
	clock  *clock.Manual
	ioapic *ioapic.IOAPIC
	pic    *pic.PIC
}

func newBoard(t testing.TB, cpus []CPU) *board {
	b := &board{clock: clock.NewManual()}
	cfg := Config{Clock: b.clock}
	for i, c := range cpus {
		cfg.CPUs = append(cfg.CPUs, CPUConfig{ID: uint32(i), CPU: c, TSCTime: func(tsc uint64) uint64 { return tsc }})
	}
	cfg.EOI = func(v uint8) { b.ioapic.EOI(v) }
	cfg.INTA = func() uint8 { return b.pic.Acknowledge() }
	var err error
	if b.Set, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	b.ioapic = ioapic.New(ioapic.Version20, b.Deliver)
	b.pic = pic.New(irq.LineFunc(b.SetINTR))
	return b
}

// FuzzAPICs: no sequence of accesses, lines, messages and time panics or hangs,
// and Deliverable is always what it would be worked out to be.
func FuzzAPICs(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, ops []byte) {
		b := newBoard(t, []CPU{&cpu{}, &cpu{}, &cpu{}})
		for len(ops) >= 4 {
			b.step(t, ops[0], ops[1], ops[2], ops[3])
			ops = ops[4:]
			for i, l := range b.all {
				l.mu.Lock()
				if got, want := l.Deliverable(), l.pending(); got != want {
					t.Fatalf("APIC %d: deliverable %v, want %v", i, got, want)
				}
				l.mu.Unlock()
			}
		}
	})
}

func (b *board) step(t *testing.T, op, x, y, z byte) {
	l := b.APIC(int(op>>6) % len(b.all))
	value := uint64(y) | uint64(z)<<8
	wide := value | uint64(z)<<16 | uint64(y)<<32 | uint64(x)<<56
	le := []byte{y, z, y ^ z, x, z, y, x, y}
	width := 1 << (y & 3)
	switch op & 15 {
	case 0, 1:
		l.Write(uint64(x)<<4, le[:4])
	case 2:
		l.Write(uint64(x)<<4+uint64(z&15), le[:width])
	case 3:
		l.Read(uint64(x)<<4+uint64(z&15), make([]byte, width))
	case 4:
		l.WriteMSR(x86.MSRX2APIC+uint32(x), value)
		l.WriteMSR(x86.MSRX2APIC+uint32(x), wide)
	case 5:
		l.ReadMSR(x86.MSRX2APIC + uint32(x))
	case 6:
		l.WriteMSR(x86.MSRAPICBase, DefaultBase|value&0xfff)
	case 7:
		l.WriteMSR(x86.MSRTSCDeadline, wide>>(x&63))
	case 8:
		l.Acknowledge()
	case 9:
		b.ioapic.Write(0, []byte{x})
		b.ioapic.Write(uint64(z&0x50), le[:width])
		b.ioapic.Write(0x10, le[:4])
	case 10:
		b.ioapic.Read(uint64(x), make([]byte, width))
		b.ioapic.Set(uint32(y), z&1 != 0)
	case 11:
		b.pic.Set(uint32(x), y&1 != 0)
		b.pic.Master().Write(uint64(y>>1&1), []byte{z})
	case 12:
		b.Deliver(irq.MSI{Addr: DefaultBase | uint64(x)<<12 | uint64(y)&0xc, Data: uint32(value)})
	case 13:
		b.clock.Advance(value << (x & 15))
	case 14:
		l.SetTPR(x)
		l.TPR()
		l.TSCChanged()
	case 15:
		if err := b.Load(b.Save()); err != nil {
			t.Fatal(err)
		}
		if err := b.ioapic.Load(b.ioapic.Save()); err != nil {
			t.Fatal(err)
		}
		b.NMI()
	}
}

// worker is a vCPU that waits for kicks.
type worker struct {
	kicked chan struct{}
	cpu
}

func (w *worker) Kick() {
	select {
	case w.kicked <- struct{}{}:
	default:
	}
}

// TestConcurrentVCPUs: vCPUs that interrupt each other while a level line goes
// up and down neither deadlock nor lose a wake-up.
func TestConcurrentVCPUs(t *testing.T) {
	const vcpus, rounds = 4, 3000
	workers := make([]*worker, vcpus)
	cpus := make([]CPU, vcpus)
	for i := range workers {
		workers[i] = &worker{kicked: make(chan struct{}, 1)}
		cpus[i] = workers[i]
	}
	b := newBoard(t, cpus)
	for i := range vcpus {
		b.APIC(i).Write(regSVR<<4, []byte{0xff, 1, 0, 0})
		b.APIC(i).Write(regLDR<<4, []byte{0, 0, 0, 1 << i})
	}
	const level, token = 0x51, 0x61
	b.ioapic.Write(0, []byte{0x10 + 2*9 + 1})
	b.ioapic.Write(0x10, []byte{0, 0, 0, 0x0f})
	b.ioapic.Write(0, []byte{0x10 + 2*9})
	b.ioapic.Write(0x10, []byte{level, 0x89, 0, 0}) // level, logical, lowest priority

	var wg sync.WaitGroup
	served, stop := make(chan struct{}), make(chan struct{})
	for i, w := range workers {
		wg.Go(func() {
			l := b.APIC(i)
			for left := rounds; ; {
				v, ok := l.Acknowledge()
				switch {
				case ok && v == level:
					b.ioapic.Set(9, false)
					l.Write(regEOI<<4, make([]byte, 4))
					served <- struct{}{}
				case ok: // pass the token on
					l.Write(regEOI<<4, make([]byte, 4))
					if left--; left >= 0 {
						l.Write(regICRHigh<<4, []byte{0, 0, 0, byte(i+1) % vcpus})
						l.Write(regICR<<4, []byte{token, 0, 0, 0})
					}
				default:
					select {
					case <-w.kicked:
					case <-stop:
						return
					}
				}
			}
		})
	}
	b.Deliver(fixed(0, token))
	for range rounds {
		b.ioapic.Set(9, true)
		<-served
	}
	close(stop)
	wg.Wait()
	if v := b.ioapic.Save().Redirect[9]; v&(1<<14) != 0 {
		t.Errorf("remote IRR still set: %#x", v)
	}
}
