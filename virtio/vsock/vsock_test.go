package vsock

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

const cid = 77

// Where the driver of the tests has its buffers.
const (
	sendAt, receiveAt = 0x1000, 0x100000
	buffers, bufSize  = 16, 0x2000
)

// rig is a device behind Unix sockets, and its driver.
type rig struct {
	*virtiotest.Driver
	dev        *Device
	path       string
	rx, tx, ev *virtiotest.Ring
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{path: filepath.Join(t.TempDir(), "v")}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.path})
	if err != nil {
		t.Fatal(err)
	}
	u := NewUnix(r.path, l)
	r.open(t, u)
	go u.Serve(r.dev)
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) open(t testing.TB, host Host) {
	t.Helper()
	var err error
	if r.dev, err = New(cid, host); err != nil {
		t.Fatal(err)
	}
	r.Driver = virtiotest.New(t, r.dev, nil)
	r.begin()
}

func (r *rig) begin() {
	r.T.Helper()
	if !r.Negotiate(virtio.FeatureVersion1 | featureStream) {
		r.T.Fatal("FEATURES_OK did not stick")
	}
	r.EnableMSIX()
	r.rx, r.tx, r.ev = r.AddQueue(0, buffers), r.AddQueue(1, 64), r.AddQueue(2, 16)
	r.SetStatus(15)
	for i := range uint64(buffers) {
		r.rx.Offer(r.rx.Chain(virtiotest.In(receiveAt+i*bufSize, bufSize)))
	}
	r.rx.Kick()
}

// send gives the device a packet; what h does not say is good.
func (r *rig) send(h header, payload string) {
	r.T.Helper()
	if h.kind == 0 {
		h.kind = typeStream
	}
	if h.srcCID == 0 {
		h.srcCID = cid
	}
	if h.dstCID == 0 {
		h.dstCID = HostCID
	}
	if h.bufAlloc == 0 {
		h.bufAlloc = 1 << 20
	}
	h.len = uint32(len(payload))
	r.Put(sendAt, h.append(nil))
	r.Put(sendAt+0x1000, []byte(payload))
	r.tx.Send(virtiotest.Out(sendAt, headerSize), virtiotest.Out(sendAt+0x1000, h.len))
	r.tx.Wait()
}

// receive returns the next packet of the device, of which only what all have is checked.
func (r *rig) receive() (header, string) {
	r.T.Helper()
	id, n := r.rx.Wait()
	b := []byte(r.Get(receiveAt+uint64(id)*bufSize, int(n)))
	if n < headerSize {
		r.T.Fatalf("a packet of %d bytes", n)
	}
	h := parseHeader((*[headerSize]byte)(b))
	if h.srcCID != HostCID || h.dstCID != cid || int(h.len) != len(b)-headerSize {
		r.T.Errorf("header %+v of a packet of %d bytes", h, n)
	}
	r.rx.Offer(uint16(id))
	r.rx.Kick()
	return h, string(b[headerSize:])
}

func (r *rig) expect(op uint16) (header, string) {
	r.T.Helper()
	h, payload := r.receive()
	if h.op != op {
		r.T.Fatalf("operation %d (%+v, %q), want %d", h.op, h, payload, op)
	}
	return h, payload
}

// listen takes one connection to a port of the host's.
func (r *rig) listen(port uint32) *net.UnixListener {
	r.T.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("%s_%d", r.path, port)})
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { _ = l.Close() })
	return l
}

// dial connects the guest's port to the host's and returns the host's end.
func (r *rig) dial(guest, host uint32) *net.UnixConn {
	r.T.Helper()
	l := r.listen(host)
	r.send(header{srcPort: guest, dstPort: host, op: opRequest}, "")
	h, _ := r.expect(opResponse)
	if h.srcPort != host || h.dstPort != guest || h.bufAlloc == 0 || h.kind != typeStream {
		r.T.Errorf("response %+v", h)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		r.T.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r.T.Cleanup(func() { _ = c.Close() })
	return c
}

func read(t testing.TB, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("%q, %v, want %q", b, err, want)
	}
}

func (r *rig) gone(n int) {
	r.T.Helper()
	r.Wait("connections to end", func() bool { return r.dev.Connections() == n })
}

func Test_5_10_3_2_Features(t *testing.T) {
	r := newRig(t)
	if f := r.Offered(); f&0xff != featureStream {
		t.Errorf("features 0x%x", f)
	}
	if id := r.ReadConfig(0, 4); id != 0x1053_1af4 {
		t.Errorf("PCI ID 0x%x", id)
	}
	// No feature of its own accepted is as STREAM.
	if !r.Negotiate(virtio.FeatureVersion1) {
		t.Error("no features are refused")
	}
}

func Test_5_10_6_4_2_ReservedContextIDs(t *testing.T) {
	for _, bad := range []uint32{0, 1, 2, 0xffffffff} {
		if _, err := New(bad, nil); err == nil {
			t.Errorf("%d is a guest's context ID", bad)
		}
	}
	if v := newRig(t).DeviceConfig(0, 8); v != cid {
		t.Errorf("guest_cid %d", v)
	}
}

func Test_5_10_6_5_GuestConnects(t *testing.T) {
	r := newRig(t)
	c := r.dial(1000, 52)
	r.send(header{srcPort: 1000, dstPort: 52, op: opData}, "to the host")
	read(t, c, "to the host")
	if _, err := c.Write([]byte("to the guest")); err != nil {
		t.Fatal(err)
	}
	if h, p := r.expect(opData); p != "to the guest" || h.forwarded != 11 {
		t.Errorf("%q, %+v", p, h)
	}
	// Both ends go on after one half is shut down.
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if h, _ := r.expect(opShutdown); h.flags != shutSend {
		t.Errorf("flags %d", h.flags)
	}
	r.send(header{srcPort: 1000, dstPort: 52, op: opData}, "still")
	read(t, c, "still")
	r.send(header{srcPort: 1000, dstPort: 52, op: opData}, "last words")
	r.send(header{srcPort: 1000, dstPort: 52, op: opShutdown, flags: shutSend | shutReceive}, "")
	read(t, c, "last words")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	r.expect(opReset)
	r.gone(0)
}

func Test_5_10_6_5_GuestShutsOneHalf(t *testing.T) {
	r := newRig(t)
	c := r.dial(1000, 52)
	r.send(header{srcPort: 1000, dstPort: 52, op: opShutdown, flags: shutSend}, "")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the half is open: %v", err)
	}
	if _, err := c.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	if _, p := r.expect(opData); p != "more" {
		t.Errorf("%q", p)
	}
	r.send(header{srcPort: 1000, dstPort: 52, op: opShutdown, flags: shutReceive}, "") // bits stay
	r.expect(opReset)
	r.gone(0)
}

func Test_5_10_6_5_NobodyListens(t *testing.T) {
	r := newRig(t)
	r.send(header{srcPort: 1000, dstPort: 53, op: opRequest}, "")
	if h, _ := r.expect(opReset); h.srcPort != 53 || h.dstPort != 1000 {
		t.Errorf("%+v", h)
	}
	r.gone(0)
}

func Test_5_10_6_4_2_UnknownTypesAreReset(t *testing.T) {
	r := newRig(t)
	r.listen(52)
	r.send(header{srcPort: 1000, dstPort: 52, op: opRequest, kind: 2}, "")
	if h, _ := r.expect(opReset); h.kind != 2 || h.srcPort != 52 || h.dstPort != 1000 {
		t.Errorf("%+v", h)
	}
	// What belongs to no connection is reset too, but for a reset; and what is not
	// from the guest to the host is dropped.
	r.send(header{srcPort: 1000, dstPort: 52, op: opReset}, "")
	r.send(header{srcPort: 1000, dstPort: 52, op: opRequest, srcCID: 3}, "")
	r.send(header{srcPort: 1000, dstPort: 52, op: opRequest, dstCID: 3}, "")
	r.send(header{srcPort: 1000, dstPort: 54, op: opData}, "x")
	if h, _ := r.expect(opReset); h.srcPort != 54 {
		t.Errorf("%+v", h)
	}
}

func Test_5_10_6_3_2_CreditIsKept(t *testing.T) {
	r := newRig(t)
	c := r.dial(1000, 52)
	r.send(header{srcPort: 1000, dstPort: 52, op: opCreditUpdate, bufAlloc: 10}, "")
	if _, err := c.Write(bytes.Repeat([]byte("x"), 25)); err != nil {
		t.Fatal(err)
	}
	if _, p := r.expect(opData); len(p) != 10 {
		t.Fatalf("%d bytes for a guest with room for 10", len(p))
	}
	time.Sleep(10 * time.Millisecond)
	if r.rx.UsedIdx() != 2 {
		t.Error("more was sent than the guest has room for")
	}
	r.send(header{srcPort: 1000, dstPort: 52, op: opCreditUpdate, bufAlloc: 10, forwarded: 10}, "")
	if _, p := r.expect(opData); len(p) != 10 {
		t.Errorf("%d bytes", len(p))
	}
	// Every packet says what room the host has; asked, it says so alone.
	r.send(header{srcPort: 1000, dstPort: 52, op: opData, bufAlloc: 10, forwarded: 10}, "12345")
	read(t, c, "12345")
	time.Sleep(5 * time.Millisecond)
	r.send(header{srcPort: 1000, dstPort: 52, op: opCreditRequest, bufAlloc: 10, forwarded: 10}, "")
	if h, _ := r.expect(opCreditUpdate); h.bufAlloc != bufferToHost || h.forwarded != 5 {
		t.Errorf("%+v", h)
	}
}

// A guest that sends more than it was told has its connection reset.
func TestGuestIgnoresCredit(t *testing.T) {
	r := newRig(t)
	c := r.dial(1000, 52)
	// Nobody reads: the socket's buffer and ours fill up.
	chunk := strings.Repeat("y", 4096)
	for range 1024 {
		r.send(header{srcPort: 1000, dstPort: 52, op: opData}, chunk)
		if r.rx.UsedIdx() > 1 && r.dev.Connections() == 0 {
			break
		}
	}
	for {
		h, _ := r.receive()
		if h.op == opReset {
			break
		}
	}
	r.gone(0)
	if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Log(err)
	}
}

func TestHostConnects(t *testing.T) {
	r := newRig(t)
	c, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "CONNECT 1234\nearly"); err != nil {
		t.Fatal(err)
	}
	h, _ := r.expect(opRequest)
	if h.dstPort != 1234 || h.srcPort < firstPort {
		t.Errorf("%+v", h)
	}
	r.send(header{srcPort: 1234, dstPort: h.srcPort, op: opResponse}, "")
	r.send(header{srcPort: 1234, dstPort: h.srcPort, op: opData}, "hello")
	read(t, c, fmt.Sprintf("OK %d\nhello", h.srcPort))
	if _, p := r.expect(opData); p != "early" {
		t.Errorf("%q", p)
	}
	r.send(header{srcPort: 1234, dstPort: h.srcPort, op: opReset}, "")
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is there after a reset")
	}
	r.gone(0)
}

func TestHostIsRefused(t *testing.T) {
	r := newRig(t)
	for _, greeting := range []string{"HELLO\n", "CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n", strings.Repeat("x", 100)} {
		c, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, greeting)
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%q is answered %q", greeting, b)
		}
		_ = c.Close()
	}
	c, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "CONNECT 9\n")
	h, _ := r.expect(opRequest)
	r.send(header{srcPort: 9, dstPort: h.srcPort, op: opReset}, "")
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("a refused connection says %q", b)
	}
	r.SetStatus(0) // no driver: nobody is there
	d, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, _ = io.WriteString(d, "CONNECT 9\n")
	_ = d.SetDeadline(time.Now().Add(20 * time.Second))
	if b, _ := io.ReadAll(d); len(b) > 0 {
		t.Errorf("without a driver: %q", b)
	}
}

// Bytes arrive as they were sent, whatever the sizes of packets and buffers.
func TestManyBytesBothWays(t *testing.T) {
	r := newRig(t)
	c := r.dial(1000, 52)
	want := make([]byte, 1<<20)
	_, _ = rand.Read(want)
	go func() {
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	}()
	sum := sha256.New()
	n := uint32(0)
	for {
		h, p := r.receive()
		if h.op == opShutdown {
			break
		}
		sum.Write([]byte(p))
		n += uint32(len(p))
		if h.op == opData {
			r.send(header{srcPort: 1000, dstPort: 52, op: opCreditUpdate, bufAlloc: 50000, forwarded: n}, "")
		}
	}
	if !bytes.Equal(sum.Sum(nil), hash(want)) {
		t.Error("the guest has got other bytes")
	}
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(c)
		got <- hash(b)
	}()
	room := uint32(bufferToHost)
	for sent := uint32(0); sent < uint32(len(want)); {
		k := min(4096, uint32(len(want))-sent, room)
		if k == 0 {
			h, _ := r.receive()
			room = h.bufAlloc - (sent - h.forwarded)
			continue
		}
		r.send(header{srcPort: 1000, dstPort: 52, op: opData, forwarded: n}, string(want[sent:sent+k]))
		sent, room = sent+k, room-k
	}
	r.send(header{srcPort: 1000, dstPort: 52, op: opShutdown, flags: shutSend | shutReceive}, "")
	if !bytes.Equal(<-got, hash(want)) {
		t.Error("the host has got other bytes")
	}
}

func hash(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func TestConnectionsAreBounded(t *testing.T) {
	r := newRig(t)
	l := r.listen(52)
	go func() {
		var kept []net.Conn // or they are collected, and closed
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			kept = append(kept, c)
		}
		for _, c := range kept {
			_ = c.Close()
		}
	}()
	taken := 0
	for i := range uint32(maxConnections + 10) {
		r.send(header{srcPort: 5000 + i, dstPort: 52, op: opRequest}, "")
		if h, _ := r.receive(); h.op == opResponse {
			taken++
		}
	}
	if taken != maxConnections || r.dev.Connections() != maxConnections {
		t.Errorf("%d connections were taken, %d are there", taken, r.dev.Connections())
	}
	r.SetStatus(0)
	r.gone(0)
}

// The transmit queue is served while the driver takes no packets, as long as what
// has to be kept is bounded (§5.10.6.1.2).
func Test_5_10_6_1_2_TransmitGoesOn(t *testing.T) {
	r := newRig(t)
	r.Negotiate(virtio.FeatureVersion1)
	r.EnableMSIX()
	r.rx, r.tx = r.AddQueue(0, buffers), r.AddQueue(1, 64)
	r.SetStatus(15)
	for range maxAnswers { // nobody takes the resets
		r.send(header{srcPort: 1, dstPort: 2, op: opData}, "")
	}
	h := r.tx.Send(virtiotest.Out(sendAt, headerSize))
	time.Sleep(20 * time.Millisecond)
	if n := r.tx.UsedIdx(); n != maxAnswers {
		t.Errorf("%d packets were taken, and %d answers wait", n, maxAnswers)
	}
	r.Dev.Pause() // does not wait for the driver
	r.Dev.Resume()
	for i := range uint64(buffers) {
		r.rx.Offer(r.rx.Chain(virtiotest.In(receiveAt+i*bufSize, bufSize)))
	}
	r.rx.Kick()
	if id, _ := r.tx.Wait(); id != uint32(h) {
		t.Errorf("chain %d", id)
	}
}

func Test_5_10_6_7_TransportReset(t *testing.T) {
	r := newRig(t)
	r.Dev.Pause()
	own, s := r.dev.Save(), r.Dev.Save()
	r.Dev.Reset()
	if err := errors.Join(r.dev.Load(own), r.Dev.Load(s)); err != nil {
		t.Fatal(err)
	}
	r.Dev.Resume()
	r.ev.Send(virtiotest.In(0x8000, 8))
	if _, n := r.ev.Wait(); n != 4 || r.Get(0x8000, 4) != "\x00\x00\x00\x00" {
		t.Errorf("an event of %d bytes", n)
	}
	if err := r.dev.Load(State{Version: 9}); err == nil {
		t.Error("an unknown version was loaded")
	}
	if err := r.dev.Load(State{StateVersion, 5}); err == nil {
		t.Error("another guest's state was loaded")
	}
}

// slowHost answers no call before it is told to.
type slowHost chan struct{}

func (s slowHost) Dial(uint32) (Conn, error) {
	<-s
	return nil, errors.New("nobody")
}

// A guest that receives nothing does not make the list of turns grow by connections that
// it has reset.
func TestAConnectionThatIsGoneHasNoTurn(t *testing.T) {
	host, r := make(slowHost), &rig{}
	defer close(host)
	r.open(t, host)
	for range 2 * buffers { // answers, until there is no buffer left
		r.send(header{srcPort: 1, dstPort: 1, op: opData}, "")
	}
	for range maxDialing / 2 {
		r.send(header{srcPort: 1000, dstPort: 52, op: opRequest}, "")
		r.send(header{srcPort: 1000, dstPort: 52, op: opCreditRequest}, "")
		r.send(header{srcPort: 1000, dstPort: 52, op: opReset}, "")
	}
	r.dev.mu.Lock()
	defer r.dev.mu.Unlock()
	if n := len(r.dev.ready); n != 0 || len(r.dev.conns) != 0 {
		t.Errorf("%d turns, %d connections", n, len(r.dev.conns))
	}
}
