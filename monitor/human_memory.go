package monitor

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"berth/accel"
	"berth/irq"
	"berth/machine"
	"berth/monitor/hmp"
	"berth/monitor/inspect"
	"berth/x86"
)

// humanMemory are the commands about memory and ports.
func (m *Monitor) humanMemory() []humanCommand {
	format := hmp.Arg{Name: "fmt", Kind: hmp.Format}
	addr := hmp.Arg{Name: "addr", Kind: hmp.Number}
	size := hmp.Arg{Name: "size", Kind: hmp.Number}
	file := hmp.Arg{Name: "filename", Kind: hmp.File}
	return []humanCommand{
		{name: "x", params: "/fmt addr", help: "virtual memory dump starting at 'addr'", args: []hmp.Arg{format, addr}, run: func(h *human) error {
			return m.humanDump(h, false)
		}},
		{name: "xp", params: "/fmt addr", help: "physical memory dump starting at 'addr'", args: []hmp.Arg{format, addr}, run: func(h *human) error {
			return m.humanDump(h, true)
		}},
		{
			name: "print|p", params: "/fmt expr", help: "print expression value (use $reg for CPU register access)",
			args: []hmp.Arg{format, {Name: "val", Kind: hmp.Number}},
			run: func(h *human) error {
				h.Printf("%s\n", inspect.Value(h.Layout().Format, h.Number("val")))
				return nil
			},
		},
		{
			name: "i", params: "/fmt addr", help: "I/O port read",
			args: []hmp.Arg{format, {Name: "addr", Kind: hmp.Index}, {Name: "index", Kind: hmp.Index, AfterDot: true}}, run: m.humanIn,
		},
		{
			name: "o", params: "/fmt addr value", help: "I/O port write",
			args: []hmp.Arg{format, {Name: "addr", Kind: hmp.Index}, {Name: "val", Kind: hmp.Index}}, run: m.humanOut,
		},
		{
			name: "sum", params: "addr size", help: "compute the checksum of a memory region",
			args: []hmp.Arg{{Name: "start", Kind: hmp.Index}, {Name: "size", Kind: hmp.Index}}, run: m.humanSum,
		},
		{name: "gva2gpa", params: "addr", help: "print the guest physical address corresponding to a guest virtual address", args: []hmp.Arg{addr}, run: m.humanTranslate},
		{name: "gpa2hva", params: "addr", help: "print the host virtual address corresponding to a guest physical address", args: []hmp.Arg{addr}, run: m.humanHost},
		{
			name: "memsave", params: "addr size file", help: "save to disk virtual memory dump starting at 'addr' of size 'size'", needs: "memsave",
			args: []hmp.Arg{{Name: "val", Kind: hmp.Number}, size, file},
			run: func(h *human) error {
				_, err := h.do("memsave", "val", h.Number("val"), "size", h.Number("size"), "filename", h.Text("filename"), "cpu-index", int64(h.State.CPU))
				return err
			},
		},
		{
			name: "pmemsave", params: "addr size file", help: "save to disk physical memory dump starting at 'addr' of size 'size'", needs: "pmemsave",
			args: []hmp.Arg{{Name: "val", Kind: hmp.Number}, size, file},
			run: func(h *human) error {
				_, err := h.do("pmemsave", "val", h.Number("val"), "size", h.Number("size"), "filename", h.Text("filename"))
				return err
			},
		},
		{
			name: "dump-guest-memory", params: "[-p] [-d] filename [begin length]", needs: "dump-guest-memory",
			help: "dump guest memory into file 'filename', an ELF core.\n\t\t\t-p: with the guest's virtual addresses.\n\t\t\t-d: return immediately (do not wait for completion).\n\t\t\tbegin: the starting physical address.\n\t\t\tlength: the memory size, in bytes.",
			args: []hmp.Arg{{Name: "p", Kind: hmp.Flag}, {Name: "d", Kind: hmp.Flag}, file, {Name: "begin", Kind: hmp.Number, Optional: true}, {Name: "length", Kind: hmp.Number, Optional: true}},
			run: func(h *human) error {
				args := []any{"paging", h.On("p"), "detach", h.On("d"), "protocol", "file:" + h.Text("filename")}
				for _, name := range []string{"begin", "length"} {
					if h.Has(name) {
						args = append(args, name, h.Number(name))
					}
				}
				_, err := h.do("dump-guest-memory", args...)
				return err
			},
		},
	}
}

// virtual reads memory as a vCPU in state s sees it, whatever its rights.
func (m *Monitor) virtual(s *x86.State) inspect.ReadFunc {
	return func(addr uint64, p []byte) error {
		for len(p) > 0 {
			gpa, ok := inspect.Translate(m.vm.Memory(), s, addr)
			if !ok {
				return fmt.Errorf("0x%x is not mapped", addr)
			}
			n := min(uint64(len(p)), 4096-addr&4095)
			if err := m.vm.ReadPhysical(gpa, p[:n]); err != nil {
				return err
			}
			addr, p = addr+n, p[n:]
		}
		return nil
	}
}

func (m *Monitor) humanDump(h *human, physical bool) error {
	var s x86.State
	if err := m.state(h.State.CPU, &s); err != nil {
		return err
	}
	read := m.vm.ReadPhysical
	if !physical {
		read = m.virtual(&s)
	}
	l, addr := h.Layout(), uint64(h.Number("addr"))
	w := untilEnd{h}
	if l.Format == 'i' {
		return quietly(inspect.Disassemble(w, codeSize(&s), l.Count, addr, read))
	}
	return quietly(inspect.Dump(w, l.Count, l.Format, l.Size, addr, read))
}

// codeSize is the size in bits of the code that a vCPU runs.
func codeSize(s *x86.State) int {
	switch a := s.Seg[x86.CS].Attr; {
	case s.EFER&x86.EFERLMA != 0 && a&x86.AttrL != 0:
		return 64
	case a&x86.AttrDB != 0:
		return 32
	}
	return 16
}

// untilEnd fails once the VM has ended: nobody waits for what is printed.
type untilEnd struct{ h *human }

func (u untilEnd) Write(p []byte) (int, error) {
	select {
	case <-u.h.Ended:
		return 0, errPrinted
	default:
	}
	if n, err := u.h.Write(p); err != nil {
		return n, errPrinted
	}
	return len(p), nil
}

// errPrinted ends a command that has printed all it may; that was said already.
var errPrinted = errors.New("printed")

func quietly(err error) error {
	if errors.Is(err, errPrinted) {
		return nil
	}
	return err
}

func (m *Monitor) humanIn(h *human) error {
	size, letter := portWidth(h.Layout().Size)
	port := uint64(uint16(h.Number("addr")))
	if h.Has("index") {
		m.vm.Ports().Write(port, []byte{byte(h.Number("index"))})
		port++
	}
	p := make([]byte, size)
	m.vm.Ports().Read(port, p)
	v := uint64(0)
	for i, b := range p {
		v |= uint64(b) << (8 * i)
	}
	h.Printf("port%c[0x%04x] = 0x%0*x\n", letter, port, 2*size, v)
	return nil
}

func (m *Monitor) humanOut(h *human) error {
	size, _ := portWidth(h.Layout().Size)
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(h.Number("val") >> (8 * i))
	}
	m.vm.Ports().Write(uint64(uint16(h.Number("addr"))), p)
	return nil
}

// portWidth is the width of an access, and its letter.
func portWidth(size int) (int, byte) {
	switch size {
	case 1:
		return 1, 'b'
	case 2:
		return 2, 'w'
	}
	return 4, 'l'
}

// humanSum is BSD's checksum of physical memory, in which a byte that is not there is 0.
func (m *Monitor) humanSum(h *human) error {
	start, size := uint64(h.Number("start")), uint64(h.Number("size"))
	sum := uint16(0)
	page := make([]byte, 4096)
	for at := uint64(0); at < size; at += uint64(len(page)) {
		page = page[:min(uint64(len(page)), size-at)]
		clear(page)
		if m.vm.ReadPhysical(start+at, page) != nil {
			clear(page)
		}
		if m.over() {
			return machine.ErrEnded
		}
		for _, b := range page {
			sum = sum>>1 | sum<<15
			sum += uint16(b)
		}
	}
	h.Printf("%05d\n", sum)
	return nil
}

func (m *Monitor) humanTranslate(h *human) error {
	var s x86.State
	if err := m.state(h.State.CPU, &s); err != nil {
		return err
	}
	gpa, ok := inspect.Translate(m.vm.Memory(), &s, uint64(h.Number("addr")))
	if !ok {
		h.Printf("Unmapped\n")
		return nil
	}
	h.Printf("gpa: 0x%x\n", gpa)
	return nil
}

func (m *Monitor) humanHost(h *human) error {
	gpa := uint64(h.Number("addr"))
	r := m.vm.Memory().Find(gpa)
	switch {
	case r != nil:
		h.Printf("Host virtual address for 0x%x (%s) is 0x%x\n", gpa, ramName, uint64(r.HostAddr())+gpa-r.GPA)
	case m.vm.ReadPhysical(gpa, make([]byte, 1)) != nil:
		return fmt.Errorf("No memory is mapped at address 0x%x", gpa)
	default:
		return fmt.Errorf("Memory at address 0x%x is not RAM", gpa)
	}
	return nil
}

// ramName is what QEMU calls the RAM of a PC.
const ramName = "pc.ram"

// infoCPU are those that show vCPUs and their chips.
func (m *Monitor) infoCPU() []humanCommand {
	return []humanCommand{
		{
			name: "registers", params: "[-a|vcpu]",
			help: "show the cpu registers (-a: show register info for all cpus; vcpu: specific vCPU to query; show the current CPU's registers if no argument is specified)",
			args: []hmp.Arg{{Name: "a", Kind: hmp.Flag}, {Name: "vcpu", Kind: hmp.Index, Optional: true, Values: m.cpuNumbers}}, run: m.humanRegisters,
		},
		{name: "mem", help: "show the active virtual memory mappings", run: func(h *human) error {
			return m.humanTables(h, func(w io.Writer, s *x86.State) error { return inspect.Mappings(w, m.vm.Memory(), s) })
		}},
		{name: "tlb", help: "show virtual to physical memory mappings", run: func(h *human) error {
			return m.humanTables(h, func(w io.Writer, s *x86.State) error { return inspect.TLB(w, m.vm.Memory(), s) })
		}},
		{
			name: "lapic", params: "[apic-id]", help: "show local apic state (apic-id: local apic to read, default is which of current CPU)",
			args: []hmp.Arg{{Name: "apic-id", Kind: hmp.Index, Optional: true}}, run: m.humanLAPIC,
		},
		{name: "pic", help: "show PIC state", run: func(h *human) error {
			c, err := m.chips()
			if err != nil {
				return err
			}
			inspect.IOAPIC(h, &c.IOAPIC)
			if !m.minimal() {
				inspect.PIC(h, &c.PIC)
			}
			return nil
		}},
		{name: "irq", help: "show the interrupts statistics (if available)", run: m.humanInterrupts},
		{name: "jit", help: "show dynamic compiler info", run: m.humanJIT},
		{
			name: "mtree", params: "[-f]", help: "show what decodes which addresses (-f: in QEMU's form of a flat view)",
			args: []hmp.Arg{{Name: "f", Kind: hmp.Flag}}, run: m.humanMap,
		},
	}
}

func (m *Monitor) chips() (c irq.ChipState, err error) {
	err = m.vm.Do(func() error {
		c, err = m.vm.Chips()
		return err
	})
	return c, err
}

func (m *Monitor) humanRegisters(h *human) error {
	cpus := []int{h.State.CPU}
	switch {
	case h.On("a"):
		cpus = nil
		for i := range m.vm.CPUs() {
			cpus = append(cpus, i)
		}
	case h.Has("vcpu"):
		cpus[0] = int(h.Number("vcpu"))
	}
	for _, i := range cpus {
		var s x86.State
		if i >= len(m.vm.CPUs()) {
			h.Printf("CPU#%d not available\n", i)
			return nil
		}
		if err := m.state(i, &s); err != nil {
			return err
		}
		h.Printf("\nCPU#%d\n", i)
		inspect.Registers(h, &s)
	}
	return nil
}

// humanInterrupts prints how often lines rose: every one is the I/O APIC's, and the
// first 16 are the 8259s' too.
func (m *Monitor) humanInterrupts(h *human) error {
	counts, ok := m.vm.Interrupts()
	if !ok {
		return errors.New("the accelerator does not count interrupts")
	}
	ioapic, pic := "ioapic", "isa-i8259"
	if m.cfg.Accelerator == "kvm" {
		ioapic, pic = "kvm-ioapic", "kvm-i8259"
	}
	show := func(name string, n int) {
		h.Printf("IRQ statistics for %s:\n", name)
		for i, c := range counts[:n] {
			if c > 0 {
				h.Printf("%2d: %d\n", i, c)
			}
		}
	}
	show(ioapic, len(counts))
	if !m.minimal() {
		show(pic, 16)
	}
	return nil
}

// humanTables prints a vCPU's page tables.
func (m *Monitor) humanTables(h *human, show func(w io.Writer, s *x86.State) error) error {
	var s x86.State
	if err := m.state(h.State.CPU, &s); err != nil {
		return err
	}
	return quietly(show(untilEnd{h}, &s))
}

func (m *Monitor) humanLAPIC(h *human) error {
	c, err := m.chips()
	if err != nil {
		return err
	}
	n := h.State.CPU
	if h.Has("apic-id") {
		n = -1
		for i := range c.LAPIC {
			if m.vm.APICID(i) == uint32(h.Number("apic-id")) {
				n = i
			}
		}
	}
	if n < 0 || n >= len(c.LAPIC) {
		h.Printf("No CPU available\n")
		return nil
	}
	inspect.LAPIC(h, n, &c.LAPIC[n])
	return nil
}

func (m *Monitor) humanJIT(h *human) error {
	var sum accel.Translation
	any := false
	err := m.vm.Do(func() error {
		for i := range m.vm.CPUs() {
			t, ok, err := m.vm.Translation(i)
			if err != nil {
				return err
			}
			any = any || ok
			sum.Add(t)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !any:
		return errors.New("JIT information is only available with accel=soft, where it translates")
	}
	rate := func(a, b uint64) string {
		return strconv.FormatFloat(100*float64(a)/max(float64(b), 1), 'f', 1, 64) + "%"
	}
	h.Printf("Translation buffer state:\n")
	h.Printf("gen code size       %d\nTB count            %d\n", sum.Bytes, sum.Held)
	h.Printf("TB avg target size  %.1f instructions\n", float64(sum.BlockCode)/max(float64(sum.Blocks), 1))
	h.Printf("TB avg host size    %.0f bytes\n", float64(sum.Bytes)/max(float64(sum.Held), 1))
	h.Printf("cross page TB count %d (%s)\n", sum.Crossing, rate(sum.Crossing, sum.Blocks))
	h.Printf("\nStatistics:\n")
	h.Printf("TB flush count      %d\nTB invalidate count %d\nTB translated       %d\n", sum.Flushes, sum.Removed, sum.Blocks)
	h.Printf("TB lookups          %d (%s by the table of recent ones)\n", sum.Lookups, rate(sum.Recent, sum.Lookups))
	h.Printf("TLB misses          %d (%s of instructions)\n", sum.TLBMisses, rate(sum.TLBMisses, sum.Translated))
	h.Printf("jump misses         %d (%s of instructions)\n", sum.JumpMisses, rate(sum.JumpMisses, sum.Translated))
	h.Printf("instructions        %d (%s translated)\n", sum.Instructions, rate(sum.Translated, sum.Instructions))
	h.Printf("MIPS                %.1f\n", sum.MIPS())
	h.Printf("translation         %.1f ns per instruction, %.2f%% of the vCPUs' time\n", sum.NanosecondsEach(), 100*sum.Share())
	return nil
}

func (m *Monitor) humanMap(h *human) error {
	type run struct {
		base, size uint64
		kind, name string
	}
	var list []run
	for _, r := range m.vm.Memory().Regions() {
		kind := "ram"
		if r.ReadOnly {
			kind = "rom"
		}
		list = append(list, run{r.GPA, r.End() - r.GPA, kind, ramName})
	}
	for _, w := range m.vm.MMIO() {
		list = append(list, run{w.Base, w.Size, "i/o", w.Name})
	}
	sortBy(list, func(r run) uint64 { return r.base })
	lead := "  "
	if h.On("f") {
		h.Printf("FlatView #0\n AS \"memory\", root: system\n Root memory region: system\n")
	} else {
		h.Printf("address-space: memory\n")
		lead = "    "
	}
	for _, r := range list {
		h.Printf("%s%016x-%016x (prio 0, %s): %s\n", lead, r.base, r.base+r.size-1, r.kind, r.name)
	}
	if h.On("f") {
		h.Printf("\nFlatView #1\n AS \"I/O\", root: io\n Root memory region: io\n")
	} else {
		h.Printf("\naddress-space: I/O\n")
	}
	for _, w := range m.vm.PortWindows() {
		h.Printf("%s%016x-%016x (prio 0, i/o): %s\n", lead, w.Base, w.Base+w.Size-1, w.Name)
	}
	h.Printf("\n")
	return nil
}
