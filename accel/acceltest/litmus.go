package acceltest

import (
	"cmp"
	"encoding/binary"
	"flag"
	"math"
	"runtime"
	"testing"
	"time"

	"berth/x86"
)

// Addresses of litmus.asm, and of shootdown.asm where that has them.
const (
	litmusTest    = 0x5000
	litmusCPUs    = 0x5004
	litmusStop    = 0x5008
	litmusTurn    = 0x500c
	litmusHist    = 0x5100
	litmusFlag    = 0x6400
	litmusAck     = 0x6440
	litmusPages   = 0x9000
	litmusCodeOff = 0xf
)

// litmusTime is how long each litmus test runs. Two vCPUs meet in the few
// nanoseconds that matter only if each has a CPU of the host to itself.
var litmusTime = flag.Duration("litmus.time", 300*time.Millisecond, "how long each litmus test runs")

// litmus is one test of litmus.asm, or a program of its own: the outcomes that the
// memory model forbids (Intel SDM vol. 3A §8.2).
type litmus struct {
	name      string
	program   string // litmus if empty
	cpus      int
	forbidden []int
	native    bool // needs instructions that a hypervisor in software does not make atomic
}

// litmusTests begins with those of litmus.asm, in the order of its table. An
// outcome's bits: see there.
var litmusTests = []litmus{
	{name: "StoreBuffer", cpus: 2}, // both loads may pass the stores
	{name: "StoreBufferMFENCE", cpus: 2, forbidden: []int{0}},
	{name: "StoreBufferXCHG", cpus: 2, forbidden: []int{0}},
	{name: "StoreBufferCPUID", cpus: 2, forbidden: []int{0}},
	{name: "LoadBuffer", cpus: 2, forbidden: []int{3}},
	{name: "MessagePassing", cpus: 2, forbidden: []int{2}},
	{name: "Coherence", cpus: 2, forbidden: []int{4, 8, 9}},
	{name: "IndependentReads", cpus: 4, forbidden: []int{5}},
	{name: "Counters", cpus: 4},
	{name: "CountersAcrossPages", cpus: 4, native: true},
	{name: "SequenceLock", cpus: 4, forbidden: []int{1}},
	{name: "CrossModifyingCode", cpus: 2, forbidden: []int{1}},
	{name: "CodeWrittenByADevice", cpus: 1, forbidden: []int{1}},
	{name: "TLBShootDown", program: "shootdown", cpus: 3, forbidden: []int{1, 2, 3, 4, 5, 6, 7}},
}

func (suite Suite) litmus(t *testing.T) {
	for i, l := range litmusTests {
		if l.cpus > suite.MaxCPUs || l.native && suite.EmulatesKernel {
			continue
		}
		t.Run(l.name, func(t *testing.T) { suite.litmusTest(t, i, l) })
	}
}

func (suite Suite) litmusTest(t *testing.T, number int, l litmus) {
	// As package machine does: a vCPU never keeps the host's part waiting.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(l.cpus + 4))
	g := suite.NewGuest(t, cmp.Or(l.program, "litmus"), l.cpus)
	for id := range l.cpus {
		var s x86.State
		g.Get(id, &s)
		s.MP, s.RIP, s.GPR[x86.RDI] = x86.MPRunnable, 0x1000, uint64(id)
		s.Seg[x86.CS].Selector, s.Seg[x86.CS].Base = 0, 0
		g.Set(id, &s)
	}
	g.put(litmusTest, uint32(number))
	g.put(litmusCPUs, uint32(l.cpus))
	g.Start()
	if l.name == "CodeWrittenByADevice" {
		g.writeCode()
	} else {
		time.Sleep(*litmusTime)
		// On one CPU of a busy host even the first turn may take longer.
		for end := time.Now().Add(time.Minute); g.get(litmusTurn) == 0 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	g.put(litmusStop, 1)
	g.Stop()
	turns := g.get(litmusTurn)
	if turns == 0 {
		t.Fatal("no turn was taken")
	}
	var hist [16]uint32
	for i := range hist {
		hist[i] = g.get(litmusHist + 4*uint64(i))
	}
	t.Logf("%d turns, outcomes %d", turns, hist)
	for _, f := range l.forbidden {
		if hist[f] != 0 {
			t.Errorf("outcome %d, which is forbidden, was seen %d times in %d turns", f, hist[f], turns)
		}
	}
	switch l.name {
	case "Counters":
		g.counted(turns*uint32(l.cpus), []counter{
			{"INC byte", 0x6201, 1}, {"ADD word", 0x6212, 2}, {"SUB", 0x6224, 4}, {"XADD", 0x6238, 4}, {"CMPXCHG8B", 0x6248, 8},
			{"not aligned", 0x6261, 4}, {"across cache lines", 0x62be, 4}, {"under XCHG's lock", 0x6300, 4}, {"under BTS's lock", 0x6340, 4},
		})
	case "CountersAcrossPages":
		g.counted(turns*uint32(l.cpus), []counter{{"across pages", 0x7ffe, 4}})
	}
}

// writeCode is a device that writes an instruction, then a flag, and waits until
// the guest has executed it.
func (g *Guest) writeCode() {
	g.t.Helper()
	end := time.Now().Add(*litmusTime)
	for i := uint32(1); i == 1 || time.Now().Before(end); i++ {
		code := []byte{0xb8, byte(i), byte(i >> 8), 0xc3} // mov ax, i; ret
		if err := g.Mem.Write(litmusPages+litmusCodeOff, code); err != nil {
			g.t.Fatal(err)
		}
		g.put(litmusFlag, i)
		g.Word(litmusAck, i)
	}
}

// counter is one of size bytes.
type counter struct {
	name string
	gpa  uint64
	size uint64
}

func (g *Guest) counted(want uint32, counters []counter) {
	g.t.Helper()
	for _, c := range counters {
		var p [8]byte
		if err := g.Mem.Read(c.gpa, p[:c.size]); err != nil {
			g.t.Fatal(err)
		}
		mask := uint64(math.MaxUint64) >> (64 - 8*c.size)
		if got := binary.LittleEndian.Uint64(p[:]); got != uint64(want)&mask {
			g.t.Errorf("counter %s: %d, want %d", c.name, got, uint64(want)&mask)
		}
	}
}

func (g *Guest) put(gpa uint64, v uint32) {
	g.t.Helper()
	if err := g.Mem.Store32(gpa, v); err != nil {
		g.t.Fatal(err)
	}
}

func (g *Guest) get(gpa uint64) uint32 {
	g.t.Helper()
	v, err := g.Mem.Load32(gpa)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}
