//go:build amd64

package hostcpu

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/jit"
	"berth/x86/optab"
)

var firstCase = flag.Int("hostcpu.first", 0, "number of the first sequence")

// seqTrio is the three ways that a sequence runs.
type seqTrio struct {
	host              seqEngine
	interpret, transl *seqSoft
	lazy              bool // blocks are translated the second time they are met
}

// newSeqTrio starts the engines; without the host where that is no oracle.
func newSeqTrio(t testing.TB) *seqTrio {
	t.Helper()
	needOracle(t)
	if !jit.Available() {
		t.Skip("nothing is translated on this host")
	}
	p := &seqTrio{}
	host, err := newSeqHost()
	if err != nil {
		t.Fatal(err)
	}
	p.host = host
	t.Cleanup(func() { p.host.Close(); p.closeSoft() })
	p.renew(t)
	return p
}

// renew makes the soft engines anew: nothing of earlier sequences is left in them.
func (p *seqTrio) renew(t testing.TB) {
	t.Helper()
	p.closeSoft()
	for translate, s := range map[bool]**seqSoft{false: &p.interpret, true: &p.transl} {
		var err error
		if *s, err = newSeqSoft(translate, p.lazy, hostLevel()); err != nil {
			t.Fatal(err)
		}
		go (*s).watch()
	}
}

func (p *seqTrio) closeSoft() {
	for _, s := range []*seqSoft{p.interpret, p.transl} {
		if s != nil {
			s.Close()
		}
	}
}

// watch kicks the vCPU out of a sequence that does not end: one of seqEndless
// instructions, or that makes no progress at all.
func (s *seqSoft) watch() {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	var last, start, idle uint64
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		select {
		case <-s.stop:
			s.mu.Unlock()
			return
		default:
		}
		n, runs := atomic.LoadUint64(&s.cpu.Instructions), s.runs.Load()
		switch {
		case runs != last:
			last, start, idle = runs, n, 0
		case n-start > seqEndless, idle > uint64(10*time.Second/watchTick):
			s.kicked.Store(runs)
			s.cpu.Kick()
		default:
			idle++
		}
		s.mu.Unlock()
	}
}

// seqResults is what the three made of the same sequences.
type seqResults struct{ host, interpret, transl []SeqResult }

func newSeqResults(n int) seqResults {
	return seqResults{make([]SeqResult, n), make([]SeqResult, n), make([]SeqResult, n)}
}

func (p *seqTrio) run(t testing.TB, image []byte, all []*Sequence, r seqResults) {
	t.Helper()
	if err := p.interpret.RunSequences(image, all, r.interpret); err != nil {
		t.Fatal(err)
	}
	if err := p.transl.RunSequences(image, all, r.transl); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		r.host[i] = SeqResult{Hung: r.interpret[i].Hung} // that would not end there either
	}
	if err := p.host.RunSequences(image, all, r.host); err != nil {
		t.Fatal(err)
	}
}

// compare lists how the results of a sequence differ.
func (s *Sequence) compare(r seqResults, i int) (diff []string) {
	host, interpret, transl := &r.host[i], &r.interpret[i], &r.transl[i]
	if interpret.Hung || transl.Hung {
		if interpret.Hung != transl.Hung && min(interpret.Instructions, transl.Instructions) < seqEndless/2 {
			return []string{fmt.Sprintf("does not end: interpreted %v, translated %v", interpret.Hung, transl.Hung)}
		}
		return nil
	}
	for _, d := range s.compareTiers(interpret, transl) {
		diff = append(diff, "translated: "+d)
	}
	if !s.Soft {
		for _, d := range s.compareHost(host, interpret) {
			diff = append(diff, "interpreted: "+d)
		}
	}
	return diff
}

// compareTiers compares everything but flags that are not defined.
func (s *Sequence) compareTiers(want, got *SeqResult) []string {
	d := differ{c: &Case{Mode: s.Mode}, last: &decode.Inst{Row: &optab.Row{}}}
	if want.Stop != got.Stop {
		return []string{fmt.Sprintf("stopped: want %q, got %q", want.Stop, got.Stop)}
	}
	d.check("instructions", want.Instructions, got.Instructions)
	d.check("device", want.Device, got.Device)
	s.compareFaults(&d, want, got, func(w, g *seqFault) { d.same(w, g) })
	s.compareStates(&d, want, got)
	for i := range want.Table {
		if want.Table[i] != got.Table[i] {
			d.check(fmt.Sprintf("page table's byte %#x", i), uint64(want.Table[i]), uint64(got.Table[i]))
			break
		}
	}
	if want.FPU != got.FPU && len(d.out) == 0 {
		a, b := want.FPU, got.FPU
		d.out = append(d.out, fmt.Sprintf("x87: want fop %x fip %x fdp %x, got fop %x fip %x fdp %x", a.FOP, a.FIP, a.FDP, b.FOP, b.FIP, b.FDP))
	}
	return d.out
}

func (d *differ) same(w, g *seqFault) {
	if *w != *g {
		d.out = append(d.out, fmt.Sprintf("fault: want %+x, got %+x", *w, *g))
	}
}

// compareFaults compares the exceptions, the last included.
func (s *Sequence) compareFaults(d *differ, want, got *SeqResult, same func(w, g *seqFault)) {
	all := func(r *SeqResult) []seqFault {
		last := seqFault{Vector: r.Vector, Error: r.Error, RIP: r.State.RIP, CR2: r.CR2}
		return append(slices.Clip(r.Faults), last)
	}
	w, g := all(want), all(got)
	for i := range min(len(w), len(g)) {
		n := len(d.out)
		if same(&w[i], &g[i]); len(d.out) > n {
			d.out[n] = fmt.Sprintf("exception %d: %s", i+1, d.out[n])
			return
		}
	}
	d.check("exceptions", uint64(len(w)), uint64(len(g)))
}

// compareStates compares registers and memory.
func (s *Sequence) compareStates(d *differ, want, got *SeqResult) {
	var code [seqCodeSize]byte
	at, _ := s.Lay(code[:])
	undef := s.undefinedAt(at, want.State.RIP)
	if want.Vector == x86.BP {
		undef |= s.undefinedAt(at, want.State.RIP-1)
	}
	want.State.RFLAGS |= undef
	got.State.RFLAGS |= undef
	d.registers(&want.Result, &got.Result)
	d.fx(&want.Result, &got.Result)
	if !bytes.Equal(want.Memory[:], got.Memory[:]) {
		for i := range want.Memory {
			if want.Memory[i] != got.Memory[i] {
				a := uint64(sandboxBase + i)
				if i >= sandboxSize {
					a = uint64(codeBase + i - sandboxSize)
				}
				end := min(i+16, len(want.Memory))
				d.out = append(d.out, fmt.Sprintf("memory at %#x: want % x, got % x", a, want.Memory[i:end], got.Memory[i:end]))
				break
			}
		}
	}
}

// at is the instruction at rip as memory has it in the end.
func (r *SeqResult) at(rip uint64, m decode.Mode) (in decode.Inst, ok bool) {
	if rip-codeBase >= seqCodeSize {
		return in, false
	}
	return in, decode.Decode(r.Memory[sandboxSize+rip-codeBase:], m, &in) == nil
}

// strays reports a fault in the middle of an instruction: a return address was changed.
func (s *Sequence) strays(at [][]uint64, f *seqFault) bool {
	for c := range at {
		end := at[c][len(at[c])-1]
		if f.RIP > at[c][0] && f.RIP < end && f.Vector != x86.BP && !slices.Contains(at[c], f.RIP) {
			return true
		}
	}
	return false
}

// compareHost compares with the host, by the rules of Compare.
func (s *Sequence) compareHost(want, got *SeqResult) []string {
	d := differ{c: &Case{Mode: s.Mode}, last: &decode.Inst{Row: &optab.Row{}}}
	unclear := false
	var code [seqCodeSize]byte
	at, _ := s.Lay(code[:])
	s.compareFaults(&d, want, got, func(w, g *seqFault) {
		d.insts = nil
		if in, ok := want.at(w.RIP, s.Mode); ok {
			d.insts = []decode.Inst{in}
			unclear = unclear || intelUnclear(&in, w.Vector) || d.entersMMXEarly() || d.has(piecemeal) || w.Vector == x86.XM && d.has(fused) || isCMPS(&in)
		}
		unclear = unclear || s.strays(at, w)
		a, b := Result{Vector: w.Vector, Error: w.Error, CR2: w.CR2}, Result{Vector: g.Vector, Error: g.Error, CR2: g.CR2}
		if in, ok := got.at(g.RIP, s.Mode); ok && intelHost() && storesX87(&in) && memoryFault(g.Vector) && *w != *g {
			unclear = true // see storeStopped
		}
		d.exception(&a, &b)
		d.check("rip", w.RIP, g.RIP)
	})
	if unclear {
		return nil
	}
	d.insts = nil
	s.compareStates(&d, want, got)
	return d.out
}

// sequences makes some of a seed's.
func (g *seqRows) sequences(seed uint64, first, n int) (image []byte, all []*Sequence) {
	image = Image(seed<<32 + uint64(first/seqBatch))
	for i := range n {
		all = append(all, g.sequence(seed, uint64(first+i), image, seqPlain))
	}
	return image, all
}

// TestSequences compares random sequences on the host, interpreted and translated.
func TestSequences(t *testing.T) {
	p, rows, bad := newSeqTrio(t), newSeqRows(), 0
	first := *firstCase &^ (seqBatch - 1)
	r := newSeqResults(seqBatch)
	hung, faults, retired := 0, 0, uint64(0)
	vectors := map[uint8]int{}
	for n := first; n < *firstCase+*caseCount; n += seqBatch {
		image, all := rows.sequences(*caseSeed, n, seqBatch)
		p.lazy = n/seqBatch%4 == 3
		p.renew(t)
		p.run(t, image, all, r)
		for i, s := range all {
			hung += b2i(r.interpret[i].Hung)
			if r.interpret[i].Hung {
				t.Logf("sequence %d does not end", n+i)
			}
			faults += len(r.interpret[i].Faults)
			retired += r.interpret[i].Instructions
			vectors[r.interpret[i].Vector]++
			if diff := s.compare(r, i); diff != nil && n+i >= *firstCase {
				if bad++; bad <= 5 {
					p.report(t, image, all[:i+1], n+i, diff)
				}
			}
		}
	}
	t.Logf("seed %d: sequences %d to %d, %d differ; %d did not end, %d faults passed, %d instructions, ends %v", *caseSeed, first, *firstCase+*caseCount-1, bad,
		hung, faults, retired, vectors)
}

// report cuts a sequence down that differs when run after others, and prints it.
func (p *seqTrio) report(t *testing.T, image []byte, all []*Sequence, number int, diff []string) {
	differs := func(all []*Sequence) []string {
		r := newSeqResults(len(all))
		p.renew(t)
		p.run(t, image, all, r)
		return all[len(all)-1].compare(r, len(all)-1)
	}
	all = slices.Clone(all)
	if d := differs(all); d == nil {
		t.Errorf("sequence %d of seed %d differed once: %s\n%s", number, *caseSeed, strings.Join(diff, "; "), all[len(all)-1].Text())
		return
	}
	for k := len(all); k > 1; k /= 2 { // which of those before it matter
		for i := len(all) - 1 - k; i >= 0; i-- {
			if i+k < len(all) {
				if less := slices.Delete(slices.Clone(all), i, i+k); differs(less) != nil {
					all = less
				}
			}
		}
	}
	for i := range all {
		all[i] = shrink(all[i], func(s *Sequence) bool {
			try := slices.Clone(all)
			try[i] = s
			return differs(try) != nil
		})
	}
	diff = differs(all)
	var b strings.Builder
	for _, s := range all {
		b.WriteString(s.Text())
	}
	t.Errorf("sequence %d of seed %d (-hostcpu.seed=%d -hostcpu.first=%d -hostcpu.cases=1 -run TestSequences), cut down:\n%s    %s", number, *caseSeed,
		*caseSeed, number, b.String(), strings.Join(diff, "\n    "))
}

// shrink drops instructions and simplifies registers while a difference remains.
func shrink(s *Sequence, differs func(*Sequence) bool) *Sequence {
	for again := true; again; {
		again = false
		for c := range s.Chunks {
			for i := len(s.Chunks[c].insts) - 1; i >= 0; i-- {
				if len(s.Chunks[c].insts[i].code) == 0 {
					continue
				}
				if less := s.without(c, i); less.define() && differs(less) {
					s, again = less, true
				}
			}
		}
	}
	for len(s.Fixes) > 0 {
		less := s.clone()
		less.Fixes = less.Fixes[:len(less.Fixes)-1]
		if !differs(less) {
			break
		}
		s = less
	}
	for i := range s.State.GPR {
		for _, v := range []uint64{0, 1, s.State.GPR[i] & 0xff, s.State.GPR[i] & 0xffffffff} {
			less := s.clone()
			if less.State.GPR[i] = v; v != s.State.GPR[i] && differs(less) {
				s = less
				break
			}
		}
	}
	return s
}
