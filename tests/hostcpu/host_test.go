//go:build amd64

package hostcpu

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/jit"
	"berth/x86/optab"
)

var (
	caseCount = flag.Int("hostcpu.cases", 100_000, "random cases to compare")
	caseSeed  = flag.Uint64("hostcpu.seed", 1, "seed of the random cases")
	saveFile  = flag.String("hostcpu.save", "", "append cases that differ to this file")
	onlyOp    = flag.String("hostcpu.op", "", "only rows whose operation matches this regular expression")
)

// pair is the host and what is compared with it.
type pair struct {
	want Engine
	got  []named
}

type named struct {
	name string
	Engine
}

// results is what the engines of a pair made of the same cases.
type results struct {
	want []Result
	got  [][]Result
}

func (p pair) results(n int) results {
	r := results{want: make([]Result, n)}
	for range p.got {
		r.got = append(r.got, make([]Result, n))
	}
	return r
}

// compare lists how the engines' results of the i-th case differ from the host's.
func (p pair) compare(c *Case, i int, r results) (diff []string) {
	for e := range p.got {
		for _, d := range Compare(c, &r.want[i], &r.got[e][i]) {
			diff = append(diff, p.got[e].name+": "+d)
		}
		if d := pointers(&r.got[0][i], &r.got[e][i]); d != "" {
			diff = append(diff, p.got[e].name+": "+d)
		}
	}
	return diff
}

// pointers compares FOP, FIP and FDP, in which the soft engine's tiers agree whatever
// the host does.
func pointers(want, got *Result) string {
	w, g := want.State.fpu(), got.State.fpu()
	if w.FOP == g.FOP && w.FIP == g.FIP && w.FDP == g.FDP {
		return ""
	}
	return fmt.Sprintf("fop, fip, fdp: %x %x %x interpreted, got %x %x %x", w.FOP, w.FIP, w.FDP, g.FOP, g.FIP, g.FDP)
}

// needOracle skips a test where the host's answers are not its processor's. A
// paravirtual kernel is told by its running no compatibility mode: a program there
// is killed, or faults at once. It also loses FS and GS bases, and raises faults of
// its own, when it interrupts 64-bit code.
func needOracle(t testing.TB) {
	t.Helper()
	h, err := NewHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	cases := []Case{{Mode: decode.Mode32, Code: []byte{0x01, 0xc0}}}
	cases[0].State.FX[0], cases[0].State.FX[24], cases[0].State.FX[25] = 0x7f, 0x80, 0x1f
	r := make([]Result, 1)
	if err := h.Run(make([]byte, sandboxSize), cases, r); err != nil || r[0].Stop != "" {
		t.Skip("this host's kernel is paravirtual and runs no 32-bit code: it is no oracle")
	}
}

// hostLevel is the highest CPU model that the soft engine offers here.
func hostLevel() x86.Level {
	if jit.AVX() {
		return x86.LevelV3
	}
	return x86.LevelV2
}

func newPair(t testing.TB, soft bool) pair {
	t.Helper()
	return newPairOf(t, soft, hostLevel())
}

func newPairOf(t testing.TB, soft bool, level x86.Level) pair {
	t.Helper()
	needOracle(t)
	host, err := NewHost()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	p := pair{want: host}
	add := func(name string, e Engine, err error) {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		p.got = append(p.got, named{name, e})
	}
	if soft {
		e, err := NewSoft(false, level)
		add("interpreted", e, err)
		if jit.Available() {
			e, err := NewSoft(true, level)
			add("translated", e, err)
		}
	} else {
		e, err := NewHost()
		add("host", e, err)
	}
	return p
}

// run runs a batch on all at once.
func (p pair) run(t testing.TB, image []byte, cases []Case, r results) {
	t.Helper()
	p.runBoth(t, image, cases, cases, r)
}

// runBoth is run where the host has cases of its own.
func (p pair) runBoth(t testing.TB, image []byte, onHost, cases []Case, r results) {
	t.Helper()
	done := make(chan error)
	go func() { done <- p.want.Run(image, onHost, r.want) }()
	var err error
	for e := range p.got {
		err = errors.Join(err, p.got[e].Run(image, cases, r.got[e]))
	}
	if hostErr := <-done; hostErr != nil || err != nil {
		t.Fatalf("%v; %v", hostErr, err)
	}
}

// coverage counts rows.
type coverage map[rowKey]int

type rowKey struct {
	op        optab.Op
	m         optab.Map
	opcode    uint8
	prefix    optab.Prefix
	digit, rm int8
	mod       optab.Mod
	flags     optab.Flags
}

func keyOf(r *optab.Row) rowKey {
	return rowKey{r.Op, r.Map, r.Opcode, r.Prefix, r.Digit, r.RM, r.Mod, r.Flags}
}

func (c coverage) add(cs *Case) {
	for _, in := range cs.Decode() {
		c[keyOf(in.Row)]++
	}
}

// report lists rows that no case had, by reason.
func (c coverage) report(t testing.TB) (covered, total int) {
	missing := map[string][]string{}
	for _, r := range optab.Rows() {
		total++
		if c[keyOf(&r)] > 0 {
			covered++
			continue
		}
		reason := Skipped(&r)
		if reason == "" {
			reason = "MISSED"
		}
		missing[reason] = append(missing[reason], fmt.Sprintf("%v(%x)", r.Op, r.Opcode))
	}
	for reason, rows := range missing {
		t.Logf("not covered: %s: %s", reason, strings.Join(rows, " "))
	}
	return covered, total
}

func generator(seed uint64) *Generator {
	match := regexp.MustCompile(*onlyOp)
	return NewGenerator(seed, func(r *optab.Row) bool {
		return Skipped(r) != "" || !match.MatchString(r.Op.String())
	})
}

// check runs a regression and returns the host's result and the differences.
func (p pair) check(t testing.TB, r *Regression) (*Result, []string) {
	t.Helper()
	cases := r.Batch()
	all := p.results(len(cases))
	p.run(t, Image(r.ImageSeed), cases, all)
	return &all.want[r.Slot], p.compare(&r.Case, r.Slot, all)
}

// minimise drops instructions as long as a difference remains.
func (p pair) minimise(t testing.TB, r *Regression) *Regression {
	for i := 0; ; i++ {
		less := r.Without(i)
		if less == nil || i >= len(r.Case.Decode()) {
			return r
		}
		if _, diff := p.check(t, less); diff != nil {
			return p.minimise(t, less)
		}
	}
}

// report prints a difference, minimised, and saves it if asked to.
func (p pair) report(t testing.TB, r *Regression) {
	r = p.minimise(t, r)
	want, diff := p.check(t, r)
	insts := r.Case.Decode()
	r.Name = fmt.Sprintf("%v_%x", insts[len(insts)-1].Op, r.Case.Code)
	t.Errorf("%s    %s", r.Case.Describe(want), strings.Join(diff, "\n    "))
	if *saveFile != "" {
		f, err := os.OpenFile(*saveFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(f, r)
		f.Close()
	}
}

// differences runs n of g's cases and returns how many differ, printing a few of each kind.
func differences(t *testing.T, p pair, g *Generator, n int) int {
	cov, kinds := coverage{}, map[string]int{}
	all := p.results(maxCases)
	bad := 0
	for done := 0; done < n; {
		seed, image, cases := g.Batch(min(maxCases, n-done))
		p.run(t, image, cases, all)
		for i := range cases {
			c := &cases[i]
			cov.add(c)
			if p.compare(c, i, all) == nil {
				continue
			}
			bad++
			insts := c.Decode()
			kind := insts[len(insts)-1].Op.String()
			if kinds[kind]++; kinds[kind] <= 2 {
				p.report(t, &Regression{Slot: i, ImageSeed: seed, Case: *c})
			}
		}
		done += len(cases)
		if done>>20 != (done-len(cases))>>20 {
			t.Logf("%d cases, %d differences", done, bad)
		}
	}
	for k, n := range kinds {
		t.Logf("%6d differences end with %s", n, k)
	}
	covered, total := cov.report(t)
	t.Logf("%d cases, %d of %d rows covered, %d differences", n, covered, total, bad)
	return bad
}

// TestRegressions runs the corpus of cases that once differed.
func TestRegressions(t *testing.T) {
	data, err := os.ReadFile("testdata/regressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	p := newPair(t, true)
	for line := range strings.Lines(string(data)) {
		r, err := ParseRegression(line)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(r.Name, func(t *testing.T) {
			if want, diff := p.check(t, r); diff != nil {
				t.Errorf("%s    %s", r.Case.Describe(want), strings.Join(diff, "\n    "))
			}
		})
	}
}

// TestRunnerIsAssembled: runner.elf and sequences.elf are runner.asm.
func TestRunnerIsAssembled(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.elf")
	for define, want := range map[string][]byte{"CASES_": runner, "SEQUENCES": seqRunner} {
		if msg, err := exec.Command("nasm", "-f", "bin", "-D", define, "-o", out, "runner.asm").CombinedOutput(); err != nil {
			t.Fatalf("nasm (Debian package nasm): %v: %s", err, msg)
		}
		built, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(built, want) {
			t.Errorf("what nasm makes of runner.asm with %s is not in the tree", define)
		}
	}
}

// TestHostTwice checks the harness: the host agrees with itself.
func TestHostTwice(t *testing.T) {
	differences(t, newPair(t, false), generator(*caseSeed), 20_000)
}

// TestHostCPU compares the interpreter and translated code with the host.
func TestHostCPU(t *testing.T) {
	differences(t, newPair(t, true), generator(*caseSeed), *caseCount)
}

// TestX87Sequences compares longer sequences of x87 and MMX instructions, mixed with
// a few others: translated code keeps that state in the host's registers from one to
// the next, gives it up for those that it does not run, and takes it back.
func TestX87Sequences(t *testing.T) {
	match := regexp.MustCompile(*onlyOp)
	g := NewGenerator(*caseSeed, func(r *optab.Row) bool {
		return Skipped(r) != "" || !match.MatchString(r.Op.String()) || !x87OrMMX(r)
	})
	g.Longest = 10
	differences(t, newPair(t, true), g, *caseCount/4)
}

// x87OrMMX reports the rows of TestX87Sequences.
func x87OrMMX(r *optab.Row) bool {
	switch r.Op {
	case optab.EMMS, optab.FXRSTOR, optab.ADD, optab.SETCC, optab.CMOVCC:
		return true
	}
	if slices.ContainsFunc(r.Args, func(a optab.Arg) bool {
		return a == optab.Pq || a == optab.Qd || a == optab.Qq || a == optab.Nq
	}) {
		return true
	}
	return r.Op >= optab.FirstX87 && r.Op <= optab.LastX87
}

// TestScans compares TZCNT and LZCNT of an x86-64-v2 CPU with the host's BSF and BSR: with F2, which
// does not count, in the place of F3.
func TestScans(t *testing.T) {
	p := newPairOf(t, true, x86.LevelV2)
	g := NewGenerator(*caseSeed, func(r *optab.Row) bool { return r.Op != optab.TZCNT && r.Op != optab.LZCNT })
	all := p.results(maxCases)
	for range 10 {
		_, image, cases := g.Batch(maxCases)
		onHost := slices.Clone(cases)
		for i := range onHost {
			c := &onHost[i]
			c.Code = bytes.Clone(c.Code)
			for at, in := 0, c.Decode(); len(in) > 0; at, in = at+int(in[0].Len), in[1:] {
				prefixes := c.Code[at : at+bytes.IndexByte(c.Code[at:], 0x0f)]
				copy(prefixes, bytes.ReplaceAll(prefixes, []byte{0xf3}, []byte{0xf2}))
			}
		}
		p.runBoth(t, image, onHost, cases, all)
		for i := range cases {
			c := &cases[i]
			if c.Mode == decode.Mode16 && bytes.IndexByte(c.Code, 0x2e) >= 0 {
				continue // reads the code, which differs
			}
			all.want[i].State.RFLAGS |= cf // undefined of BSF and BSR
			for e := range all.got {
				all.got[e][i].State.RFLAGS |= cf
			}
			if diff := p.compare(c, i, all); diff != nil {
				t.Errorf("%s    %s", c.Describe(&all.want[i]), strings.Join(diff, "\n    "))
			}
		}
	}
}

// TestCompareExchangeClears: CMPXCHG of 32-bit registers that differ clears the upper half of the
// destination, as on an Intel processor, whatever the host does.
func TestCompareExchangeClears(t *testing.T) {
	for _, translate := range []bool{false, jit.Available()} {
		s, err := NewSoft(translate, hostLevel())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		c := Case{Mode: decode.Mode64, Code: []byte{0x44, 0x0f, 0xb1, 0xfb, 0x45, 0x0f, 0xb1, 0xc7}} // cmpxchg ebx, r15d; cmpxchg r15d, r8d
		c.State.GPR = [16]uint64{x86.RAX: 1, x86.RBX: 1<<63 | 2, x86.R8: 7, x86.R15: 1<<63 | 3}
		r := make([]Result, 1)
		if err := s.Run(make([]byte, sandboxSize), []Case{c}, r); err != nil {
			t.Fatal(err)
		}
		if g := &r[0].State.GPR; g[x86.RBX] != 2 || g[x86.R15] != 3 || g[x86.RAX] != 3 {
			t.Errorf("translated %v: rbx %#x, r15 %#x, rax %#x", translate, g[x86.RBX], g[x86.R15], g[x86.RAX])
		}
	}
}

// TestModes: the three code-segment modes run on the host at all.
func TestModes(t *testing.T) {
	needOracle(t)
	h, err := NewHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	cases := []Case{{Mode: decode.Mode64, Code: []byte{0x48, 0x01, 0xc0}}, {Mode: decode.Mode32, Code: []byte{0x01, 0xc0}}, {Mode: decode.Mode16, Code: []byte{0x01, 0xc0}}}
	for i := range cases {
		cases[i].State.GPR[0] = 0x8001
		cases[i].State.FX[0], cases[i].State.FX[24], cases[i].State.FX[25] = 0x7f, 0x80, 0x1f
	}
	r := make([]Result, len(cases))
	if err := h.Run(make([]byte, sandboxSize), cases, r); err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint64{0x10002, 0x10002, 2} {
		if r[i].Vector != 3 || r[i].State.GPR[0] != want {
			t.Errorf("case %d: vector %d, rax %#x", i, r[i].Vector, r[i].State.GPR[0])
		}
	}
}
