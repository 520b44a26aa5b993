package main

import "path/filepath"

// ramMiB is every guest's RAM.
const ramMiB = "512"

// vmm is one way of running a guest, and what was measured of it.
type vmm struct {
	Name   string
	Starts []start // of the tiny guests
	Boots  []boot  // of Debian's kernel; none: this way only starts tiny guests

	start, boot []string // command lines
}

// files are what a machine on which VMMs are measured has.
type files struct {
	berth, kernel, initrd string
	scratch               string // a folder to write to
	// firmware is a folder with QEMU's firmware; "": where QEMU looks by itself.
	firmware string
}

// vmms lists what is compared on an engine, soft or kvm, berth and its peer first.
func (f files) vmms(engine string) ([]*vmm, error) {
	tiny, rom, err := tinyGuests(f.scratch)
	if err != nil {
		return nil, err
	}
	berth := func(args ...string) []string {
		return append([]string{f.berth, "run", "--accel", engine, "--memory", ramMiB + "M"}, args...)
	}
	qemu := func(board string, args ...string) []string { return f.qemu(engine, board, args) }
	const rng = "virtio-rng-pci" // which berth's q35 has too
	exit := []string{"-device", "isa-debug-exit,iobase=0xf4,iosize=4"}
	with := func(args ...string) []string { return append(args, exit...) }
	debian := []string{"--kernel", f.kernel, "--initrd", f.initrd, "--append", cmdline}
	peer := "QEMU TCG"
	if engine == "kvm" {
		peer = "QEMU KVM"
	}
	all := []*vmm{
		{
			Name:  "berth " + engine,
			start: berth("--debug-exit", "--kernel", tiny),
			boot:  berth(debian...),
		}, {
			Name:  peer + ", from the reset vector",
			start: qemu("q35", with("-device", rng, "-bios", rom)...),
			boot:  qemu("q35", "-device", rng, "-kernel", f.kernel, "-initrd", f.initrd, "-append", cmdline),
		}, {
			Name:  peer + ", the same kernel",
			start: qemu("q35", with("-device", rng, "-kernel", tiny)...),
		}, {
			Name:  "berth " + engine + ", microvm",
			start: berth("--machine", "microvm", "--debug-exit", "--kernel", tiny),
		}, {
			Name:  peer + ", microvm from the reset vector",
			start: qemu("microvm", with("-bios", rom)...),
		},
	}
	if engine == "kvm" {
		all = append(all, &vmm{
			Name:  scale,
			start: []string{f.berth, "run", "--accel", "soft", "--memory", ramMiB + "M", "--debug-exit", "--kernel", tiny},
		})
	}
	return all, nil
}

// qemu is a command line of QEMU's like those of berth.
func (f files) qemu(engine, board string, args []string) []string {
	all := []string{"qemu-system-x86_64", "-accel", "tcg", "-cpu", "Nehalem"}
	if engine == "kvm" {
		all = []string{"qemu-system-x86_64", "-accel", "kvm", "-cpu", "host"}
	}
	all = append(all, "-machine", board, "-m", ramMiB, "-smp", "1", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot")
	if f.firmware != "" {
		all = append(all, "-L", f.firmware)
	}
	return append(all, args...)
}

// scale is what says how much slower the outer guest is than its host: berth on
// soft, which needs no KVM, is started in both.
const scale = "berth soft, for scale"

const cmdline = "console=ttyS0 panic=-1"

// here are the files in the repository's root folder.
func here(guest, scratch string) files {
	return files{
		berth: "./berth", scratch: scratch,
		kernel: filepath.Join(guest, "vmlinuz"), initrd: filepath.Join(guest, "initrd.img"),
	}
}
