package gdb

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/accel/soft"
	"berth/machine"
	"berth/spec"
)

// Places in the test guest: 32-bit code without paging, which vCPU 0 runs.
const (
	loop    = 0x100000 // inc %eax
	store   = 0x100001 // mov %eax, 0x200000
	load    = 0x100006 // mov 0x200000, %ebx
	turn    = 0x10000c // jmp loop
	counter = 0x200000
)

// program is the code at loop.
var program = []byte{0x40, 0xa3, 0, 0, 0x20, 0, 0x8b, 0x1d, 0, 0, 0x20, 0, 0xeb, 0xf2}

// image is an ELF file with a PVH note that enters program.
func image() []byte {
	const noteOff, codeOff = 52 + 2*32, 52 + 2*32 + 20
	var b []byte
	put := func(v ...uint32) {
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, x)
		}
	}
	b = append(b, "\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x03\x00"...)
	put(1, loop, 52, 0, 0, 52|32<<16, 2, 0)
	put(1, codeOff, loop, loop, uint32(len(program)), uint32(len(program)), 7, 1)
	put(4, noteOff, 0, 0, 20, 20, 4, 4)
	put(4, 4, 18)
	b = append(b, "Xen\x00"...)
	put(loop)
	return append(b, program...)
}

// console is one with nobody at it.
type console struct{ closed chan struct{} }

func (c console) Read([]byte) (int, error)    { <-c.closed; return 0, io.EOF }
func (c console) Write(p []byte) (int, error) { return len(p), nil }
func (c console) Close() error                { close(c.closed); return nil }

// newVM runs the test guest with two vCPUs, the second of which waits for its start,
// once somebody lets it, until the test's end.
func newVM(t testing.TB) (*Stub, *machine.Machine) {
	t.Helper()
	stub, end, err := makeVM(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return stub, stub.vm
}

// makeVM is newVM, with the kernel in a folder, until end is called.
func makeVM(dir string) (stub *Stub, end func() error, err error) {
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, image(), 0o600); err != nil {
		return nil, nil, err
	}
	m := spec.Default()
	m.CPUs.Count, m.Boot.Kernel, m.Memory.Size, m.Paused = 2, kernel, 16<<20, true
	if err := m.Complete(); err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.DiscardHandler)
	stub = New(func() func(string) string { return func(line string) string { return "said: " + line + "\n" } })
	vm, err := machine.New(machine.Config{Spec: m, Accelerator: soft.New(log), Console: console{make(chan struct{})}, Log: log, Notify: stub.Notice})
	if err != nil {
		return nil, nil, err
	}
	stub.Attach(vm)
	ended := make(chan error, 1)
	go func() {
		_, err := vm.Run()
		ended <- err
	}()
	return stub, func() error {
		vm.Stop()
		err := <-ended
		stub.Close()
		return errors.Join(err, vm.Close())
	}, nil
}

// client is a debugger that acknowledges nothing.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func connect(t *testing.T, s *Stub) *client {
	t.Helper()
	here, there := net.Pipe()
	go s.Serve(there)
	if err := here.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = here.Close() })
	c := &client{t, here, bufio.NewReader(here)}
	c.want("QStartNoAckMode", "+OK")
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write(frame([]byte(text))); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads a packet, with the acknowledgement before it, if there is one.
func (c *client) answer() string {
	c.t.Helper()
	ack := ""
	b, err := c.r.ReadByte()
	if err == nil && (b == '+' || b == '-') {
		ack = string(b)
		b, err = c.r.ReadByte()
	}
	if err != nil || b != '$' {
		c.t.Fatalf("%q, %v", b, err)
	}
	m, err := readPacket(c.r)
	if err != nil || m.kind != packet {
		c.t.Fatalf("%+v, %v", m, err)
	}
	return ack + string(m.text)
}

func (c *client) ask(text string) string {
	c.t.Helper()
	c.send(text)
	return c.answer()
}

// want asks, and wants an answer.
func (c *client) want(text, answer string) {
	c.t.Helper()
	if got := c.ask(text); got != answer {
		c.t.Fatalf("%s: %q, want %q", text, got, answer)
	}
}

// register reads one by its name.
func (c *client) register(name string) uint64 {
	c.t.Helper()
	for i, r := range registers() {
		if r.name == name {
			p, err := hex.DecodeString(c.ask(fmt.Sprintf("p%x", i)))
			if err != nil || len(p) != r.size {
				c.t.Fatalf("register %s: % x, %v", name, p, err)
			}
			return binary.LittleEndian.Uint64(append(p, make([]byte, 8)...))
		}
	}
	c.t.Fatalf("no register %s", name)
	return 0
}

// at wants the stopped vCPU to be at an address.
func (c *client) at(rip uint64) {
	c.t.Helper()
	if got := c.register("rip"); got != rip {
		c.t.Fatalf("stopped at 0x%x, want 0x%x", got, rip)
	}
}

// value is the guest's counter in memory.
func (c *client) value() uint32 {
	c.t.Helper()
	p, err := hex.DecodeString(c.ask(fmt.Sprintf("m%x,4", counter)))
	if err != nil || len(p) != 4 {
		c.t.Fatalf("% x, %v", p, err)
	}
	return binary.LittleEndian.Uint32(p)
}

// status is what the VM does.
func status(t *testing.T, vm *machine.Machine) (s machine.Status) {
	t.Helper()
	if err := vm.Do(func() error { s = vm.Status(); return nil }); err != nil {
		t.Fatal(err)
	}
	return s
}

// digits are an address as packets have it.
func digits(v ...uint64) string {
	var s []string
	for _, x := range v {
		s = append(s, fmt.Sprintf("%x", x))
	}
	return strings.Join(s, ",")
}
