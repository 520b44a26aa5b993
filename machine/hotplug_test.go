package machine

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/accel/kvm"
	"berth/device/pcihp"
	"berth/pci"
	"berth/spec"
	"berth/virtio/rng"
)

// closer is what a device stands on.
type closer func()

func (c closer) Close() error { c(); return nil }

// slotted is a machine with slots that runs, and what it says.
func slotted(t *testing.T, n int) (*Machine, *script, *heard) {
	t.Helper()
	s := &script{}
	m := spec.Default()
	m.CPUs.Count, m.Boot.Kernel, m.Memory.Size, m.HotplugSlots = 2, kernel(t), 64<<20, spec.Slots(n)
	m.Disks = nil
	vm := newFrom(t, m, s)
	h := &heard{}
	vm.cfg.Notify = h.add
	end := start(vm)
	t.Cleanup(func() {
		vm.Quit()
		if o := <-end; o.Kind != Left {
			t.Errorf("%+v", o)
		}
	})
	do(t, vm, func() error { return nil }) // it runs
	return vm, s, h
}

func (h *heard) deleted() (ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.list {
		if n.Kind == NoticeDeviceDeleted && !strings.HasSuffix(n.Path, "/virtio-backend") {
			ids = append(ids, n.ID+" "+n.Path)
		}
	}
	return ids
}

func (h *heard) await(t *testing.T, want ...string) {
	t.Helper()
	for range 2000 {
		if slices.Equal(h.deleted(), want) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("deleted %q, want %q", h.deleted(), want)
}

// register reads a register about the slots, as ACPI code in the guest does.
func (s *script) register(off uint64) byte {
	var p [4]byte
	s.ports.Read(pcihp.Base+off, p[:])
	return p[0]
}

func (s *script) letGo(slots byte) { s.ports.Write(pcihp.Base+8, []byte{slots, 0, 0, 0}) }

func plugRNG(t *testing.T, m *Machine, at Place, on io.Closer) {
	t.Helper()
	do(t, m, func() error { return m.Plug(at, rng.New(), on) })
}

func TestPlugRefuses(t *testing.T) {
	m, _, _ := slotted(t, 2)
	plugRNG(t, m, Place{ID: "a", Bus: "pci.2", Addr: "0x0"}, nil)
	for want, at := range map[string]Place{
		"Duplicate device ID 'a'":                                 {ID: "a"},
		"Bus 'pci.3' not found":                                   {Bus: "pci.3"},
		"Bus 'pcie.0' does not support hotplugging":               {Bus: "pcie.0"},
		"PCI: slot 1 is not on bus pci.1, which has slot 0 alone": {Bus: "pci.1", Addr: "1"},
		"PCI: slot 0 function 0 not available for a new device on bus pci.2, in use by /machine/peripheral/a": {Bus: "pci.2"},
	} {
		released := 0
		err := m.Do(func() error { return m.Plug(at, rng.New(), closer(func() { released++ })) })
		if err == nil || err.Error() != want || released != 1 {
			t.Errorf("%+v: %v, released %d times", at, err, released)
		}
	}
	plugRNG(t, m, Place{}, nil)
	if err := m.Do(func() error { return m.Plug(Place{}, rng.New(), nil) }); err == nil || !strings.Contains(err.Error(), "all 2 slots are taken") {
		t.Errorf("%v", err)
	}
	if err := m.Do(func() error { return m.Unplug("b") }); !errors.Is(err, ErrNoDevice) || err.Error() != "Device 'b' not found" {
		t.Errorf("%v", err)
	}
	if err := m.Do(func() error { return m.Unplug("") }); !errors.Is(err, ErrNoDevice) {
		t.Errorf("a device without an id was found by none: %v", err)
	}
}

func TestNoSlots(t *testing.T) {
	m, s, _ := slotted(t, 0)
	if err := m.Do(func() error { return m.Plug(Place{}, rng.New(), nil) }); err == nil || err.Error() != "Bus 'pcie.0' does not support hotplugging" {
		t.Errorf("%v", err)
	}
	if s.register(0) != 0xff {
		t.Error("there are registers about slots that are not there")
	}
}

// A device is gone when the guest has let go of it, and not before.
func TestUnplugWaitsForTheGuest(t *testing.T) {
	m, s, h := slotted(t, 4)
	released := 0
	plugRNG(t, m, Place{ID: "a"}, nil)
	plugRNG(t, m, Place{ID: "b"}, closer(func() { released++ }))
	if p, w := s.register(0), s.register(4); p != 3 || w != 0 {
		t.Fatalf("plugged 0x%x, wanted 0x%x", p, w)
	}
	do(t, m, func() error { return m.Unplug("b") })
	if p, w := s.register(0), s.register(4); p != 0 || w != 2 {
		t.Fatalf("plugged 0x%x, wanted 0x%x", p, w)
	}
	if err := m.Do(func() error { return m.Unplug("b") }); err == nil || err.Error() != "Device b is already in the process of unplug" {
		t.Errorf("asked again: %v", err)
	}
	// A guest that does nothing keeps it, and is asked again later.
	do(t, m, func() error { m.board.slots.plugged[1].asked = time.Now().Add(-askAgain); return nil })
	do(t, m, func() error { return m.Unplug("/machine/peripheral/b") })
	if w := s.register(4); w != 2 {
		t.Errorf("wanted 0x%x", w)
	}
	if d := h.deleted(); len(d) != 0 || released != 0 || m.board.slots.ports[1].Device() == nil {
		t.Fatalf("deleted %q, released %d times, though the guest has not let go", d, released)
	}
	s.letGo(2)
	if m.board.slots.ports[1].Device() != nil {
		t.Error("the slot is full when the guest has let go")
	}
	h.await(t, "b /machine/peripheral/b")
	// Of what it was not asked, too.
	s.letGo(0xf)
	h.await(t, "b /machine/peripheral/b", "a /machine/peripheral/a")
	s.letGo(0xf)
	do(t, m, func() error {
		if released != 1 || len(m.board.transports) != 1 {
			t.Errorf("released %d times, %d transports are left", released, len(m.board.transports))
		}
		return nil
	})
	plugRNG(t, m, Place{ID: "b", Bus: "pci.2"}, nil)
}

// A reset completes what was asked, and leaves what was not.
func TestResetCompletesAnUnplug(t *testing.T) {
	for _, halted := range []bool{false, true} {
		m, s, h := slotted(t, 4)
		plugRNG(t, m, Place{ID: "a"}, nil)
		plugRNG(t, m, Place{ID: "b"}, nil)
		if halted {
			do(t, m, m.Pause)
		}
		do(t, m, func() error { return m.Unplug("a") })
		do(t, m, m.Reset)
		h.await(t, "a /machine/peripheral/a")
		if p, w := s.register(0), s.register(4); p != 0 || w != 0 {
			t.Errorf("plugged 0x%x, wanted 0x%x after a reset", p, w)
		}
		do(t, m, func() error {
			if m.board.slots.ports[0].Device() != nil || m.board.slots.ports[1].Device() == nil {
				t.Error("not exactly what was asked for is gone")
			}
			return nil
		})
	}
}

// A device that is plugged into a halted machine does not work before it goes on.
func TestPlugWhileHalted(t *testing.T) {
	m, s, h := slotted(t, 1)
	do(t, m, m.Pause)
	plugRNG(t, m, Place{}, nil)
	do(t, m, func() error { return m.Unplug("/machine/peripheral-anon/device[1]") })
	s.letGo(1)
	h.await(t, " /machine/peripheral-anon/device[1]")
	do(t, m, func() error {
		if m.Status() != Paused {
			t.Errorf("%s", m.Status())
		}
		for _, c := range m.vcpus {
			c.await(paused)
		}
		return nil
	})
	plugRNG(t, m, Place{}, nil)
	do(t, m, m.Continue)
}

// Nothing of a device is left on the host.
func TestUnplugLeaksNothing(t *testing.T) {
	m, s, h := slotted(t, 1)
	var want []string
	cycle := func() {
		plugRNG(t, m, Place{ID: "a"}, nil)
		s.letGo(1)
		want = append(want, "a /machine/peripheral/a")
		h.await(t, want...)
	}
	cycle()
	fds, goroutines := openFiles(t), runtime.NumGoroutine()
	for range 50 {
		cycle()
	}
	for range 1000 {
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if n := openFiles(t); n != fds {
		t.Errorf("%d files are open, %d before", n, fds)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

// On KVM doorbells and interrupts are the kernel's: they are there while the guest has
// the device's BARs in place, and nothing of them is left when it has let go.
func TestUnplugOnKVM(t *testing.T) {
	engine, err := kvm.New(kvm.DefaultPath, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Skip(err)
	}
	m := spec.Default()
	m.Boot.Kernel, m.Memory.Size, m.HotplugSlots, m.Paused = kernel(t), 64<<20, 1, true
	vm := newFrom(t, m, engine)
	h := &heard{}
	vm.cfg.Notify = h.add
	end := start(vm)
	var want []string
	cycle := func() {
		plugRNG(t, vm, Place{ID: "a"}, nil)
		do(t, vm, func() error {
			b := vm.board
			if err := b.assign(); err != nil {
				return err
			}
			out := func(port uint64, v uint32) {
				b.ports.Write(port, []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
			}
			out(pci.ConfigAddressPort, 1<<31|0xe0<<8|4)
			out(pci.ConfigDataPort, 6)
			out(pci.ConfigAddressPort, 1<<31|1<<16|4)
			out(pci.ConfigDataPort, 6)
			at := uint64(0)
			for _, w := range b.mmio.Windows() {
				if w.Name == "virtio-rng" && w.Size == 0x4000 {
					at = w.Base
				}
			}
			if at == 0 {
				t.Fatal("the device's registers are not there")
			}
			return nil
		})
		do(t, vm, func() error { vm.board.ports.Write(pcihp.Base+8, []byte{1, 0, 0, 0}); return nil })
		want = append(want, "a /machine/peripheral/a")
		h.await(t, want...)
	}
	cycle()
	fds := openFiles(t)
	for range 20 {
		cycle()
	}
	if n := openFiles(t); n != fds {
		t.Errorf("%d files are open, %d before", n, fds)
	}
	vm.Quit()
	<-end
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A cable made of a descriptor goes with a NIC that could not be plugged in: the number of a
// descriptor that is closed may be another's by the next attempt.
func TestANICThatFailsTakesItsDescriptorsCableAlong(t *testing.T) {
	m, _, _ := slotted(t, 1)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fds[1]) }()
	stranger := pci.NewFunction("stranger", pci.Identity{})
	if err := errors.Join(stranger.AddExpress(), m.board.slots.ports[0].Plug(stranger)); err != nil {
		t.Fatal(err)
	}
	do(t, m, func() error {
		_, err := m.AddCable(spec.NIC{ID: "n", Type: "stream", Addr: spec.SocketAddress{FD: strconv.Itoa(fds[0])}})
		return err
	})
	plug := func() error {
		return m.PlugNIC(Place{ID: "a"}, "n", func(n spec.NIC) (spec.NIC, error) { return n, nil })
	}
	if err := m.Do(plug); err == nil || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("%v", err)
	}
	if err := m.Do(plug); err == nil || !strings.Contains(err.Error(), "can't find value 'n'") {
		t.Errorf("the second time: %v", err)
	}
	m.board.slots.ports[0].Unplug()
}

// What belonged to a NIC that was unplugged is not the next one's.
func TestACableKeepsNothingOfANIC(t *testing.T) {
	m, s, h := slotted(t, 1)
	do(t, m, func() error {
		_, err := m.AddCable(spec.NIC{ID: "n", Type: "user"})
		return err
	})
	var given []spec.NIC
	plug := func() error {
		return m.PlugNIC(Place{ID: "a"}, "n", func(n spec.NIC) (spec.NIC, error) {
			given = append(given, n)
			n.MTU, n.Speed, n.MAC = 1400, 1000, "52:54:00:01:02:03"
			return n, nil
		})
	}
	do(t, m, plug)
	s.letGo(1)
	h.await(t, "a /machine/peripheral/a")
	do(t, m, plug)
	if len(given) != 2 || !reflect.DeepEqual(given[0], given[1]) {
		t.Errorf("at first %+v, then %+v", given[0], given[len(given)-1])
	}
}
