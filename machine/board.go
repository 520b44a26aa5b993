package machine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"berth/accel"
	"berth/accel/kvm"
	"berth/acpi"
	"berth/block/formats"
	"berth/boot"
	"berth/boot/direct"
	"berth/bus"
	"berth/clock"
	"berth/device/pvpanic"
	"berth/guestmem"
	"berth/spec"
	"berth/virtio"
	"berth/virtio/balloon"
	"berth/virtio/rng"
	"berth/virtio/vsock"
	"berth/x86"
)

// board is the machine without its vCPUs: memory, spaces, chips, devices.
type board struct {
	mem         *guestmem.Memory
	prefault    bool // all of it is taken from the host before the guest runs
	ports, mmio *bus.Space
	clock       *clock.Host
	vm          accel.VM
	chips       accel.Stater
	topology    x86.Topology
	chipset
	chars
	platform
	slots      slots
	graph      *formats.Nodes
	drivesMu   sync.Mutex // of changes of drives, and of who else looks at them than Run
	drives     []*Drive
	cables     cables
	transports []transport
	devices    []Device        // those that are there from the start
	unnamed    int             // devices without an id that there have been
	balloon    *balloon.Device // nil: none
	vsock      *vsock.Unix     // nil: no socket device
	notify     func(Notice)
}

// platform is what one kind of board has beside RAM, chips and devices: the way
// to its virtio devices.
type platform interface {
	// attach puts a virtio device where the guest finds it.
	attach(b *board, cfg Config, dev virtio.Device) (transport, error)
	// describe adds what the platform has to the ACPI tables.
	describe(*acpi.Config)
	// reserved lists what the memory map names besides RAM.
	reserved() []boot.Range
	// assign gives devices their addresses, at first and after each reset.
	assign() error
	reset()
	close() error
}

// transport is what stands between the guest and a virtio device.
type transport interface {
	Start() error
	Pause()
	Resume()
	Reset()
	Close() error
}

// newBoard builds the board of cfg.Spec; post is told what devices want of the machine.
func newBoard(cfg Config, post func(event)) (*board, error) {
	b := &board{ports: bus.New(1 << 16), mmio: bus.New(0), notify: cfg.Notify}
	if b.notify == nil {
		b.notify = func(Notice) {}
	}
	if err := b.build(cfg, post); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *board) build(cfg Config, post func(event)) error {
	if err := b.openDisks(cfg); err != nil {
		return err
	}
	if err := b.addRAM(cfg.Spec); err != nil {
		return err
	}
	var err error
	if b.clock, err = clock.New(); err != nil {
		return err
	}
	small := strings.HasPrefix(cfg.Spec.Board, "microvm-")
	cpus := cfg.Spec.CPUs
	b.topology = x86.Topology{Sockets: cpus.Sockets, Cores: cpus.Cores, Threads: cpus.Threads}
	b.vm, err = cfg.Accelerator.NewVM(accel.Config{
		Memory: b.mem, Ports: b.ports, MMIO: b.mmio, CPUs: cpus.Count, Topology: b.topology, Clock: b.clock, APICOnly: small,
	})
	if err != nil {
		return err
	}
	var ok bool
	if b.chips, ok = b.vm.(accel.Stater); !ok {
		return fmt.Errorf("accelerator %s cannot save its interrupt controllers", cfg.Accelerator.Name())
	}
	if small {
		err = b.newMicroVM(cfg, post)
	} else {
		err = b.newQ35(cfg, post)
	}
	if err != nil {
		return err
	}
	return b.addDevices(cfg)
}

// addDevices makes the virtio devices, in the order in which guests find them.
func (b *board) addDevices(cfg Config) error {
	if err := b.addDisks(cfg); err != nil {
		return err
	}
	if err := b.add(cfg, Device{Device: rng.New()}); err != nil {
		return err
	}
	if err := b.addConsoles(cfg); err != nil {
		return err
	}
	if err := b.addNICs(cfg); err != nil {
		return err
	}
	if err := b.addBalloon(cfg); err != nil {
		return err
	}
	if err := b.addVSock(cfg); err != nil {
		return err
	}
	return b.assign()
}

func (b *board) add(cfg Config, d Device) error {
	t, err := b.attach(b, cfg, d.Device)
	if err == nil {
		b.transports = append(b.transports, t)
		b.devices = append(b.devices, b.complete(d, t))
	}
	return err
}

// doorbells returns the engine's ability to take notifications off the guest's
// hands, or nil.
func (b *board) doorbells() virtio.Doorbells {
	d, _ := b.vm.(virtio.Doorbells)
	return d
}

// load puts the kernel, its command line, the initrd and the ACPI tables into memory.
func (b *board) load(cfg Config) (*boot.Entry, error) {
	p := boot.Params{Cmdline: cfg.Spec.Boot.Cmdline, Unpack: unpacker(cfg)}
	p.Reserved = append(b.reserved(), boot.Range{Addr: kvm.ReservedBase, Size: kvm.ReservedSize})
	kernel, err := boot.OpenFile("kernel", cfg.Spec.Boot.Kernel)
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	p.Kernel, p.KernelName = kernel.SectionReader, cfg.Spec.Boot.Kernel
	files, err := openModules(&p, cfg.Spec.Boot.Initrd)
	for _, f := range files {
		defer f.Close()
	}
	if err != nil {
		return nil, err
	}
	tables, err := acpi.Build(b.acpiConfig(cfg.Spec), boot.ACPIBase, boot.ACPIEnd)
	if err != nil {
		return nil, err
	}
	if err := b.mem.Write(tables.Base, tables.Bytes); err != nil {
		return nil, fmt.Errorf("ACPI tables: %w", err)
	}
	p.RSDP = tables.RSDP
	entry, err := direct.Load(b.mem, p)
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", cfg.Spec.Boot.Kernel, err)
	}
	return entry, nil
}

// openModules opens what --initrd names: a Multiboot kernel's modules, each a
// file's name and the module's own command line behind a space, or an initrd.
// The files that it returns are the caller's to close, after an error too.
func openModules(p *boot.Params, names []string) (files []*boot.File, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	kind, err := boot.Detect(p.Kernel)
	if err != nil {
		return nil, fmt.Errorf("booting %s: %w", p.KernelName, err)
	}
	if kind != boot.KindMultiboot {
		if len(names) > 1 {
			return nil, fmt.Errorf("initrd: %s and %d more: only a Multiboot kernel takes several", names[0], len(names)-1)
		}
		f, err := boot.OpenFile("initrd", names[0])
		if err != nil {
			return nil, err
		}
		p.Initrd = f.SectionReader
		return []*boot.File{f}, nil
	}
	for _, n := range names {
		path, _, _ := strings.Cut(n, " ")
		f, err := boot.OpenFile("module", path)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		p.Modules = append(p.Modules, boot.Module{Name: path, Cmdline: n, File: f.SectionReader})
	}
	return files, nil
}

// unpacker resolves "auto": on the host for soft, which would do it far slower
// in the guest; in the guest for KVM, which keeps KASLR.
func unpacker(cfg Config) boot.Unpack {
	switch cfg.Spec.Boot.Decompress {
	case "host":
		return boot.UnpackHost
	case "guest":
		return boot.UnpackGuest
	}
	if cfg.Accelerator.Name() == "kvm" {
		return boot.UnpackGuestFirst
	}
	return boot.UnpackAuto
}

// acpiConfig describes the board for its ACPI tables.
func (b *board) acpiConfig(m spec.Machine) acpi.Config {
	var ids []uint32
	for cpu := range m.CPUs.Count {
		ids = append(ids, b.topology.APICID(cpu))
	}
	c := acpi.Board(ids)
	c.SocketSize = b.topology.Cores * b.topology.Threads
	c.RTC = b.rtc != nil
	c.Serial = serialPorts[:len(b.uarts)]
	if m.PVPanic == "isa" {
		c.Panic = pvpanic.Port
	}
	c.Nodes, c.Distances = b.nodes(m)
	b.describe(&c)
	b.slots.describe(&c)
	return c
}

// workers is how many threads of devices should run beside cpus vCPUs: one for
// each virtio device, one for each further queue of a disk, but no more than there
// are vCPUs to ring them, and half of a disk's, which wait for the storage mostly;
// and for a NIC one more, which receives, and likewise for its further pairs of queues
// (docs/decisions/0004-how-many-threads-go-runs.md).
func (b *board) workers(m spec.Machine) int {
	further := 0
	for _, d := range m.Disks {
		further += max(d.Queues-1, 0)
	}
	for _, n := range m.NICs {
		further += 2*n.Queues - 1
	}
	return len(b.transports) + min(further, m.CPUs.Count+len(m.NICs)) + 4*len(b.drives)
}

func (b *board) start() error {
	for _, t := range b.transports {
		if err := t.Start(); err != nil {
			return err
		}
	}
	return nil
}

// drain returns when no device has a request in flight and the bytes of serial
// port and consoles are written.
func (b *board) drain() {
	for _, t := range b.transports {
		t.Pause()
	}
	b.drainChars()
}

// abandon makes drain, reset and close wait for nobody.
func (b *board) abandon() {
	for _, s := range b.speakers {
		s.Abandon()
	}
	b.drivesMu.Lock()
	drives := slices.Clone(b.drives)
	b.drivesMu.Unlock()
	for _, d := range drives {
		d.Abandon()
	}
}

// reset puts every device back to power-on and clears RAM. The vCPUs are paused.
func (b *board) reset() error {
	for _, t := range b.transports {
		t.Reset()
	}
	b.platform.reset()
	b.slots.reset()
	b.chipset.reset()
	if err := b.mem.Clear(); err != nil {
		return err
	}
	if err := b.takeRAM(); err != nil {
		return err
	}
	return b.assign()
}

// close releases everything in the reverse order of build. The vCPU threads have ended.
func (b *board) close() error {
	var errs []error
	for _, t := range b.transports {
		t.Reset() // ends the queues' workers
		errs = append(errs, t.Close())
	}
	errs = append(errs, b.slots.close(), b.cables.close(), b.closeBalloon(), b.closeVSock())
	b.drainChars()
	errs = append(errs, b.chars.close())
	if b.platform != nil {
		errs = append(errs, b.platform.close())
	}
	errs = append(errs, b.chipset.close())
	if b.vm != nil {
		errs = append(errs, b.vm.Close())
	}
	if b.clock != nil {
		errs = append(errs, b.clock.Close())
	}
	for _, d := range b.drives {
		errs = append(errs, d.Close())
	}
	if b.graph != nil {
		errs = append(errs, b.graph.Close())
	}
	if b.mem != nil {
		errs = append(errs, b.mem.Close())
	}
	return errors.Join(errs...)
}
