package console

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/chardev"
	"berth/virtio"
	"berth/virtio/virtiotest"
)

const (
	allRings = virtio.FeatureEventIdx | virtio.FeatureIndirect
	outAt    = 0x10000 // what the driver sends
	inAt     = 0x80000 // where it receives
	bufSize  = 64
)

// rig is a driver with its device's queues set up.
type rig struct {
	*virtiotest.Driver
	dev *Device
	at  map[int]uint64 // where each receive queue's next answer lies
}

func newRig(t testing.TB, dev *Device, features uint64) *rig {
	t.Helper()
	r := &rig{Driver: virtiotest.New(t, dev, nil), dev: dev, at: map[int]uint64{}}
	t.Cleanup(func() { // runs before the driver's, which would wait for a host that never reads
		dev.Abandon()
		if err := dev.Close(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
	r.begin(features)
	return r
}

func (r *rig) begin(features uint64) {
	r.T.Helper()
	r.Rings = nil
	if !r.Negotiate(features | virtio.FeatureVersion1) {
		r.T.Fatal("FEATURES_OK did not stick")
	}
	r.EnableMSIX()
	r.Write(virtiotest.Common, 0x10, 2, 0)
	for i := range r.dev.info.Queues {
		r.AddQueue(i, 16)
	}
	r.SetStatus(15)
}

// send puts text into a queue of the driver's output.
func (r *rig) send(q int, text string) {
	r.T.Helper()
	r.Put(outAt, []byte(text))
	r.Rings[q].Send(virtiotest.Out(outAt, uint32(len(text))))
}

// offer gives a queue of the driver's input one buffer.
func (r *rig) offer(q int) {
	r.T.Helper()
	gpa := uint64(inAt + q*0x1000)
	r.at[q] = gpa
	r.Rings[q].Send(virtiotest.In(gpa, bufSize))
}

// take returns what came into the buffer.
func (r *rig) take(q int) string {
	r.T.Helper()
	_, n := r.Rings[q].Wait()
	return r.Get(r.at[q], int(n))
}

func (r *rig) control(id uint32, event, value uint16) {
	r.T.Helper()
	m := binary.LittleEndian.AppendUint32(nil, id)
	m = binary.LittleEndian.AppendUint16(m, event)
	r.send(controlOut, string(binary.LittleEndian.AppendUint16(m, value)))
	r.Rings[controlOut].Wait()
}

// told offers a control buffer and returns the message that comes.
func (r *rig) told() (id uint32, event, value uint16, rest string) {
	r.T.Helper()
	r.offer(controlIn)
	m := r.take(controlIn)
	if len(m) < controlSize {
		r.T.Fatalf("control message of %d bytes", len(m))
	}
	le := binary.LittleEndian
	return le.Uint32([]byte(m)), le.Uint16([]byte(m[4:])), le.Uint16([]byte(m[6:])), m[controlSize:]
}

func (r *rig) wantTold(id uint32, event, value uint16, rest string) {
	r.T.Helper()
	i, e, v, s := r.told()
	if i != id || e != event || v != value || s != rest {
		r.T.Errorf("told port %d event %d value %d %q, want %d %d %d %q", i, e, v, s, id, event, value, rest)
	}
}

// quiet checks that a queue's buffer is not used though there was time.
func (r *rig) quiet(q int) {
	r.T.Helper()
	before := r.Rings[q].UsedIdx()
	time.Sleep(20 * time.Millisecond)
	if r.Rings[q].UsedIdx() != before {
		r.T.Errorf("queue %d: a buffer was used", q)
	}
}

func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Errorf("the host read %q, %v; want %q", b, err, want)
	}
}

func TestConsoleBothWays(t *testing.T) {
	for _, features := range []uint64{0, featureSize | allRings} {
		host, dev := chardev.Pipe(1 << 10)
		r := newRig(t, NewConsole(dev, nil), features)
		if id := r.ReadConfig(0, 4); id != 0x1043_1af4 {
			t.Errorf("PCI ID 0x%x", id)
		}
		r.send(1, "hello, host\n")
		expect(t, host, "hello, host\n")
		if _, n := r.Rings[1].Wait(); n != 0 {
			t.Errorf("used length %d of a transmit buffer", n)
		}
		host.Write([]byte("early"))
		r.offer(0)
		if got := r.take(0); got != "early" {
			t.Errorf("received %q", got)
		}
		r.offer(0)
		r.quiet(0)
		host.Write([]byte("late"))
		if got := r.take(0); got != "late" {
			t.Errorf("received %q", got)
		}
	}
}

func Test_5_3_6_InputFillsBuffersInOrder(t *testing.T) {
	host, dev := chardev.Pipe(1 << 16)
	r := newRig(t, NewConsole(dev, nil), allRings)
	want := strings.Repeat("0123456789abcdef!", 1000)
	host.Write([]byte(want))
	var got strings.Builder
	for got.Len() < len(want) {
		r.offer(0)
		got.WriteString(r.take(0))
	}
	if got.String() != want {
		t.Error("input damaged")
	}
}

func Test_5_3_4_Configuration(t *testing.T) {
	_, dev := chardev.Pipe(1)
	d := NewConsole(dev, nil)
	d.Resize(80, 25)
	r := newRig(t, d, featureSize|featureEmergency)
	if got := r.DeviceConfig(0, 4); got != 25<<16|80 {
		t.Errorf("size 0x%x", got)
	}
	before := r.MSIs.Count(0x40)
	d.Resize(80, 25)
	if r.MSIs.Count(0x40) != before {
		t.Error("told of the same size")
	}
	d.Resize(132, 43)
	if got := r.DeviceConfig(0, 4); got != 43<<16|132 || r.MSIs.Count(0x40) != before+1 {
		t.Errorf("size 0x%x after %d notifications", got, r.MSIs.Count(0x40)-before)
	}
	if r.Offered()&featureMultiport != 0 {
		t.Error("a console has ports")
	}
}

// Linux 6.1 reads the size of a console only after a notification that it changed.
func TestADriverIsToldOfTheSizeThatThereIs(t *testing.T) {
	d := NewConsole(nil, nil)
	r := newRig(t, d, featureSize)
	if r.MSIs.Count(0x40) != 0 {
		t.Error("told of no size")
	}
	d.Resize(80, 25)
	for i, c := range []struct {
		features uint64
		told     int
	}{{featureSize, 1}, {0, 0}, {featureSize, 1}} {
		before := r.MSIs.Count(0x40)
		r.begin(c.features)
		if n := r.MSIs.Count(0x40) - before; n != c.told {
			t.Errorf("driver %d: told %d times, want %d", i, n, c.told)
		}
	}
}

// "The device MUST allow a write to emerg_wr, even on an unconfigured device."
func Test_5_3_5_1_EmergencyWrite(t *testing.T) {
	host, dev := chardev.Pipe(1 << 10)
	r := newRig(t, NewConsole(dev, nil), 0)
	r.SetStatus(0)
	for i, c := range "panic" {
		r.SetDeviceConfig(8, []int{1, 2, 4}[i%3], 0x100*uint64(i)+uint64(c))
	}
	expect(t, host, "panic")
	r.SetDeviceConfig(9, 1, 'x')
	r.SetDeviceConfig(0, 4, 'x')
	r.SetDeviceConfig(8, 1, '.')
	expect(t, host, ".")
}

// plug is a port whose other end comes and goes at the test's word.
type plug struct {
	chardev.Port
	mu   sync.Mutex
	tell func(bool)
}

func (p *plug) Connected() bool { return true }

func (p *plug) OnConnect(f func(bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell = f
}

func (p *plug) set(connected bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(connected)
}

// newPorts is a device with the ports org.a, a socket, and org.b, a file.
func newPorts(t testing.TB) (d *Device, a, b chardev.Port, wire *plug) {
	t.Helper()
	a, devA := chardev.Pipe(1 << 10)
	b, devB := chardev.Pipe(1 << 10)
	wire = &plug{Port: devA}
	d, err := NewPorts([]Named{{Name: "org.a", Host: wire}, {Name: "org.b", Host: devB}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d, a, b, wire
}

func Test_5_3_6_2_PortsComeUp(t *testing.T) {
	d, a, b, wire := newPorts(t)
	r := newRig(t, d, featureMultiport|allRings)
	if got := r.DeviceConfig(4, 4); got != 3 {
		t.Errorf("max_nr_ports %d", got)
	}
	r.offer(controlIn)
	r.quiet(controlIn) // not before the driver is ready
	r.control(0xffffffff, eventDeviceReady, 1)
	if got := r.take(controlIn); got != "\x01\x00\x00\x00\x01\x00\x00\x00" {
		t.Errorf("told %q", got)
	}
	r.wantTold(2, eventPortAdd, 0, "")
	r.control(0, eventDeviceReady, 1) // again: ports that exist are not added
	r.control(2, eventPortReady, 1)
	r.wantTold(2, eventPortName, 1, "org.b")
	r.wantTold(2, eventPortOpen, 1, "") // a file is always there
	r.control(1, eventPortReady, 1)
	r.wantTold(1, eventPortName, 1, "org.a")
	r.offer(controlIn)
	r.quiet(controlIn) // nobody is at the socket
	wire.set(true)
	if got := r.take(controlIn); got != "\x01\x00\x00\x00\x06\x00\x01\x00" {
		t.Errorf("told %q", got)
	}
	wire.set(false)
	wire.set(true) // at once: both are told
	r.wantTold(1, eventPortOpen, 0, "")
	r.wantTold(1, eventPortOpen, 1, "")

	// Input waits for a program that opens the port.
	a.Write([]byte("ping"))
	r.offer(4)
	r.quiet(4)
	r.control(1, eventPortOpen, 1)
	if got := r.take(4); got != "ping" {
		t.Errorf("received %q", got)
	}
	r.control(1, eventPortOpen, 0)
	a.Write([]byte("again"))
	r.offer(4)
	r.quiet(4)
	r.send(5, "pong")
	expect(t, a, "pong")
	r.send(7, "to b")
	expect(t, b, "to b")
}

func TestWhoOpensAPortIsTold(t *testing.T) {
	told := make(chan bool, 8)
	d, err := NewPorts([]Named{{Name: "a", Opened: func(open bool) { told <- open }}, {Name: "b"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, d, featureMultiport|allRings)
	r.control(0xffffffff, eventDeviceReady, 1)
	r.control(1, eventPortReady, 1)
	for _, open := range []uint16{1, 1, 0, 0, 1} {
		r.control(1, eventPortOpen, open)
		r.control(2, eventPortOpen, open)
	}
	for _, want := range []bool{true, false, true} {
		if got := <-told; got != want {
			t.Errorf("told %t, want %t", got, want)
		}
	}
	d.Reset()
	if got := <-told; got || len(told) > 0 {
		t.Errorf("after a reset told %t, and %d more", got, len(told))
	}
}

// After a suspend to disk Linux says that its ports are ready, and never that it is.
func TestPortsThatTheDriverKnowsAlready(t *testing.T) {
	d, _, _, _ := newPorts(t)
	r := newRig(t, d, featureMultiport)
	r.control(2, eventPortReady, 1)
	r.wantTold(2, eventPortName, 1, "org.b")
	r.control(0, eventDeviceReady, 1)
	r.wantTold(1, eventPortAdd, 0, "")
}

func TestADriverWithoutMultiport(t *testing.T) {
	d, _, _, _ := newPorts(t)
	r := newRig(t, d, 0)
	r.offer(controlIn)
	r.offer(0)
	r.send(1, "nobody")
	r.quiet(0)
	if r.Status() != 15 {
		t.Errorf("status 0x%x", r.Status())
	}
}

// stuck is a host that takes nothing until it is released.
type stuck struct {
	chardev.Port
	release chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	return s.Port.Write(p)
}

func TestAConsoleWhoseHostIsStuckGoesOn(t *testing.T) {
	host, dev := chardev.Pipe(1 << 20)
	s := &stuck{dev, make(chan struct{})}
	r := newRig(t, NewConsole(s, nil), allRings)
	text := strings.Repeat("x", 4096)
	start := time.Now()
	for range 100 {
		r.send(1, text)
		r.Rings[1].Wait()
	}
	if took := time.Since(start); took < patience || took > 20*patience {
		t.Errorf("100 writes to a host that does not read took %v", took)
	}
	close(s.release)
	expect(t, host, text)
	// It reads again: nothing more is lost.
	r.dev.Drain()
	got := make(chan string)
	go func() {
		var all bytes.Buffer
		for !strings.HasSuffix(all.String(), "the end") {
			b := make([]byte, 1<<16)
			n, err := host.Read(b)
			if err != nil {
				break
			}
			all.Write(b[:n])
		}
		got <- all.String()
	}()
	for range 50 {
		r.send(1, text)
		r.Rings[1].Wait()
	}
	r.send(1, "the end")
	if all := <-got; len(all) < 50*len(text)+7 {
		t.Errorf("%d bytes reached the host", len(all))
	}
}

func TestAPortWhoseHostIsSlowLosesNothing(t *testing.T) {
	d, a, _, _ := newPorts(t)
	r := newRig(t, d, featureMultiport|allRings)
	const each = 16 << 10
	for i := range 14 { // more than pipe and queue hold
		gpa := uint64(outAt + i*each)
		r.Put(gpa, bytes.Repeat([]byte{'a' + byte(i)}, each))
		r.Rings[5].Send(virtiotest.Out(gpa, each))
	}
	time.Sleep(2 * patience)
	if n := r.Rings[5].UsedIdx(); n >= 14 {
		t.Errorf("%d chains used before the host read", n)
	}
	for i := range 14 {
		expect(t, a, strings.Repeat(string('a'+rune(i)), each))
		r.Rings[5].Wait()
	}
}

func TestPauseAndResetWithAStuckHost(t *testing.T) {
	d, a, _, _ := newPorts(t)
	r := newRig(t, d, featureMultiport|allRings)
	big := strings.Repeat("y", 300<<10)
	r.send(5, big)
	for range 20 {
		r.Dev.Pause() // returns although the chain is not done
		r.Dev.Resume()
	}
	if r.Rings[5].UsedIdx() != 0 {
		t.Error("the chain is done")
	}
	expect(t, a, big)
	r.Rings[5].Wait()
	r.send(5, big)
	r.SetStatus(0)
	if r.Status() != 0 || r.Rings[5].UsedIdx() != 1 {
		t.Errorf("status 0x%x, %d chains used", r.Status(), r.Rings[5].UsedIdx())
	}
	r.begin(featureMultiport)
	r.control(0, eventDeviceReady, 1)
	r.wantTold(1, eventPortAdd, 0, "") // a new driver is told anew
}

func TestSaveAndLoadMidOperation(t *testing.T) {
	d, host, _, wire := newPorts(t)
	r := newRig(t, d, featureMultiport|allRings)
	wire.set(true)
	r.control(0, eventDeviceReady, 1)
	r.wantTold(1, eventPortAdd, 0, "")
	r.control(1, eventPortReady, 1)
	r.wantTold(1, eventPortName, 1, "org.a")
	r.wantTold(1, eventPortOpen, 1, "")
	r.control(1, eventPortOpen, 1)
	host.Write([]byte("unread"))
	r.Wait("the input", func() bool { return d.ports[1].in.Len() == 6 })
	big := strings.Repeat("0123456789abcdef", 200<<6)
	r.send(5, big)
	time.Sleep(10 * time.Millisecond) // the host's pipe and queue are full
	r.Dev.Pause()
	own, transport := d.Save(), r.Dev.Save()
	if s := own.Ports[0]; s.Sent == 0 || s.Sent >= int64(len(big)) || string(s.Input) != "unread" || !s.HostOpen {
		t.Errorf("saved %+v", s)
	}
	r.Dev.Reset() // as if in another process, but for what the host has already
	if err := d.Load(own); err != nil {
		t.Fatal(err)
	}
	if err := r.Dev.Load(transport); err != nil {
		t.Fatal(err)
	}
	r.Dev.Resume()
	expect(t, host, big)
	r.Rings[5].Wait()
	r.offer(4)
	if got := r.take(4); got != "unread" {
		t.Errorf("received %q", got)
	}
	r.wantTold(1, eventPortOpen, 0, "") // who was there has gone with the old process
	r.wantTold(1, eventPortOpen, 1, "")
	r.wantTold(2, eventPortAdd, 0, "")
	for name, s := range map[string]State{
		"version": {Version: 9}, "ports": {Version: StateVersion},
		"name": {Version: StateVersion, Ports: []PortState{{Name: "org.a"}, {Name: "org.c"}}},
		"sent": {Version: StateVersion, Ports: []PortState{{Name: "org.a", Sent: -1}, {Name: "org.b"}}},
	} {
		if err := d.Load(s); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}

func TestNames(t *testing.T) {
	for want, names := range map[string][]string{
		"0 ports": {}, `""`: {"a", ""}, `"a"`: {"a", "b", "a"},
		"1 to 128 bytes": {strings.Repeat("n", MaxName+1)},
		"31 ports":       strings.Split(strings.Repeat("n ", MaxPorts)+"n", " "),
	} {
		var named []Named
		for _, n := range names {
			_, dev := chardev.Pipe(1)
			named = append(named, Named{Name: n, Host: dev})
		}
		if _, err := NewPorts(named, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", names, err)
		}
		for _, n := range named {
			if _, err := n.Host.Write([]byte("x")); err == nil {
				t.Errorf("%v: a host's end stays open", names)
			}
		}
	}
}

func TestHostileChains(t *testing.T) {
	d, _, _, _ := newPorts(t)
	r := newRig(t, d, featureMultiport|allRings)
	r.control(0, eventDeviceReady, 1)
	readable := virtiotest.Out(outAt, 16)
	writable := virtiotest.In(inAt, 16)
	for q := controlIn; q < 8; q++ {
		for _, ds := range [][]virtiotest.Desc{{readable}, {readable, writable}} {
			if q%2 == 0 && q != controlIn {
				continue // a receive queue without input keeps its chains
			}
			r.Rings[q].Send(ds...)
			if _, n := r.Rings[q].Wait(); n > 16 {
				t.Errorf("queue %d: length %d", q, n)
			}
		}
	}
	for _, m := range []string{"", "short", "\xff\xff\xff\xff\x03\x00\x01\x00", "\x00\x00\x00\x00\x03\x00\x01\x00",
		"\x03\x00\x00\x00\x06\x00\x01\x00", "\x01\x00\x00\x00\xff\xff\x01\x00", "\x01\x00\x00\x00\x01\x00\x01\x00longer than it should be"} {
		r.send(controlOut, m)
		r.Rings[controlOut].Wait()
	}
	if r.Status() != 15 {
		t.Errorf("status 0x%x", r.Status())
	}
	r.Rings[5].Send(virtiotest.Out(virtiotest.RAM-4, 8))
	r.Wait("DEVICE_NEEDS_RESET", func() bool { return r.Status()&virtio.StatusNeedsReset != 0 })
}
