//go:build amd64

package hostcpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// TestInterrupts interrupts sequences, translated and interpreted: when a device says so
// in the middle of an access, or another thread at any time. The device
// writes into their code then. Interpreted one by one, with the interrupts at those
// same instructions, they must come out alike.
func TestInterrupts(t *testing.T) {
	p, rows := newSeqTrio(t), newSeqRows()
	bad, taken := 0, 0
	n := (*caseCount + 99) / 100
	first := *firstCase
	for i := first; i < first+n; i++ {
		if (i-first)%seqBatch == 0 {
			p.renew(t)
		}
		image := Image(*caseSeed<<32 + uint64(i/seqBatch))
		s := rows.sequence(*caseSeed, uint64(i), image, seqLong)
		r, diff := p.interrupted(t, image, s, uint64(i))
		taken += len(r.Interrupts)
		if diff == nil {
			continue
		}
		if bad++; bad <= 3 {
			small := shrink(s, func(s *Sequence) bool {
				for range 3 {
					if _, diff := p.interrupted(t, image, s, uint64(i)); diff != nil {
						return true
					}
				}
				return false
			})
			t.Errorf("sequence %d of seed %d (-hostcpu.seed=%d -hostcpu.first=%d -hostcpu.cases=1 -run TestInterrupts): %s\nwith interrupts at %+v\ncut down:\n%s", i, *caseSeed,
				*caseSeed, i, strings.Join(diff, "\n    "), r.Interrupts, small.Text())
			if _, diff := p.interrupted(t, image, small, uint64(i)); diff != nil {
				t.Logf("cut down it differs in %s", strings.Join(diff, "\n    "))
			}
		}
	}
	t.Logf("seed %d: %d sequences with %d interrupts, %d differ", *caseSeed, n, taken, bad)
}

// interrupted runs a sequence with interrupts, and again with the same ones.
func (p *seqTrio) interrupted(t *testing.T, image []byte, s *Sequence, n uint64) (*SeqResult, []string) {
	rng := rand.New(rand.NewPCG(n, 3))
	subject := p.transl
	if rng.IntN(5) == 0 {
		subject = p.interpret
	}
	r := newSeqResults(1)
	if rng.IntN(2) == 0 {
		subject.interruptAnyTime(rng)
	} else {
		subject.interruptByDevice(rng)
	}
	if err := subject.RunSequences(image, []*Sequence{s}, r.transl); err != nil {
		t.Fatal(err)
	}
	r.transl[0].Interrupts = slices.Clone(subject.taken)
	subject.uninterrupted()
	if r.transl[0].Hung {
		return &r.transl[0], nil
	}
	left := p.interpret.interruptAt(r.transl[0].Interrupts)
	err := p.interpret.RunSequences(image, []*Sequence{s}, r.interpret)
	p.interpret.uninterrupted()
	if err != nil {
		t.Fatal(err)
	}
	if len(*left) > 0 && !r.interpret[0].Hung {
		return &r.transl[0], []string{fmt.Sprintf("the interrupt at %+v was at no boundary", (*left)[0])}
	}
	return &r.transl[0], s.compareTiers(&r.interpret[0], &r.transl[0])
}

// interruptByDevice has the device interrupt in the middle of some accesses, and of
// the sequence's faults.
func (s *seqSoft) interruptByDevice(rng *rand.Rand) {
	s.taken = nil
	wanted := false
	s.dev.touched = func() {
		if rng.IntN(3) == 0 {
			wanted = true
			s.cpu.Interrupt()
		}
	}
	s.apic.take = func() (uint8, bool) {
		if !wanted || len(s.taken) > 20 {
			return 0, false
		}
		wanted = false
		s.taken = append(s.taken, s.now())
		return seqVector, true
	}
}

// interruptAnyTime has another thread interrupt.
func (s *seqSoft) interruptAnyTime(rng *rand.Rand) {
	s.taken = nil
	var wanted, stop atomic.Bool
	spins := rng.IntN(1 << (6 + rng.IntN(10)))
	done, ready := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		close(ready)
		for begun := s.runs.Load(); s.runs.Load() == begun && !stop.Load(); {
		}
		for range 6 {
			for i := 0; i < spins && !stop.Load(); i++ {
			}
			wanted.Store(true)
			s.cpu.Interrupt()
		}
	}()
	<-ready
	s.quiet = func() { stop.Store(true); <-done }
	s.apic.take = func() (uint8, bool) {
		if !wanted.Swap(false) {
			return 0, false
		}
		s.taken = append(s.taken, s.now())
		return seqVector, true
	}
}

// interruptAt has the vCPU run instruction by instruction, and interrupts come at
// these moments; left is those that have not come.
func (s *seqSoft) interruptAt(moments []seqMoment) (left *[]seqMoment) {
	left = &moments
	s.single = true
	s.apic.take = func() (uint8, bool) {
		if len(moments) == 0 {
			return 0, false
		}
		s.cpu.Interrupt()
		if s.now() != moments[0] {
			return 0, false
		}
		moments = moments[1:]
		return seqVector, true
	}
	return left
}

// uninterrupted undoes these.
func (s *seqSoft) uninterrupted() {
	if s.quiet != nil {
		s.quiet()
	}
	s.apic.take, s.dev.touched, s.quiet, s.single = nil, nil, nil, false
}
