package hostcpu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/interp"
)

// SeqResult is how a sequence ended.
type SeqResult struct {
	Result                  // Memory is not used
	Faults       []seqFault // that it went on after
	Memory       [seqMemory]byte
	Instructions uint64 // retired, of the soft engine's
	FPU          x86.FPU
	Hung         bool
	Device       uint64 // what the device has seen
	Interrupts   []seqMoment
	Table        [0x1000]byte // of the data's pages
}

// seqFault is an exception that a sequence went on after.
type seqFault struct {
	Vector uint8
	Error  uint64
	RIP    uint64
	CR2    uint64 // of a #PF
	CS     uint16 // of the soft engine's
}

// seqEngine runs sequences.
type seqEngine interface {
	RunSequences(image []byte, all []*Sequence, results []SeqResult) error
	Close() error
}

// seqSoft runs sequences in the soft engine. Every exception goes to a handler on a
// stack of its own, which tells of it by a port and returns.
type seqSoft struct {
	*Soft
	fixes     []uint64
	faults    []seqFault
	err       error
	runs      atomic.Uint64 // sequences begun
	kicked    atomic.Uint64 // which of them was kicked
	stop      chan struct{}
	start     uint64 // of cpu.Instructions
	q         *Sequence
	at        [][]uint64
	writes    uint64      // of the device into code
	taken     []seqMoment // interrupts
	quiet     func()      // ends the thread that interrupts
	table     []byte      // of the data's pages, as a sequence finds it
	hostTable []byte      // likewise, without what the host does not have
	single    bool        // a breakpoint nowhere has instructions run one by one
	mu        sync.Mutex  // held while the vCPU is kicked or closed
}

const (
	gpaSeqStubs    = gpaStubs       // 32 bytes each
	gpaSeqOver     = gpaTSS + 0x800 // not 0: the case is over
	gpaSeqDevice   = guestMemory
	seqVector      = 32 // of interrupts
	gpaSeqCounters = gpaSandbox + 0x8000
)

// seqEndless is how many instructions are taken for an endless sequence; watchTick how
// often that is looked at.
const (
	seqEndless = 1 << 20
	watchTick  = 50 * time.Millisecond
)

// newSeqSoft makes the machine.
func newSeqSoft(translate, lazy bool, level x86.Level) (*seqSoft, error) {
	soft, err := newSoft(translate, lazy, level)
	if err != nil {
		return nil, err
	}
	s := &seqSoft{Soft: soft, stop: make(chan struct{})}
	s.io.goesOn = s.goesOn
	if err := s.seqTables(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close is seqEngine's.
func (s *seqSoft) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.stop)
	return s.Soft.Close()
}

// seqTables has the sandbox's third page read only and the code writable, and writes the handlers.
func (s *seqSoft) seqTables() error {
	put := func(gpa, v uint64) {
		s.err = firstError(s.err, s.mem.Write(gpa, binary.LittleEndian.AppendUint64(nil, v)))
	}
	const user = uint64(pteUser)
	put(gpaDataPT+8*2, (gpaSandbox+2<<12)|user|pteNX)
	for i := uint64(0); i < codeSize>>12; i++ {
		v := gpaCode + i<<12 | user | pteWrite
		if i >= seqCodeSize>>12 {
			v = 0
		}
		put(gpaCodePT+8*i, v)
	}
	put(gpaDataPT+(seqCounters-sandboxBase)>>12*8, gpaSeqCounters|user|pteWrite|pteNX)
	put(gpaDataPT+(seqDevice-sandboxBase)>>12*8, gpaSeqDevice|user|pteWrite|pteNX)
	for i := uint64(0); i < seqCodeSize>>12; i++ {
		put(gpaDataPT+(seqAlias-sandboxBase)>>12*8+8*i, gpaCode+i<<12|user|pteWrite|pteNX)
	}
	put(gpaTSS+0x24, monitorBase+stackTop) // IST1
	for v := uint64(0); v <= seqVector; v++ {
		at := monitorBase + gpaSeqStubs + 32*v
		dpl := uint64(0)
		if v == x86.BP || v == x86.OF {
			dpl = 3
		}
		put(gpaIDT+16*v, at&0xffff|0x10<<16|1<<32|(0x8e|dpl<<5)<<40|at>>16&0xffff<<48)
		put(gpaIDT+16*v+8, at>>32)
		s.err = firstError(s.err, s.mem.Write(gpaSeqStubs+32*v, stub(v)))
	}
	s.table = make([]byte, 0x1000)
	s.err = firstError(s.err, s.mem.Write(gpaSeqSyscall, []byte{0xff, 0xe1}), s.mem.Read(gpaDataPT, s.table)) // jmp rcx
	s.hostTable = bytes.Clone(s.table)
	clear(s.hostTable[(seqDevice-sandboxBase)>>12*8:])
	return s.err
}

func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// stub is the handler of an exception: out v, al; jmp; then, until the case is over,
// cmp byte [over], 0; jne; and the way back.
func stub(v uint64) []byte {
	p := []byte{0xe6, byte(v), 0xeb, 0, 0x80, 0x3d, 0, 0, 0, 0, 0, 0x75, 0xf7}
	binary.LittleEndian.PutUint32(p[6:], uint32(gpaSeqOver-(gpaSeqStubs+32*int(v)+11)))
	if hasError(uint8(v)) {
		p = append(p, 0x48, 0x83, 0xc4, 8)
	}
	return append(p, 0x48, 0xcf)
}

func hasError(v uint8) bool {
	return v == x86.DF || v >= x86.TS && v <= x86.PF || v == x86.AC
}

// goesOn hears of an exception and has the sequence go on, if there is a place for it.
func (s *seqSoft) goesOn(v uint8) bool {
	var p [48]byte
	if s.dev.touched != nil {
		s.dev.touched()
	}
	if v == seqVector {
		s.device()
		return true
	}
	if err := s.mem.Read(stackTop-48, p[:]); err != nil {
		s.err = err
		return false
	}
	le := binary.LittleEndian
	f := seqFault{Vector: v, RIP: le.Uint64(p[8:]), CS: le.Uint16(p[16:])}
	if hasError(v) {
		f.Error = le.Uint64(p[:])
	}
	if v == x86.PF {
		f.CR2 = s.cpu.CR2
	}
	if n := len(s.faults); v != x86.BP && n < len(s.fixes) {
		s.faults = append(s.faults, f)
		le.PutUint64(p[8:], s.fixes[n])
		s.err = firstError(s.err, s.mem.Write(stackTop-40, p[8:16]))
		return true
	}
	s.err = firstError(s.err, s.mem.Write(gpaSeqOver, []byte{1}))
	return false
}

// put writes p where it is not there yet.
func (s *seqSoft) put(gpa uint64, p []byte) error {
	old, err := s.mem.Slice(gpa, uint64(len(p)))
	if err != nil {
		return err
	}
	const page = 0x1000
	for i := 0; i < len(p); i += page {
		if !bytes.Equal(old[i:i+page], p[i:i+page]) {
			copy(old[i:], p[i:i+page])
			s.mem.MarkWritten(gpa+uint64(i), page)
		}
	}
	return nil
}

// RunSequences is seqEngine's.
func (s *seqSoft) RunSequences(image []byte, all []*Sequence, results []SeqResult) error {
	for i, q := range all {
		if err := s.runSequence(q, image, &results[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *seqSoft) runSequence(q *Sequence, image []byte, r *SeqResult) error {
	s.runs.Add(1)
	var zero [128]byte
	if err := firstError(s.mem.Write(gpaSeqOver, zero[:1]), s.mem.Write(gpaSeqCounters, zero[:])); err != nil {
		return err
	}
	var code [seqCodeSize]byte
	at, ok := q.Lay(code[:])
	if !ok {
		*r = SeqResult{Hung: true}
		return nil
	}
	table := s.table
	if !q.Soft {
		table = s.hostTable
	}
	if err := firstError(s.put(gpaCode, code[:]), s.put(gpaSandbox, image), s.put(gpaSandbox+sandboxSize, make([]byte, 0x1000)),
		s.put(gpaDataPT, table)); err != nil {
		return err
	}
	st := startState(q.State.RIP, q.Mode, &q.State)
	if s.level == x86.LevelV3 {
		st.XCR0 = 7
	}
	s.fixes, s.faults, s.err = s.fixes[:0], s.faults[:0], nil
	s.dev.sum, s.q, s.at, s.writes = 0, q, at, 0
	st.IDT.Limit = (seqVector+1)*16 - 1
	for _, l := range q.Fixes {
		s.fixes = append(s.fixes, q.address(at, l))
	}
	st.MSRs = kernelMSRs
	if q.Kernel {
		enterKernel(st)
	}
	if s.single {
		st.DR[0], st.DR[7] = 1<<46, 0x401
	}
	if err := s.cpu.SetState(st); err != nil {
		return err
	}
	s.start = s.cpu.Instructions
	s.io.hit = false
	exit := s.cpu.Run()
	if exit.Reason == interp.Kicked && !s.io.hit && s.kicked.Load() != s.runs.Load() {
		return s.runSequence(q, image, r) // the kick was for the one before
	}
	s.cpu.GetState(st)
	*r = SeqResult{Result: Result{Vector: s.io.vector}, Faults: append([]seqFault(nil), s.faults...), FPU: st.FPU, Device: s.dev.sum}
	r.Instructions = s.cpu.Instructions - s.start
	switch {
	case s.err != nil:
		return s.err
	case exit.Reason == interp.Shutdown:
		r.Stop = "triple fault"
		return nil
	case exit.Reason == interp.Internal:
		r.Stop = exit.Detail
		return nil
	case !s.io.hit:
		r.Hung = true
		return nil
	}
	if err := s.settle(st, q.Mode, r); err != nil {
		return err
	}
	if q.Kernel {
		r.Stop = ""
	}
	if err := s.mem.Read(gpaDataPT, r.Table[:]); err != nil {
		return err
	}
	if err := s.mem.Read(gpaSandbox, r.Memory[:sandboxSize]); err != nil {
		return err
	}
	return s.mem.Read(gpaCode, r.Memory[sandboxSize:])
}

// settle takes the state from the frame, and leaves the handler's instructions out.
func (s *seqSoft) settle(st *x86.State, m decode.Mode, r *SeqResult) error {
	switch st.RIP - (monitorBase + gpaSeqStubs + 32*uint64(r.Vector)) {
	case 2:
		r.Instructions--
	case 4:
		r.Instructions -= 2
	default:
		return fmt.Errorf("hostcpu: the handler was left at %#x", st.RIP)
	}
	return s.collect(st, m, &r.Result)
}

// seqMoment is a boundary between instructions: how many have retired, and, within a
// repeated one, how far that is.
type seqMoment struct{ Instructions, RIP, RCX uint64 }

func (s *seqSoft) now() seqMoment {
	return seqMoment{s.cpu.Instructions - s.start, s.cpu.RIP, s.cpu.R[x86.RCX]}
}

// device writes into the code, as DMA does, at an interrupt.
func (s *seqSoft) device() {
	s.writes++
	n := s.writes * 0x9e3779b97f4a7c15
	if len(s.q.Victims) == 0 || n>>60 < 4 {
		return
	}
	v := s.q.Victims[n>>32%uint64(len(s.q.Victims))]
	at := s.q.address(s.at, v.label) + uint64(v.off) - codeBase + gpaCode
	s.err = firstError(s.err, s.mem.Write(at, binary.LittleEndian.AppendUint32(nil, uint32(n))))
}
