package machine

import (
	"errors"
	"fmt"

	"berth/accel"
	"berth/accel/kvm"
	"berth/acpi"
	"berth/block"
	"berth/block/raw"
	"berth/boot"
	"berth/boot/direct"
	"berth/bus"
	"berth/clock"
	"berth/guestmem"
	"berth/irq"
	"berth/pci"
	"berth/spec"
	"berth/virtio"
	"berth/virtio/blk"
	"berth/virtio/rng"
)

// The board's map of guest-physical memory. ECAM, the 32-bit PCI window and the
// interrupt controllers lie where package pci and the architecture have them.
//
//	0          RAM, at most 2 GiB of it
//	0xb0000000 ECAM, 256 MiB
//	0xc0000000 32-bit PCI window
//	0xfec00000 IOAPIC     0xfee00000 LAPICs     0xfeffc000 KVM's own pages
//	4 GiB      the rest of RAM
//	mem64      64-bit PCI window, 64 GiB, aligned to its size, above RAM
const (
	lowRAM     = 2 << 30
	highBase   = 4 << 30
	mem64Size  = 64 << 30
	maxAddress = 1 << 40 // what every guest CPU reaches: soft has 40 bits of physical address
)

// board is the machine without its vCPUs: memory, spaces, chips, devices.
type board struct {
	mem         *guestmem.Memory
	ports, mmio *bus.Space
	clock       *clock.Host
	vm          accel.VM
	chips       accel.Stater
	root        *pci.RootComplex
	legacy
	disks      []block.Disk
	transports []*virtio.PCI
	mem64      pci.Range
}

// newBoard builds the board of cfg.Spec; post is told what devices want of the machine.
func newBoard(cfg Config, post func(event)) (*board, error) {
	b := &board{mem: guestmem.New(), ports: bus.New(1 << 16), mmio: bus.New(0)}
	if err := b.build(cfg, post); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *board) build(cfg Config, post func(event)) error {
	if err := b.openDisks(cfg.Spec.Disks); err != nil {
		return err
	}
	if err := b.addRAM(uint64(cfg.Spec.Memory.Size)); err != nil {
		return err
	}
	var err error
	if b.clock, err = clock.New(); err != nil {
		return err
	}
	b.vm, err = cfg.Accelerator.NewVM(accel.Config{
		Memory: b.mem, Ports: b.ports, MMIO: b.mmio, CPUs: cfg.Spec.CPUs.Count, Clock: b.clock,
	})
	if err != nil {
		return err
	}
	var ok bool
	if b.chips, ok = b.vm.(accel.Stater); !ok {
		return fmt.Errorf("accelerator %s cannot save its interrupt controllers", cfg.Accelerator.Name())
	}
	if err := b.addLegacy(cfg, post); err != nil {
		return err
	}
	return b.addPCI(cfg)
}

func (b *board) openDisks(disks []spec.Disk) error {
	for _, d := range disks {
		disk, err := raw.Open(d.File, raw.Options{ReadOnly: d.ReadOnly})
		if err != nil {
			return err
		}
		b.disks = append(b.disks, disk)
	}
	return nil
}

func (b *board) addRAM(size uint64) error {
	low := min(size, lowRAM)
	if _, err := b.mem.AddRAM(0, low); err != nil {
		return err
	}
	top := uint64(highBase)
	if size > low {
		if _, err := b.mem.AddRAM(highBase, size-low); err != nil {
			return err
		}
		top += size - low
	}
	b.mem64 = pci.Range{Base: (top + mem64Size - 1) &^ (mem64Size - 1), Size: mem64Size}
	if b.mem64.Base+b.mem64.Size > maxAddress {
		b.mem64 = pci.Range{}
	}
	return nil
}

// addPCI makes the root complex and everything on it, and assigns resources.
func (b *board) addPCI(cfg Config) error {
	chip := b.vm.IRQChip()
	shared := map[uint32]*irq.Shared{}
	var err error
	b.root, err = pci.NewRootComplex(pci.Config{
		Ports: b.ports, MMIO: b.mmio, Memory: b.mem, MSI: chip, Mem64: b.mem64, Reset: b.pm.ResetControl(),
		Line: func(gsi uint32) irq.Line {
			if shared[gsi] == nil {
				shared[gsi] = irq.NewShared(irq.GSILine(chip, gsi))
			}
			return shared[gsi].Source()
		},
	})
	if err != nil {
		return err
	}
	slot := uint8(1)
	for i, d := range cfg.Spec.Disks {
		dev, err := blk.New(b.disks[i], blk.Config{Serial: d.Serial, ReadOnly: d.ReadOnly})
		if err == nil {
			err = b.addVirtio(cfg, slot, dev)
		}
		if err != nil {
			return fmt.Errorf("disk %s: %w", d.File, err)
		}
		slot++
	}
	if err := b.addVirtio(cfg, slot, rng.New()); err != nil {
		return err
	}
	return b.root.AssignResources()
}

func (b *board) addVirtio(cfg Config, slot uint8, dev virtio.Device) error {
	doorbells, _ := b.vm.(virtio.Doorbells)
	t, err := virtio.NewPCI(dev, virtio.PCIConfig{Memory: b.mem, Doorbells: doorbells, Log: cfg.Log})
	if err != nil {
		return err
	}
	b.transports = append(b.transports, t)
	return b.root.AddFunction(pci.Devfn(slot, 0), t.Function())
}

// load puts the kernel, its command line, the initrd and the ACPI tables into memory.
func (b *board) load(cfg Config) (*boot.Entry, error) {
	p := boot.Params{Cmdline: cfg.Spec.Boot.Cmdline, Unpack: unpacker(cfg)}
	p.Reserved = []boot.Range{{Addr: pci.ECAMBase, Size: pci.ECAMSize}, {Addr: kvm.ReservedBase, Size: kvm.ReservedSize}}
	kernel, err := boot.OpenFile("kernel", cfg.Spec.Boot.Kernel)
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	p.Kernel = kernel.SectionReader
	if files := cfg.Spec.Boot.Initrd; len(files) > 0 {
		initrd, err := boot.OpenFile("initrd", files[0])
		if err != nil {
			return nil, err
		}
		defer initrd.Close()
		p.Initrd = initrd.SectionReader
	}
	tables, err := acpi.Build(b.acpiConfig(cfg.Spec.CPUs.Count), boot.ACPIBase, boot.ACPIEnd)
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

func (b *board) acpiConfig(cpus int) acpi.Config {
	c := acpi.Board(cpus)
	c.PCIWindows = []acpi.Range{{Base: pci.Mem32Base, Size: pci.Mem32Size}}
	if b.mem64.Size != 0 {
		c.PCIWindows = append(c.PCIWindows, acpi.Range(b.mem64))
	}
	for _, r := range pci.Routes() {
		c.PCIRoutes = append(c.PCIRoutes, acpi.Route{Device: r.Slot, Pin: r.Pin, GSI: r.GSI})
	}
	return c
}

// workers is how many threads of devices should run beside the vCPUs: one for
// each virtio device, and half of a disk's, which wait for the storage mostly
// (docs/decisions/0004-how-many-threads-go-runs.md).
func (b *board) workers() int { return len(b.transports) + 4*len(b.disks) }

func (b *board) start() error {
	for _, t := range b.transports {
		if err := t.Start(); err != nil {
			return err
		}
	}
	return nil
}

// drain returns when no device has a request in flight and the console's bytes
// are written.
func (b *board) drain() {
	for _, t := range b.transports {
		t.Pause()
	}
	b.uart.Drain()
}

// reset puts every device back to power-on and clears RAM. The vCPUs are paused.
func (b *board) reset() error {
	for _, t := range b.transports {
		t.Reset()
	}
	b.root.Reset()
	b.resetLegacy()
	if err := b.mem.Clear(); err != nil {
		return err
	}
	return b.root.AssignResources()
}

// close releases everything in the reverse order of build. The vCPU threads have ended.
func (b *board) close() error {
	var errs []error
	for _, t := range b.transports {
		t.Reset() // ends the queues' workers
		errs = append(errs, t.Close())
	}
	if b.root != nil {
		errs = append(errs, b.root.Close())
	}
	errs = append(errs, b.closeLegacy())
	if b.vm != nil {
		errs = append(errs, b.vm.Close())
	}
	if b.clock != nil {
		errs = append(errs, b.clock.Close())
	}
	for _, d := range b.disks {
		errs = append(errs, d.Close())
	}
	return errors.Join(append(errs, b.mem.Close())...)
}
