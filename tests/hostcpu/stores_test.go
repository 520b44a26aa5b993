//go:build amd64

package hostcpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"berth/guestmem"
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/interp"
	"berth/x86/jit"
)

// TestStores has one vCPU change an instruction that another executes. The other sees
// each value whole, none after a later one, and the last once it knows that all are
// written and has executed a serialising instruction (Intel SDM vol. 3A §9.1.3).
func TestStores(t *testing.T) {
	n := (*caseCount + 199) / 200
	for _, translate := range []bool{false, jit.Available()} {
		p, err := newTwo(translate)
		if err != nil {
			t.Fatal(err)
		}
		bad := 0
		for i := *firstCase; i < *firstCase+n; i++ {
			s := modified(rand.New(rand.NewPCG(*caseSeed, uint64(i))))
			if err := p.run(s); err != nil {
				if bad++; bad <= 2 {
					t.Errorf("case %d of seed %d, translated %v: %v\n%s", i, *caseSeed, translate, err, s.Text())
				}
			}
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("seed %d: %d cases each way", *caseSeed, n)
}

// Labels of modified's.
const (
	labelReader = iota
	labelWriter
	labelCode
	labelBad
	labelLoop
	labelWrite
	labelDelay
)

// modified makes the two programs: the first chunk reads, the second writes.
func modified(r *rand.Rand) *Sequence {
	const flag = seqCounters
	s := &Sequence{Mode: decode.Mode64, Soft: true, Labels: make([]seqPlace, labelDelay+1)}
	first, count := r.Uint32()>>1, uint32(1+r.IntN(200))
	chunk := -1
	open := func(off, label int) {
		s.Chunks = append(s.Chunks, seqChunk{off: off})
		chunk++
		s.Labels[label] = seqPlace{chunk, 0}
	}
	bind := func(label int) { s.Labels[label] = seqPlace{chunk, len(s.Chunks[chunk].insts)} }
	add := func(in seqInst) { s.Chunks[chunk].insts = append(s.Chunks[chunk].insts, in) }
	emit := func(code ...byte) { add(seqInst{code: code}) }
	to := func(label int, code ...byte) {
		add(seqInst{code: append(code, 0, 0, 0, 0), ref: refRel4, lab: label})
	}
	some := func() {
		for range r.IntN(6) {
			emit(pickOf(r, [][]byte{{0x90}, {0x48, 0x01, 0xd6}, {0x48, 0x89, 0xf7}, {0x0f, 0x57, 0xc0}, {0x48, 0x0f, 0xaf, 0xfe}})...)
		}
	}

	open(0x100+r.IntN(64), labelReader)
	emit(movImm(x86.RBX, 0)...)
	bind(labelLoop)
	emit(movImm(x86.RSP, sandboxBase+0x1000)...)
	some()
	to(labelCode, 0xe8)
	emit(0x39, 0xd8) // cmp eax, ebx
	to(labelBad, 0x0f, 0x82)
	emit(0x89, 0xc3) // mov ebx, eax
	add(seqInst{code: []byte{0x83, 0x3d, 0, 0, 0, 0, 0}, ref: refData, tail: 1, to: flag})
	to(labelLoop, 0x0f, 0x84)
	emit(0x0f, 0xa2) // cpuid
	to(labelCode, 0xe8)
	emit(le32([]byte{0x3d}, first+count)...)
	to(labelBad, 0x0f, 0x85)
	emit(0xcc)
	bind(labelBad)
	emit(0x0f, 0x0b)

	open(0x3400, labelWriter)
	emit(movImm(x86.RAX, first)...)
	emit(movImm(x86.RCX, count)...)
	bind(labelWrite)
	emit(0xff, 0xc0) // inc eax
	emit(0x89, 0xc2) // mov edx, eax
	at := uint64(1)
	if r.IntN(2) == 0 {
		at -= codeBase - seqAlias
	}
	add(seqInst{code: append(pickOf(r, [][]byte{
		{0x89, 0x05}, {0x87, 0x15}, {0x0f, 0xc3, 0x05}, {0xf0, 0xff, 0x05}, {0x66, 0x0f, 0x6e, 0xc0, 0xf3, 0x0f, 0x11, 0x05},
	}), 0, 0, 0, 0), ref: refCode, lab: labelCode, to: at})
	emit(movImm(x86.RDX, uint32(1+r.IntN(1<<r.IntN(10))))...)
	bind(labelDelay)
	emit(0xff, 0xca)
	to(labelDelay, 0x0f, 0x85)
	emit(0xff, 0xc9)
	to(labelWrite, 0x0f, 0x85)
	add(seqInst{code: []byte{0xc7, 0x05, 0, 0, 0, 0, 1, 0, 0, 0}, ref: refData, tail: 4, to: flag})
	emit(0xcc)

	// The immediate is aligned: it is written as one.
	open(pickOf(r, []int{0x203, 0x283, 0xff3, 0x1003, 0x1100 - 1, 0x2ffb}), labelCode)
	emit(movImm(x86.RAX, first)[1:]...)
	some()
	emit(0xc3)
	return s
}

// two is a machine of two vCPUs.
type two struct {
	*seqSoft
	other *interp.CPU
	io2   ports
}

func newTwo(translate bool) (*two, error) {
	s := &seqSoft{Soft: &Soft{mem: guestmem.New(), level: x86.LevelV2}, stop: make(chan struct{})}
	p := &two{seqSoft: s}
	if _, err := s.mem.AddRAM(0, guestMemory); err != nil {
		return nil, err
	}
	group := &interp.Group{}
	cpu := func(id int, io *ports) (*interp.CPU, error) {
		c, err := interp.New(interp.Config{
			ID: id, CPUs: 2, Group: group, Memory: s.mem, Ports: io, MMIO: &register{}, APIC: &pin{}, TSC: func() uint64 { return 0 }, Translate: translate,
		})
		io.cpu = c
		return c, err
	}
	var err, err2 error
	s.cpu, err = cpu(0, &s.io)
	p.other, err2 = cpu(1, &p.io2)
	if err = errors.Join(err, err2); err != nil {
		return nil, err
	}
	s.mem.WatchCode(func(gpa uint64) { s.cpu.CodeWritten(gpa); p.other.CodeWritten(gpa) })
	const task = gpaTSS + 0x400 // the other's, with half the stack
	return p, errors.Join(s.tables(), s.seqTables(),
		s.mem.Write(task+0x24, binary.LittleEndian.AppendUint64(nil, monitorBase+stackTop-0x800)), s.mem.Write(gpaSeqOver, []byte{1}))
}

func (p *two) close() error { return errors.Join(p.other.Close(), p.seqSoft.Close()) }

// run runs both programs at once.
func (p *two) run(s *Sequence) error {
	var code [seqCodeSize]byte
	at, ok := s.Lay(code[:])
	if !ok {
		return errors.New("does not fit")
	}
	if err := errors.Join(p.put(gpaCode, code[:]), p.mem.Write(gpaSeqCounters, make([]byte, 8))); err != nil {
		return err
	}
	var wait sync.WaitGroup
	start := func(c *interp.CPU, io *ports, label int, tss uint64) error {
		st := startState(s.address(at, label), s.Mode, &State{RFLAGS: 0x202, GPR: [16]uint64{x86.RSP: sandboxBase + 0x1000}})
		st.FPU.FCW, st.FPU.MXCSR = 0x37f, 0x1f80
		st.Seg[x86.TR].Base = monitorBase + tss
		io.hit = false
		if err := c.SetState(st); err != nil {
			return err
		}
		wait.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c.Run()
		})
		return nil
	}
	timer := time.AfterFunc(10*time.Second, func() { p.cpu.Kick(); p.other.Kick() })
	err := errors.Join(start(p.cpu, &p.io, labelReader, gpaTSS), start(p.other, &p.io2, labelWriter, gpaTSS+0x400))
	wait.Wait()
	timer.Stop()
	if err == nil && (!p.io.hit || !p.io2.hit || p.io.vector != x86.BP || p.io2.vector != x86.BP) {
		err = fmt.Errorf("the reader ended %v with %d, the writer %v with %d", p.io.hit, p.io.vector, p.io2.hit, p.io2.vector)
	}
	return err
}
