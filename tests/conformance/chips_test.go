package conformance

import (
	"bufio"
	"fmt"
	"io"
	"math/rand"
	"os/exec"
	"strings"
	"testing"
	"time"

	"berth/bus"
	"berth/clock"
	"berth/device/pic"
	"berth/device/pit"
	"berth/device/pm"
	"berth/device/rtc"
	"berth/device/uart"
	"berth/irq"
	"berth/tests/process"
)

// peer is a stopped QEMU whose ports are reached by its qtest protocol. Its time
// stands still, so nothing that takes time is compared.
type peer struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func newPeer(t *testing.T) *peer {
	cmd := exec.Command("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-S", "-display", "none", "-nodefaults",
		"-qtest", "stdio", "-qtest-log", "/dev/null", "-serial", "null", "-rtc", "base=2024-02-28T23:59:57,clock=vm")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Tie(cmd).Start(); err != nil {
		t.Fatalf("the peer is Debian's qemu-system-x86: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &peer{t: t, in: in, out: bufio.NewReader(out)}
}

func (p *peer) command(format string, a ...any) (reply string) {
	fmt.Fprintf(p.in, format+"\n", a...)
	l, err := p.out.ReadString('\n')
	reply, ok := strings.CutPrefix(l, "OK")
	if err != nil || !ok {
		p.t.Fatalf("peer answers %q to %q: %v", l, fmt.Sprintf(format, a...), err)
	}
	return strings.TrimSpace(reply)
}

// twins is the chips of both machines on the same ports.
type twins struct {
	*peer
	ports *bus.Space
	log   []string
}

func newTwins(t *testing.T) *twins {
	w := &twins{peer: newPeer(t), ports: bus.New(1 << 16)}
	c := clock.NewManual()
	ic := pic.New(irq.LineFunc(func(bool) {}))
	line := func(n uint32) irq.Line { return irq.LineFunc(func(l bool) { ic.Set(n, l) }) }
	timer := pit.New(line(0), c)
	for _, m := range []bus.Window{
		{Base: pic.MasterBase, Size: pic.Size, Handler: ic.Master()},
		{Base: pic.SlaveBase, Size: pic.Size, Handler: ic.Slave()},
		{Base: pic.ELCRBase, Size: pic.Size, Handler: ic.ELCR()},
		{Base: pit.Base, Size: pit.Size, Handler: timer.Counters()},
		{Base: pit.SpeakerBase, Size: pit.SpeakerSize, Handler: timer.Speaker()},
		{Base: 0x3f8, Size: uart.Size, Handler: uart.New(uart.Config{IRQ: line(4), Clock: c})},
		{Base: rtc.Base, Size: rtc.Size, Handler: rtc.New(rtc.Config{
			IRQ: line(8), Clock: c, Start: time.Date(2024, 2, 28, 23, 59, 57, 0, time.UTC)})},
		{Base: pm.Base, Size: pm.Size, Handler: pm.New(pm.Config{SCI: line(9), Clock: c})},
	} {
		if _, err := w.ports.Map(m.Base, m.Size, "", m.Handler); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []string{"outl 0xcf8 0x8000f840", "outl 0xcfc 0x601", "outl 0xcf8 0x8000f844", "outb 0xcfc 0x80"} {
		w.command("%s", s) // the LPC bridge's PMBASE
	}
	for _, v := range [][2]int{{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x20}, {0xa1, 0x28}, {0x21, 4}, {0xa1, 2}, {0x21, 1}, {0xa1, 1}, {0x21, 0xff}, {0xa1, 0xff}} {
		w.write(v[0], byte(v[1]))
	}
	return w
}

func (w *twins) write(port int, v byte) {
	w.log = append(w.log, fmt.Sprintf("%#x <- %#02x", port, v))
	w.command("outb 0x%x 0x%x", port, v)
	w.ports.Write(uint64(port), []byte{v})
}

// read compares the bits of mask.
func (w *twins) read(port int, mask byte) {
	w.t.Helper()
	var theirs byte
	if _, err := fmt.Sscanf(w.command("inb 0x%x", port), "0x%x", &theirs); err != nil {
		w.t.Fatal(err)
	}
	var ours [1]byte
	w.ports.Read(uint64(port), ours[:])
	w.log = append(w.log, fmt.Sprintf("%#x is %#02x, the peer's %#02x", port, ours[0], theirs))
	if (theirs^ours[0])&mask != 0 {
		w.t.Fatalf("machines differ:\n%s", strings.Join(w.log[max(0, len(w.log)-25):], "\n"))
	}
}

// accesses runs step on twins, a few random sequences long.
func accesses(t *testing.T, step func(w *twins, r *rand.Rand)) {
	for seed := range int64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w, r := newTwins(t), rand.New(rand.NewSource(seed))
			for range 300 {
				step(w, r)
			}
		})
	}
}

// Left out: MSR's delta bits, which QEMU does not set in loopback as the PC16550D does.
func TestUARTAsQEMU(t *testing.T) {
	accesses(t, func(w *twins, r *rand.Rand) {
		reg, v := r.Intn(8), byte(r.Intn(256))
		switch {
		case reg == 1:
			v &^= 1 << 3 // modem status interrupt
		case reg == 3 && r.Intn(4) != 0:
			v &^= 1 << 7 // DLAB
		case reg == 4 && r.Intn(2) == 0:
			v |= 1 << 4 // loopback
		}
		switch r.Intn(2) {
		case 0:
			w.write(0x3f8+reg, v)
		case 1:
			mask := byte(0xff)
			if reg == 6 {
				mask = 0xf0
			}
			w.read(0x3f8+reg, mask)
		}
		if r.Intn(4) == 0 { // the interrupt line
			w.write(0x20, 0x0a)
			w.read(0x20, 1<<4)
		}
	})
}

// Left out: ICW1 and ELCR while an input is high, where QEMU forgets the level.
func TestPICAsQEMU(t *testing.T) {
	accesses(t, func(w *twins, r *rand.Rand) {
		ports := []int{0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1}
		p := ports[r.Intn(len(ports))]
		switch r.Intn(5) {
		case 0:
			if p < 0x4d0 {
				v := byte(r.Intn(256))
				if p&1 == 0 {
					v &^= 0x10
				}
				w.write(p, v)
			}
		case 1:
			commands := []byte{0x20, 0x0a, 0x0b, 0x0c, 0x60, 0x61, 0x64, 0xa0, 0xc3, 0x68, 0x48}
			w.write([]int{0x20, 0xa0}[r.Intn(2)], commands[r.Intn(len(commands))])
		case 2, 3:
			w.read(p, 0xff)
		case 4: // the serial port's THRE interrupt
			w.write(0x3f9, byte(r.Intn(2)*2))
		}
	})
}

// Left out: the output's level, which QEMU has inverted in some modes, a control
// word while something is latched, which frees it only in the 8254, and a count
// for a counter that runs, which QEMU takes up at once.
func TestPITAsQEMU(t *testing.T) {
	accesses(t, func(w *twins, r *rand.Rand) {
		if len(w.log) < 12 {
			for _, v := range []byte{0x34, 0x74, 0xb4} {
				w.write(0x43, v)
			}
		}
		switch r.Intn(5) {
		case 0, 1, 2:
			n, access := r.Intn(3), r.Intn(3)+1
			w.write(0x43, byte(n<<6|access<<4|r.Intn(6)<<1))
			for range r.Intn(2 + access/3) { // at most one count
				w.write(0x40+n, byte(r.Intn(256)))
			}
		case 3:
			latches := []byte{0x00, 0x40, 0x80, 0xd2, 0xde, 0xd8}
			w.write(0x43, latches[r.Intn(len(latches))])
			for i := range 12 {
				w.read(0x40+i%3, 0xff)
			}
		case 4:
			w.write(0x61, byte(r.Intn(4)))
			w.read(0x61, 0x03)
		}
	})
}

// Left out: the weekday, which QEMU does not derive from the date.
func TestRTCAsQEMU(t *testing.T) {
	accesses(t, func(w *twins, r *rand.Rand) {
		i := r.Intn(13)
		w.write(0x70, byte(i))
		if r.Intn(3) != 0 {
			if i != 6 {
				w.read(0x71, 0xff)
			}
			return
		}
		switch v := byte(r.Intn(6)<<4 | r.Intn(10)); i {
		case 0, 2:
			w.write(0x71, v)
		case 1, 3, 5:
			w.write(0x71, 0xff)
		case 4:
			w.write(0x71, v&0x1f)
		case 7, 8, 9:
			w.write(0x71, v&0x07+1)
		case 10:
			w.write(0x71, 0x20|v&15)
		case 11:
			w.write(0x71, v&0x70|0x02)
		}
	})
}

// The general-purpose events. PM1's registers are left out: QEMU's take only
// whole words right.
func TestGPEAsQEMU(t *testing.T) {
	accesses(t, func(w *twins, r *rand.Rand) {
		off := pm.GPE0 + []int{0, 1, 8, 9}[r.Intn(4)]
		if r.Intn(2) == 0 {
			w.write(pm.Base+off, byte(r.Intn(256)))
			return
		}
		w.read(pm.Base+off, 0xff)
	})
}
