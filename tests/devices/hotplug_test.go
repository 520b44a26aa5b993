package devices

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/accel/soft"
	"berth/block/formats"
	"berth/chardev"
	"berth/machine"
	"berth/spec"
	"berth/tests/guest"
	"berth/virtio/blk"
	virtionet "berth/virtio/net"
)

var cycles = flag.Int("hotplug.cycles", 3, "how often a disk and a NIC come and go")

const (
	patience = time.Minute
	mib      = 1 << 20
	// What may be left after any number of cycles, in KiB: guests and Go's runtime
	// keep what they think they will need again.
	hostSlack, guestSlack = 8 << 10, 6 << 10
)

// vm is a Debian kernel whose console takes orders.
type vm struct {
	*testing.T
	m       *machine.Machine
	hand    *guest.Console
	deleted chan machine.Notice
}

func boot(t *testing.T, modules ...string) *vm {
	t.Helper()
	return bootWith(t, modules, nil, func(*spec.Machine) {})
}

// bootWith boots with further modules and files in the guest, and a machine that
// change has changed.
func bootWith(t *testing.T, modules []string, files map[string]string, change func(*spec.Machine)) *vm {
	t.Helper()
	f := guest.Need(t)
	if len(modules) > 0 {
		f.Initrd = guest.InitrdOf(t, modules, files)
	}
	m := spec.Default()
	m.CPUs.Count, m.Memory.Size, m.Boot.Kernel, m.Boot.Initrd = 2, 256*mib, f.Kernel, spec.Files{f.Initrd}
	m.Boot.Cmdline = "console=ttyS0 quiet berth.script=orders"
	change(&m)
	if err := m.Complete(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ours, theirs := chardev.Pipe(64 << 10)
	v := &vm{T: t, deleted: make(chan machine.Notice, 16)}
	var err error
	v.m, err = machine.New(machine.Config{Spec: m, Accelerator: soft.New(log), Console: theirs, Log: log, Notify: func(n machine.Notice) {
		if n.Kind == machine.NoticeDeviceDeleted && n.ID != "" {
			v.deleted <- n
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() {
		_, err := v.m.Run()
		end <- err
	}()
	t.Cleanup(func() {
		v.m.Kill("the test's end")
		if err := <-end; err != nil {
			t.Error(err)
		}
		if err := v.m.Close(); err != nil {
			t.Error(err)
		}
	})
	v.hand = guest.NewConsole(ours, ours)
	if _, _, err := v.hand.Expect(`BERTH-ORDERS ready\r\n`, patience); err != nil {
		t.Fatalf("%v\n%s", err, v.hand.Said())
	}
	return v
}

// order has the guest run a line of shell and returns what it said.
func (v *vm) order(line string, args ...any) string {
	v.Helper()
	out, err := v.hand.Run(fmt.Sprintf(line, args...), patience)
	if err != nil {
		v.Fatalf("%v\n%s", err, v.hand.Said())
	}
	return strings.TrimSpace(out)
}

func (v *vm) do(f func() error) {
	v.Helper()
	if err := v.m.Do(f); err != nil {
		v.Fatal(err)
	}
}

// unplug asks for a device and waits until the guest has let go of it.
func (v *vm) unplug(id string) {
	v.Helper()
	v.do(func() error { return v.m.Unplug(id) })
	select {
	case n := <-v.deleted:
		if n.ID != id {
			v.Fatalf("%s is gone, not %s", n.ID, id)
		}
	case <-time.After(patience):
		v.Fatalf("the guest does not let go of %s\n%s\n%s", id, v.order("dmesg | tail -20"), v.hand.Said())
	}
}

// image makes a raw image of random bytes, and returns the sum of its first MiB.
func image(t *testing.T) (path, sum string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	f, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, mib)
	if _, err := io.ReadFull(f, b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat(b, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, fmt.Sprintf("%x", sha256.Sum256(b))
}

// TestCycles has a disk and a NIC come and go, each under load when it is asked for.
// What is there after the second time is there after the last.
func TestCycles(t *testing.T) {
	v := boot(t)
	path, sum := image(t)
	v.cycle(path, sum)
	v.cycle(path, sum)
	before := v.count()
	begun := time.Now()
	for range *cycles {
		v.cycle(path, sum)
	}
	after := v.count()
	t.Logf("%d cycles of a disk and a NIC in %.1fs\nbefore %+v\nafter  %+v", *cycles, time.Since(begun).Seconds(), before, after)
	before.check(t, after)
	if out := v.order("dmesg | grep -E 'WARNING:|BUG:|Oops|Call Trace|blocked for more' || true"); out != "" {
		t.Errorf("the guest's kernel complains: %s", out)
	}
}

// await has the guest wait for a condition, which the shell says.
func (v *vm) await(condition string) {
	v.Helper()
	v.order("n=0; until %s; do n=$((n + 1)); [ $n -lt 2000 ] || { dmesg | tail -20; exit; }; usleep 10000; done", condition)
}

func (v *vm) cycle(path, sum string) {
	v.Helper()
	v.do(func() error {
		if err := v.m.Nodes().Add(formats.Options{Filename: path, Format: "raw", Cache: "writeback", NoShare: true, Stated: true, Values: map[string]string{"node-name": "node"}}); err != nil {
			return err
		}
		return v.m.PlugDisk(machine.Place{ID: "disk"}, "node", blk.Config{Queues: 2})
	})
	v.await("[ -b /dev/vda ]")
	if got := v.order("dd if=/dev/vda bs=64k count=16 2>/dev/null | sha256sum"); !strings.HasPrefix(got, sum) {
		v.Fatalf("the disk reads otherwise: %s, want %s", got, sum)
	}
	cable := newCable()
	v.do(func() error {
		dev, err := virtionet.New(cable, virtionet.Config{MAC: [6]byte{0x52, 0x54, 0, 0, 0, 1}, Queues: 1, FilterChanged: func() {}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		return v.m.Plug(machine.Place{ID: "nic"}, dev, dev)
	})
	v.await("ip link show eth0 >/dev/null 2>&1")
	v.order("ip addr add 10.9.9.1/24 dev eth0; ip link set eth0 up")
	// Readers and writers until there is no device any more; /dev/vda would become a file then.
	v.order("rm -f /tmp/vda; mknod /tmp/vda b $(tr : ' ' </sys/block/vda/dev); for i in 1 2; do (while dd if=/tmp/vda of=/dev/null bs=16k iflag=direct; do :; done) >/dev/null 2>&1 & " +
		"(while dd if=/dev/zero of=/tmp/vda bs=16k seek=64 count=64 oflag=direct conv=notrunc; do :; done) >/dev/null 2>&1 & done; " +
		"(while ping -q -c 5 -W 1 -s 1000 10.9.9.255 -b; [ -e /sys/class/net/eth0 ]; do :; done) >/dev/null 2>&1 & :")
	v.await("grep -q eth0 /proc/net/dev && [ $(cat /sys/class/net/eth0/statistics/rx_packets) -gt 20 ]")
	v.unplug("disk")
	v.unplug("nic")
	v.do(func() error { return v.m.Nodes().Delete("node") })
	v.await("[ ! -e /sys/block/vda ]")
	v.order("wait")
}

// cable is a NIC's cable on which somebody else talks all the time.
type cable struct {
	closed chan struct{}
	once   sync.Once
}

func newCable() *cable { return &cable{closed: make(chan struct{})} }

func (c *cable) Send([][]byte) error { return nil }

func (c *cable) Receive(p []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, io.EOF
	case <-time.After(time.Millisecond):
	}
	const header, size = 12, 200
	clear(p[:header+size])
	copy(p[header:], "\xff\xff\xff\xff\xff\xff\x52\x54\x00\x00\x00\x02\x88\xb5")
	return header + size, nil
}

func (c *cable) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// counts are what could be left of a device.
type counts struct {
	Files, Goroutines, Threads, HostKiB                         int
	Devices, Interrupts, Ranges, Slots, Processes, GuestFreeKiB int
}

func (v *vm) count() (c counts) {
	v.Helper()
	c.Goroutines, c.Threads = runtime.NumGoroutine(), entries(v, "/proc/self/task")
	for range 100 { // what has ended takes a moment to be gone
		time.Sleep(5 * time.Millisecond)
		c.Goroutines = min(c.Goroutines, runtime.NumGoroutine())
		c.Threads = min(c.Threads, entries(v, "/proc/self/task"))
	}
	c.Files = entries(v, "/proc/self/fd")
	runtime.GC() // twice: pools keep what they have for one more
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	c.HostKiB = int(s.HeapAlloc >> 10)
	for name, command := range map[*int]string{
		&c.Devices: "ls /sys/bus/pci/devices /sys/bus/virtio/devices | wc -l", &c.Interrupts: "wc -l </proc/interrupts",
		&c.Ranges: "cat /proc/iomem /proc/ioports | wc -l", &c.Slots: "ls /sys/bus/pci/slots | wc -l",
		&c.Processes:    "n=0; for p in /proc/[0-9]*/exe; do ! readlink $p >/dev/null || n=$((n + 1)); done; echo $n", // the kernel's have none
		&c.GuestFreeKiB: "sync; echo 3 >/proc/sys/vm/drop_caches; usleep 200000; awk '/^MemFree/ { print $2 }' /proc/meminfo",
	} {
		n, err := strconv.Atoi(v.order("%s", command))
		if err != nil {
			v.Fatal(err)
		}
		*name = n
	}
	return c
}

func entries(t *vm, dir string) int {
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func (c counts) check(t *testing.T, after counts) {
	t.Helper()
	for _, x := range []struct {
		what          string
		before, after int
		slack         int
	}{
		{"files of the host", c.Files, after.Files, 0}, {"goroutines", c.Goroutines, after.Goroutines, 0},
		{"threads", c.Threads, after.Threads, 8}, {"KiB of Go's heap", c.HostKiB, after.HostKiB, hostSlack},
		{"devices", c.Devices, after.Devices, 0}, {"interrupts", c.Interrupts, after.Interrupts, 0},
		{"address ranges", c.Ranges, after.Ranges, 0}, {"slots", c.Slots, after.Slots, 0}, {"processes", c.Processes, after.Processes, 0},
		{"KiB of the guest's memory", -c.GuestFreeKiB, -after.GuestFreeKiB, guestSlack},
	} {
		if x.after > x.before+x.slack {
			t.Errorf("%s: %d are left after %d", x.what, x.after, x.before)
		}
	}
}
