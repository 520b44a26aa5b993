package main

import (
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"berth/spec"
)

// runFlags are the flags of berth run. Those that describe the machine are kept
// as typed, because they override a machine file that is read after them.
type runFlags struct {
	given   []func(*spec.Machine) error // what the command line says, in its order
	dryRun  string
	verbose bool
	detach  bool // run it in the background
	// detached: this is the process in the background.
	detached bool
}

// machine returns the completed and validated machine that the arguments and
// flags describe.
func (f *runFlags) machine(args []string) (spec.Machine, error) {
	m := spec.Default()
	for _, file := range args {
		if err := m.ReadFile(file); err != nil {
			return m, err
		}
	}
	for _, set := range f.given {
		if err := set(&m); err != nil {
			return m, err
		}
	}
	if err := m.Complete(); err != nil {
		return m, err
	}
	return m, m.Validate()
}

// declare makes the flags. What each sets of the machine stands beside it.
func (f *runFlags) declare(flags *pflag.FlagSet) {
	flags.SortFlags = false
	d := declarer{f, flags, spec.Default()}
	d.text("kernel", "kernel `FILE`: bzImage, ELF vmlinux or Multiboot", func(m *spec.Machine) *string { return &m.Boot.Kernel })
	d.value("initrd", "", "initial RAM disk `FILE`; for a Multiboot kernel its modules: FILE[ ARGS],…", func(m *spec.Machine) setter { return &m.Boot.Initrd })
	d.text("append", "kernel command line `STRING`", func(m *spec.Machine) *string { return &m.Boot.Cmdline })
	d.text("machine", "`BOARD`: q35, microvm, or a version of one of them", func(m *spec.Machine) *string { return &m.Board })
	d.value("hotplug-slots", "", "PCI Express slots `N` in which devices can come and go, on a q35 (4 unless told otherwise)", func(m *spec.Machine) setter { return &m.HotplugSlots })
	d.value("memory", "m", "guest RAM `SIZE[,KEY=VALUE,…]`: a number with K, M, G or T (MiB without); hugepages=off|on|2M|1G, prefault=on, share=on, file=PATH, policy=bind|preferred|interleave with host-nodes=N-M", func(m *spec.Machine) setter { return &m.Memory })
	d.value("cpus", "", "virtual CPUs `N[,KEY=VALUE,…]`: sockets, cores, threads, maxcpus", func(m *spec.Machine) setter { return &m.CPUs })
	d.list("numa", "NUMA `node[,cpus=N-M][,memory=SIZE][,host-nodes=N-M,policy=POLICY]` or dist,src=N,dst=M,val=10-255; may be repeated",
		func(m *spec.Machine) { m.NUMA = spec.NUMA{} }, func(m *spec.Machine, s string) error { return m.NUMA.Add(s) })
	d.list("disk", "virtio disk `KEY=VALUE,…`: file=PATH[,format=raw|qcow2|vmdk|vhdx|vpc|vdi][,readonly=on][,serial=TEXT][,cache=none|writeback|writethrough|directsync|unsafe][,aio=threads|io_uring|native][,snapshot=on][,discard=ignore|unmap][,detect-zeroes=off|on|unmap][,iops=N][,bps=N][,throttling.KEY=N][,references=refuse][,queues=N]; may be repeated",
		func(m *spec.Machine) { m.Disks = nil }, addDisk)
	d.list("nic", "network card `TYPE[,KEY=VALUE,…]`: user[,hostfwd=tcp:[ADDRESS]:PORT-[GUEST]:PORT][,restrict=on][,loopback=on], tap[,ifname=NAME|,fds=N:M], bridge,br=NAME, stream|dgram,… to a peer, or none; [,mac=ADDRESS][,mtu=N][,queues=N][,bps_in=N][,pcap=FILE]; may be repeated",
		func(m *spec.Machine) { m.NICs = nil }, addNIC)
	d.value("balloon", "", "a device by which the guest gives memory back, `on[,KEY=VALUE,…]`: deflate-on-oom=on, free-page-reporting=on, id=ID", func(m *spec.Machine) setter { return &m.Balloon })
	d.value("vsock", "", "a socket device, `cid=N,socket=PATH`: who connects to PATH and says \"CONNECT PORT\" is connected to the guest's port, and the guest's connections to the host's port N go to PATH_N", func(m *spec.Machine) setter { return &m.VSock })
	d.value("cloud-init", "", "what cloud-init in the guest is told, `USER-DATA[,KEY=VALUE,…]`: meta-data=FILE, network-config=FILE, ssh-key=FILE of public keys", func(m *spec.Machine) setter { return &m.CloudInit })
	d.list("serial", "where the serial port (ttyS0, then ttyS1, …) goes, `WHERE`: stdio, pty, null, ringbuf[,size=N], file=PATH[,append=on], pipe=PATH, socket=PATH[,server=on] or tcp=HOST:PORT[,server=on]; stdio unless another device has it; may be repeated",
		func(m *spec.Machine) { m.Serial = nil }, func(m *spec.Machine, s string) error { return m.Serial.Add(s) })
	d.list("console", "a virtio console (hvc0, hvc1, …), and `WHERE` it goes, as with --serial; may be repeated",
		func(m *spec.Machine) { m.Console = nil }, func(m *spec.Machine, s string) error { return m.Console.Add(s) })
	d.list("port", "virtio port `name=NAME,WHERE` (/dev/virtio-ports/NAME): to=pty, to=ringbuf, file=PATH[,append=on], pipe=PATH, socket=PATH[,server=on] or tcp=HOST:PORT[,server=on]; may be repeated",
		func(m *spec.Machine) { m.Ports = nil }, addPort)
	d.control("qmp", "QMP socket `WHERE`: unix:PATH or tcp:HOST:PORT[,server=on[,wait=off]]; may be repeated")
	d.control("hmp", "human monitor `WHERE`: stdio, or as --qmp; may be repeated")
	d.list("gdb", "let gdb debug the guest by a socket `WHERE`: unix:PATH, tcp:HOST:PORT or :PORT of this host alone (on: :1234); with --paused before its first instruction",
		dropControls("gdb"),
		func(m *spec.Machine, s string) error {
			c, err := spec.ParseGDB(s)
			m.Controls = append(m.Controls, c)
			return err
		})
	d.text("accel", "`ENGINE` that runs the guest: auto, kvm or soft", func(m *spec.Machine) *string { return &m.Accel })
	d.text("soft-engine", "`HOW` the soft engine runs code: jit (translated), interp (interpreted) or auto (translated from the second time on, if the host can)", func(m *spec.Machine) *string { return &m.SoftEngine })
	d.text("cpu", "`LEVEL` of x86-64 that the guest sees: v1, v2, v3, or max, all that the engine and the host have", func(m *spec.Machine) *string { return &m.CPU })
	d.text("uuid", "`UUID` of the VM, for who manages it", func(m *spec.Machine) *string { return &m.UUID })
	d.text("name", "`NAME` of the VM, which ps and top show for the process", func(m *spec.Machine) *string { return &m.Name })
	d.text("decompress", "`WHERE` a bzImage is unpacked: host, guest or auto (host for soft, guest for KVM)", func(m *spec.Machine) *string { return &m.Boot.Decompress })
	d.text("pvpanic", "`DEVICE` by which the guest's kernel says that it panicked: isa, pci or off", func(m *spec.Machine) *string { return &m.PVPanic })
	d.text("on-panic", "`WHAT` happens when the guest's kernel panicked: stop, reset or ignore", func(m *spec.Machine) *string { return &m.OnPanic })
	d.toggle("debug-exit", "a guest's write of v to port 0xf4 ends the VM with status v*2+1", func(m *spec.Machine) *bool { return &m.DebugExit })
	d.toggle("no-reboot", "end when the guest resets itself, with status 0", func(m *spec.Machine) *bool { return &m.NoReboot })
	d.toggle("no-shutdown", "keep a VM whose guest powered off or panicked, for who controls it", func(m *spec.Machine) *bool { return &m.NoShutdown })
	d.toggle("paused", "run nothing before who controls the VM says so", func(m *spec.Machine) *bool { return &m.Paused })
	flags.BoolVarP(&f.detach, "detach", "d", false, "run the VM in the background; it needs a --name")
	flags.BoolVar(&f.detached, "detached", false, "be the process in the background")
	flags.Lookup("detached").Hidden = true
	flags.StringVar(&f.dryRun, "dry-run", "", "print the resulting machine file, as `FORMAT` json or yaml, and do nothing")
	flags.Lookup("dry-run").NoOptDefVal = "json"
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "say more on standard error")
}

func addDisk(m *spec.Machine, s string) error {
	d, err := spec.ParseDisk(s)
	m.Disks = append(m.Disks, d)
	return err
}

func addNIC(m *spec.Machine, s string) error {
	n, err := spec.ParseNIC(s)
	m.NICs = append(m.NICs, n)
	return err
}

func addPort(m *spec.Machine, s string) error {
	p, err := spec.ParsePort(s)
	m.Ports = append(m.Ports, p)
	return err
}

// setter is a part of the machine that reads its flag's value itself.
type setter interface{ Set(string) error }

// declarer makes flags that set parts of the machine.
type declarer struct {
	f        *runFlags
	flags    *pflag.FlagSet
	defaults spec.Machine
}

// setting is one flag: a pflag.Value that only notes what was typed.
type setting struct {
	f     *runFlags
	name  string
	shown string // the default, for --help
	kind  string
	set   func(m *spec.Machine, text string) error
}

func (s *setting) String() string { return s.shown }
func (s *setting) Type() string   { return s.kind }
func (s *setting) Set(text string) error {
	s.f.given = append(s.f.given, func(m *spec.Machine) error {
		if err := s.set(m, text); err != nil {
			return fmt.Errorf("--%s: %w", s.name, err)
		}
		return nil
	})
	return nil
}

func (d *declarer) add(name, short, usage, shown, kind string, set func(*spec.Machine, string) error) *pflag.Flag {
	return d.flags.VarPF(&setting{d.f, name, shown, kind, set}, name, short, usage)
}

// text declares a flag whose value is taken as it is.
func (d *declarer) text(name, usage string, field func(*spec.Machine) *string) {
	d.add(name, "", usage, *field(&d.defaults), "string", func(m *spec.Machine, s string) error {
		*field(m) = s
		return nil
	})
}

// value declares a flag whose value a field of the machine reads, keeping what
// it does not name.
func (d *declarer) value(name, short, usage string, field func(*spec.Machine) setter) {
	d.add(name, short, usage, "", "string", func(m *spec.Machine, s string) error {
		return field(m).Set(s)
	})
}

// list declares a flag that may be repeated. The first one drops what the
// machine file says.
func (d *declarer) list(name, usage string, empty func(*spec.Machine), add func(*spec.Machine, string) error) {
	begun := false
	d.add(name, "", usage, "", "string", func(m *spec.Machine, s string) error {
		if !begun {
			empty(m)
			begun = true
		}
		return add(m, s)
	})
}

// control declares a flag for where a protocol is spoken.
func (d *declarer) control(protocol, usage string) {
	d.list(protocol, usage, dropControls(protocol),
		func(m *spec.Machine, s string) error {
			c, err := spec.ParseControl(protocol, s)
			m.Controls = append(m.Controls, c)
			return err
		})
}

// dropControls drops what speaks a protocol.
func dropControls(protocol string) func(*spec.Machine) {
	return func(m *spec.Machine) {
		m.Controls = slices.DeleteFunc(m.Controls, func(c spec.Control) bool { return c.Protocol == protocol })
	}
}

// toggle declares a flag that is on or off.
func (d *declarer) toggle(name, usage string, field func(*spec.Machine) *bool) {
	flag := d.add(name, "", usage, "", "bool", func(m *spec.Machine, s string) error {
		on, err := spec.ParseBool(s)
		*field(m) = on
		return err
	})
	flag.NoOptDefVal = "true"
}
