package hostcpu

import (
	"encoding/binary"
	"errors"

	"berth/guestmem"
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/interp"
)

// Guest-physical layout of the interpreter's machine. The monitor's part (tables,
// stubs, stack) is mapped at monitorBase, where user code does not reach.
const (
	gpaPML4 = 0x1000 * (iota + 1)
	gpaUserPDPT
	gpaUserPD
	gpaDataPT
	gpaCodePT
	gpaMonitorPDPT
	gpaMonitorPD
	gpaMonitorPT
	gpaGDT
	gpaIDT
	gpaTSS
	gpaStubs
	gpaStack
	gpaSandbox  = 0x20000
	gpaCode     = 0x40000
	guestMemory = 0x100000

	monitorBase = 0xffffc00000000000
	stackTop    = gpaStack + 0x1000
)

const (
	pteUser  = 1 | 4 | 1<<5 | 1<<6 // present, user, accessed, dirty
	pteWrite = 2
	pteNX    = 1 << 63
)

// Soft runs cases in the interpreter: at CPL 3, with an IDT whose handlers write
// their vector to a port.
type Soft struct {
	mem  *guestmem.Memory
	cpu  *interp.CPU
	io   ports
	dev  register
	apic pin

	level x86.Level
}

// NewSoft makes the machine of the soft engine, interpreting or translating, with a
// CPU of the level.
func NewSoft(translate bool, level x86.Level) (*Soft, error) { return newSoft(translate, false, level) }

// newSoft is NewSoft; lazy: blocks are interpreted the first time.
func newSoft(translate, lazy bool, level x86.Level) (*Soft, error) {
	s := &Soft{mem: guestmem.New(), level: level}
	if _, err := s.mem.AddRAM(0, guestMemory); err != nil {
		return nil, err
	}
	cpu, err := interp.New(interp.Config{
		CPUs: 1, Memory: s.mem, Ports: &s.io, MMIO: &s.dev, APIC: &s.apic, TSC: func() uint64 { return 0 }, Translate: translate, Lazy: lazy,
		Level: level,
	})
	if err != nil {
		return nil, errors.Join(err, s.mem.Close())
	}
	s.cpu, s.io.cpu = cpu, cpu
	s.mem.WatchCode(cpu.CodeWritten)
	return s, s.tables()
}

// Close releases the machine.
func (s *Soft) Close() error { return errors.Join(s.cpu.Close(), s.mem.Close()) }

// tables writes page tables, GDT, IDT, TSS and the handlers.
func (s *Soft) tables() error {
	var err error
	put := func(gpa uint64, v uint64) {
		var p [8]byte
		binary.LittleEndian.PutUint64(p[:], v)
		err = errors.Join(err, s.mem.Write(gpa, p[:]))
	}
	const table = 1 | 2 | 4 | 1<<5
	put(gpaPML4, gpaUserPDPT|table)
	put(gpaUserPDPT, gpaUserPD|table)
	put(gpaUserPD+sandboxBase>>21*8, gpaDataPT|table)
	put(gpaUserPD+codeBase>>21*8, gpaCodePT|table)
	for i := uint64(0); i < sandboxSize/0x1000; i++ {
		put(gpaDataPT+8*i, gpaSandbox+i<<12|pteUser|pteWrite|pteNX)
	}
	for i := uint64(0); i < codeSize/0x1000; i++ {
		put(gpaCodePT+8*i, gpaCode+i<<12|pteUser)
	}
	put(gpaPML4+monitorBase>>39&511*8, gpaMonitorPDPT|table)
	put(gpaMonitorPDPT, gpaMonitorPD|table)
	put(gpaMonitorPD, gpaMonitorPT|table)
	for i := uint64(0); i < 16; i++ {
		put(gpaMonitorPT+8*i, i<<12|1|pteWrite|1<<5|1<<6)
	}
	put(gpaGDT+2*8, 0x00af9b000000ffff) // 0x10: kernel code
	put(gpaGDT+3*8, 0x00cf93000000ffff) // 0x18: kernel data
	put(gpaGDT+4*8, 0x00cffb000000ffff) // 0x23: 32-bit user code
	put(gpaGDT+5*8, 0x00cff3000000ffff) // 0x2b: user data
	put(gpaGDT+6*8, 0x00affb000000ffff) // 0x33: 64-bit user code
	put(gpaTSS+4, monitorBase+stackTop)
	put(gpaTSS+0x60, 0xffff<<48) // no I/O permission bitmap
	for v := uint64(0); v < 32; v++ {
		dpl := uint64(0)
		if v == x86.BP || v == x86.OF {
			dpl = 3
		}
		stub := monitorBase + gpaStubs + v*4
		put(gpaIDT+16*v, stub&0xffff|0x10<<16|(0x8e|dpl<<5)<<40|stub>>16&0xffff<<48)
		put(gpaIDT+16*v+8, stub>>32)
		put(gpaStubs+4*v, 0xfeeb00e6|v<<8) // out v, al; jmp .
	}
	return err
}

// ports hears the handlers.
type ports struct {
	cpu    *interp.CPU
	vector uint8
	hit    bool
	goesOn func(vector uint8) bool // if set, asked whether the case is not over
}

func (p *ports) Read(_ uint64, b []byte) { clear(b) }

func (p *ports) Write(addr uint64, _ []byte) {
	if p.goesOn != nil && p.goesOn(uint8(addr)) {
		return
	}
	p.vector, p.hit = uint8(addr), true
	p.cpu.Kick()
}

// register is a device whose reads follow from all accesses before.
type register struct {
	sum     uint64
	touched func() // if set, told of every access
}

func (d *register) Read(addr uint64, p []byte) {
	d.mix(addr, uint64(len(p)))
	if d.touched != nil {
		d.touched()
	}
	for i := range p {
		p[i] = byte(d.sum >> (8 * (i & 7)))
	}
}

func (d *register) Write(addr uint64, p []byte) {
	d.mix(addr, uint64(len(p))|1<<8)
	if d.touched != nil {
		d.touched()
	}
	for _, b := range p {
		d.mix(0, uint64(b))
	}
}

func (d *register) mix(a, b uint64) { d.sum = (d.sum^a<<16^b)*0x9e3779b97f4a7c15 + 1 }

// pin is an interrupt controller: it asks take, if set, for a vector.
type pin struct {
	take func() (vector uint8, ok bool)
}

func (p *pin) Deliverable() bool { return false }

func (p *pin) Acknowledge() (uint8, bool) {
	if p.take == nil {
		return 0, false
	}
	return p.take()
}

func (*pin) ReadMSR(uint32) (uint64, bool) { return 0, false }
func (*pin) WriteMSR(uint32, uint64) bool  { return false }
func (*pin) TPR() uint8                    { return 0 }
func (*pin) SetTPR(uint8)                  {}
func (*pin) TSCChanged()                   {}

// Run is Engine's.
func (s *Soft) Run(image []byte, cases []Case, results []Result) error {
	var code [codeSize]byte
	layCode(code[:], cases)
	if err := s.mem.Write(gpaCode, code[:]); err != nil {
		return err
	}
	for i := range cases {
		if err := s.mem.Write(gpaSandbox, image); err != nil {
			return err
		}
		if err := s.run(i, &cases[i], &results[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Soft) run(i int, c *Case, r *Result) error {
	st := startState(startRIP(i, c.Mode), c.Mode, &c.State)
	if s.level == x86.LevelV3 {
		st.XCR0 = 7
	}
	if err := s.cpu.SetState(st); err != nil {
		return err
	}
	s.io.hit = false
	exit := s.cpu.Run()
	s.cpu.GetState(st)
	*r = Result{Vector: s.io.vector}
	if !s.io.hit {
		r.Stop = exit.Detail
		if exit.Reason == interp.Shutdown {
			r.Stop = "triple fault"
		}
		return nil
	}
	if err := s.collect(st, c.Mode, r); err != nil {
		return err
	}
	return s.mem.Read(gpaSandbox, r.Memory[:])
}

// collect takes the interrupted state from the exception frame.
func (s *Soft) collect(st *x86.State, m decode.Mode, r *Result) error {
	le := binary.LittleEndian
	r.State.GPR = st.GPR
	r.State.FSBase, r.State.GSBase = st.Seg[x86.FS].Base, st.Seg[x86.GS].Base
	r.State.setFPU(&st.FPU)
	frame := st.GPR[x86.RSP] - monitorBase
	var p [48]byte
	if err := s.mem.Read(frame, p[:min(48, stackTop-frame)]); err != nil {
		return err
	}
	f := p[:]
	if stackTop-frame == 48 {
		r.Error = le.Uint64(f)
		f = f[8:]
	}
	r.State.RIP, r.State.RFLAGS, r.State.GPR[x86.RSP] = le.Uint64(f), le.Uint64(f[16:]), le.Uint64(f[24:])
	if r.Vector == x86.PF {
		r.CR2 = st.CR2
	}
	if cs, _ := selectors(m); le.Uint16(f[8:]) != cs {
		r.Stop = "CS changed"
	}
	return nil
}

// startState is the x86.State that a case at rip starts in.
func startState(rip uint64, m decode.Mode, s *State) *x86.State {
	cs, ss := selectors(m)
	codeSegBase, dataBase := bases(m)
	const user = x86.AttrP | x86.AttrS | x86.AttrAccessed | x86.AttrRW | 3<<5
	flat := x86.Segment{Selector: ss, Limit: 0xffffffff, Attr: user | x86.AttrDB | x86.AttrG}
	code := x86.Segment{Selector: cs, Limit: 0xffffffff, Attr: user | x86.AttrCode | x86.AttrG}
	switch m {
	case decode.Mode64:
		code.Attr |= x86.AttrL
	case decode.Mode32:
		code.Attr |= x86.AttrDB
	case decode.Mode16:
		code = x86.Segment{Selector: cs, Base: codeSegBase, Limit: 0xffff, Attr: user | x86.AttrCode}
		flat = x86.Segment{Selector: ss, Base: dataBase, Limit: sandboxSize - 1, Attr: user}
	}
	null := x86.Segment{Attr: x86.AttrUnusable}
	st := &x86.State{
		Version: 1, GPR: s.GPR, RIP: rip, RFLAGS: s.RFLAGS,
		CR0: x86.CR0PE | x86.CR0MP | x86.CR0ET | x86.CR0NE | x86.CR0WP | x86.CR0AM | x86.CR0PG,
		CR3: gpaPML4, CR4: x86.CR4PAE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4OSXSAVE | x86.CR4FSGSBASE,
		EFER: x86.EFERLME | x86.EFERLMA | x86.EFERNXE | x86.EFERSCE,
		XCR0: 3, FPU: s.fpu(), MP: x86.MPRunnable,
		GDT: x86.Table{Base: monitorBase + gpaGDT, Limit: 0x7f},
		IDT: x86.Table{Base: monitorBase + gpaIDT, Limit: 32*16 - 1},
	}
	st.DR[6], st.DR[7] = 0xffff0ff0, 0x400
	st.Seg = [8]x86.Segment{flat, code, flat, flat, null, null, null, null}
	st.Seg[x86.FS].Base, st.Seg[x86.GS].Base = s.FSBase, s.GSBase
	st.Seg[x86.TR] = x86.Segment{Selector: 0x40, Base: monitorBase + gpaTSS, Limit: 0x67, Attr: x86.AttrP | 0xb}
	return st
}
