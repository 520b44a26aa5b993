package lapic

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"

	"berth/clock"
	"berth/irq"
	"berth/x86"
)

// cpu counts what it is asked.
type cpu struct {
	kicks, nmis, inits int
	sipi               []uint8
}

func (c *cpu) Kick()        { c.kicks++ }
func (c *cpu) NMI()         { c.nmis++ }
func (c *cpu) INIT()        { c.inits++ }
func (c *cpu) SIPI(v uint8) { c.sipi = append(c.sipi, v) }

type rig struct {
	*Set
	t     *testing.T
	clock *clock.Manual
	cpus  []*cpu
	eois  []uint8
	pic   []uint8 // vectors the 8259 has
}

// tscOffset is how far the guest's TSC is ahead of its clock.
const tscOffset = 1000

func newRig(t *testing.T, n int) *rig {
	r := &rig{t: t, clock: clock.NewManual()}
	cfg := Config{Clock: r.clock, EOI: func(v uint8) { r.eois = append(r.eois, v) }, INTA: r.inta}
	for i := range n {
		r.cpus = append(r.cpus, &cpu{})
		cfg.CPUs = append(cfg.CPUs, CPUConfig{ID: uint32(i), CPU: r.cpus[i], TSCTime: func(tsc uint64) uint64 {
			return max(tsc, tscOffset) - tscOffset
		}})
	}
	var err error
	if r.Set, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) inta() uint8 {
	if len(r.pic) == 0 {
		return 7
	}
	v := r.pic[0]
	r.pic = r.pic[1:]
	r.SetINTR(len(r.pic) > 0)
	return v
}

func (r *rig) get(n, reg int) uint32 {
	var p [4]byte
	r.APIC(n).Read(uint64(reg)<<4, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

func (r *rig) put(n, reg int, v uint32) {
	r.APIC(n).Write(uint64(reg)<<4, binary.LittleEndian.AppendUint32(nil, v))
}

func (r *rig) enable(flat bool) {
	for i := range r.all {
		r.put(i, regSVR, 0x1ff)
		if flat {
			r.put(i, regLDR, 1<<(24+i))
		}
	}
}

func (r *rig) x2(n int) {
	r.t.Helper()
	base, _ := r.APIC(n).ReadMSR(x86.MSRAPICBase)
	if !r.APIC(n).WriteMSR(x86.MSRAPICBase, base|baseX2) {
		r.t.Fatal("x2APIC mode refused")
	}
}

func (r *rig) msr(n, reg int) uint64 {
	r.t.Helper()
	v, ok := r.APIC(n).ReadMSR(x86.MSRX2APIC + uint32(reg))
	if !ok {
		r.t.Errorf("reading x2APIC register %#x: #GP", reg)
	}
	return v
}

func (r *rig) setMSR(n, reg int, v uint64) {
	r.t.Helper()
	if !r.APIC(n).WriteMSR(x86.MSRX2APIC+uint32(reg), v) {
		r.t.Errorf("writing %#x to x2APIC register %#x: #GP", v, reg)
	}
}

// ack expects the given vector, or nothing for -1.
func (r *rig) ack(n, want int) {
	r.t.Helper()
	if d := r.APIC(n).Deliverable(); d != (want >= 0) {
		r.t.Errorf("APIC %d deliverable %v, want vector %#x", n, d, want)
	}
	v, ok := r.APIC(n).Acknowledge()
	if ok != (want >= 0) || ok && int(v) != want {
		r.t.Errorf("APIC %d gave %#x %v, want %#x", n, v, ok, want)
	}
}

func fixed(dest, vector uint32) irq.MSI {
	return irq.MSI{Addr: DefaultBase | uint64(dest)<<12, Data: vector}
}

func logical(dest, vector uint32) irq.MSI {
	m := fixed(dest, vector)
	m.Addr |= 1 << 2
	return m
}

// SDM §11.4.7.1.
func TestPowerOnState(t *testing.T) {
	r := newRig(t, 2)
	for _, c := range []struct {
		n, reg int
		want   uint32
	}{
		{0, regID, 0}, {1, regID, 1 << 24}, {0, regVersion, 0x50014}, {0, regTPR, 0}, {0, regLDR, 0},
		{0, regDFR, 0xffffffff}, {0, regSVR, 0xff}, {1, regLINT0, 0x10000}, {0, regLINT0, 0x700},
		{0, regLVTTimer, 0x10000}, {0, regLVTError, 0x10000}, {0, regInitial, 0}, {0, regDivide, 0}, {0, regESR, 0},
	} {
		if v := r.get(c.n, c.reg); v != c.want {
			t.Errorf("APIC %d register %#x: %#x, want %#x", c.n, c.reg, v, c.want)
		}
	}
	for i, want := range []uint64{0xfee00900, 0xfee00800} {
		if v, ok := r.APIC(i).ReadMSR(x86.MSRAPICBase); !ok || v != want {
			t.Errorf("IA32_APIC_BASE %#x, want %#x", v, want)
		}
	}
}

// SDM §11.8.3: priorities; §11.8.5: EOI.
func TestPriorities(t *testing.T) {
	r := newRig(t, 1)
	r.enable(false)
	for _, v := range []uint32{0x31, 0x35, 0x51} {
		r.Deliver(fixed(0, v))
	}
	if r.cpus[0].kicks != 1 {
		t.Errorf("%d kicks, want 1", r.cpus[0].kicks)
	}
	r.ack(0, 0x51)
	r.ack(0, -1)
	if v := r.get(0, regPPR); v != 0x50 {
		t.Errorf("PPR %#x", v)
	}
	r.Deliver(fixed(0, 0x61))
	r.ack(0, 0x61)
	if v := r.get(0, regISR+2); v != 1<<0x11 {
		t.Errorf("ISR[2] %#x", v)
	}
	r.put(0, regEOI, 0)
	r.ack(0, -1)
	r.put(0, regEOI, 0)
	r.ack(0, 0x35)
	r.ack(0, -1) // 0x31 is of the same class
	r.put(0, regEOI, 0)
	r.ack(0, 0x31)
	r.put(0, regEOI, 0)
	r.put(0, regEOI, 0) // one too many
	if len(r.eois) != 0 {
		t.Errorf("EOI broadcast for edges: %x", r.eois)
	}
}

func TestTPRHoldsBackAndCR8IsItsUpperHalf(t *testing.T) {
	r := newRig(t, 1)
	r.enable(false)
	r.put(0, regTPR, 0x5f)
	r.Deliver(fixed(0, 0x51))
	r.ack(0, -1)
	if r.APIC(0).TPR() != 5 {
		t.Errorf("CR8 %d", r.APIC(0).TPR())
	}
	kicks := r.cpus[0].kicks
	r.APIC(0).SetTPR(0x14)
	if r.get(0, regTPR) != 0x40 || r.cpus[0].kicks != kicks+1 {
		t.Errorf("TPR %#x, %d kicks", r.get(0, regTPR), r.cpus[0].kicks-kicks)
	}
	r.ack(0, 0x51)
}

func TestLevelEOIIsBroadcast(t *testing.T) {
	r := newRig(t, 1)
	r.enable(false)
	m := fixed(0, 0x41)
	m.Data |= 1 << 15
	r.Deliver(m)
	if v := r.get(0, regTMR+2); v != 2 {
		t.Errorf("TMR[2] %#x", v)
	}
	r.ack(0, 0x41)
	r.put(0, regEOI, 0)
	if !reflect.DeepEqual(r.eois, []uint8{0x41}) {
		t.Errorf("EOI broadcasts %x", r.eois)
	}
	r.Deliver(fixed(0, 0x41)) // an edge clears TMR
	r.ack(0, 0x41)
	r.put(0, regEOI, 0)
	if len(r.eois) != 1 {
		t.Errorf("EOI broadcasts %x", r.eois)
	}
}

// SDM §11.4.7.2.
func TestSoftwareDisabled(t *testing.T) {
	r := newRig(t, 1)
	r.Deliver(fixed(0, 0x41))
	r.ack(0, -1)
	r.enable(false)
	r.ack(0, -1) // was dropped
	r.put(0, regLVTTimer, 0x41)
	r.put(0, regSVR, 0xff)
	if v := r.get(0, regLVTTimer); v != 0x10041 {
		t.Errorf("LVT timer %#x", v)
	}
	r.put(0, regLVTTimer, 0x41)
	if v := r.get(0, regLVTTimer); v != 0x10041 {
		t.Errorf("LVT timer unmasked to %#x while disabled", v)
	}
	m := fixed(0, 0)
	m.Data = modeNMI << 8
	r.Deliver(m)
	if r.cpus[0].nmis != 1 {
		t.Error("NMI does not get through")
	}
}

// SDM §11.6.2.2.
func TestLogicalDestinationFlatAndCluster(t *testing.T) {
	r := newRig(t, 4)
	r.enable(true)
	r.Deliver(logical(0b1010, 0x41))
	for i, want := range []int{-1, 0x41, -1, 0x41} {
		r.ack(i, want)
		r.put(i, regEOI, 0)
		r.put(i, regDFR, 0x0fffffff)
		r.put(i, regLDR, uint32(i/2<<4|1<<(i%2))<<24)
	}
	r.Deliver(logical(0x13, 0x42)) // cluster 1, both
	for i, want := range []int{-1, -1, 0x42, 0x42} {
		r.ack(i, want)
		r.put(i, regEOI, 0)
	}
	r.Deliver(logical(0xf1, 0x43)) // all clusters, the first of each
	for i, want := range []int{0x43, -1, 0x43, -1} {
		r.ack(i, want)
	}
}

func TestBroadcastAndMissingDestination(t *testing.T) {
	r := newRig(t, 3)
	r.enable(false)
	r.Deliver(fixed(0xff, 0x41))
	for i := range 3 {
		r.ack(i, 0x41)
	}
	r.Deliver(fixed(77, 0x51))
	for i := range 3 {
		r.ack(i, -1)
	}
}

// SDM §11.6.2.4.
func TestLowestPriority(t *testing.T) {
	r := newRig(t, 3)
	r.enable(true)
	r.put(0, regTPR, 0x20)
	r.put(2, regTPR, 0x30)
	m := logical(7, 0x41)
	m.Data |= modeLowest << 8
	r.Deliver(m)
	r.ack(0, -1)
	r.ack(1, 0x41)
	r.ack(2, -1)
	r.put(1, regEOI, 0)
	hint := logical(7, 0x42)
	hint.Addr |= 1 << 3
	r.Deliver(hint)
	r.ack(1, 0x42)
	r.ack(0, -1)
	for i := range 3 {
		r.put(i, regEOI, 0)
		r.put(i, regTPR, 0)
	}
	for range 3 { // equals take turns
		r.Deliver(m)
	}
	for i := range 3 {
		r.ack(i, 0x41)
	}
	r.put(1, regSVR, 0xff)
	m.Addr = logical(2, 0).Addr
	r.Deliver(m) // nobody enabled: dropped
	r.ack(1, -1)
}

// SDM §11.6.1.
func TestIPIShorthandsAndModes(t *testing.T) {
	r := newRig(t, 3)
	r.enable(true)
	ipi := func(dest, low uint32) {
		r.put(0, regICRHigh, dest<<24)
		r.put(0, regICR, low)
	}
	wantAll := func(want ...int) {
		t.Helper()
		for i, w := range want {
			r.ack(i, w)
			r.put(i, regEOI, 0)
		}
	}
	ipi(0, 0x41|shortSelf<<18)
	wantAll(0x41, -1, -1)
	ipi(0, 0x42|shortAll<<18)
	wantAll(0x42, 0x42, 0x42)
	ipi(0, 0x43|shortOthers<<18)
	wantAll(-1, 0x43, 0x43)
	ipi(2, 0x44)
	wantAll(-1, -1, 0x44)
	ipi(6, 0x45|1<<11)
	wantAll(-1, 0x45, 0x45)
	ipi(0xff, 0x46)
	wantAll(0x46, 0x46, 0x46)
	ipi(1, modeNMI<<8)
	ipi(0, modeNMI<<8|shortOthers<<18)
	if r.cpus[0].nmis != 0 || r.cpus[1].nmis != 2 || r.cpus[2].nmis != 1 {
		t.Error("NMIs went astray")
	}
	if v := r.get(0, regICR); v != modeNMI<<8|shortOthers<<18 {
		t.Errorf("ICR reads %#x", v)
	}
	ipi(1, 2<<8) // SMI and the reserved mode do nothing
	ipi(1, 3<<8)
	ipi(1, modeExtINT<<8)
	wantAll(-1, -1, -1)
}

// SDM §9.4.4, the start of the application processors.
func TestInitAndStartUp(t *testing.T) {
	r := newRig(t, 2)
	r.enable(false)
	r.put(1, regTPR, 0x20)
	r.put(0, regICRHigh, 1<<24)
	r.put(0, regICR, modeINIT<<8|icrAssert|icrLevel)
	r.put(0, regICR, modeINIT<<8|icrLevel) // de-assert
	if r.cpus[1].inits != 1 || r.get(1, regTPR) != 0 || r.get(1, regSVR) != 0xff || r.get(1, regID) != 1<<24 {
		t.Errorf("%d INITs, TPR %#x, SVR %#x", r.cpus[1].inits, r.get(1, regTPR), r.get(1, regSVR))
	}
	r.put(0, regICR, modeStartUp<<8|0x9a)
	if !reflect.DeepEqual(r.cpus[1].sipi, []uint8{0x9a}) || r.cpus[0].inits != 0 {
		t.Errorf("SIPIs %x", r.cpus[1].sipi)
	}
}

// SDM §11.5.3.
func TestErrorStatus(t *testing.T) {
	r := newRig(t, 2)
	r.enable(false)
	r.put(0, regLVTError, 0xfe)
	r.put(0, regICRHigh, 1<<24)
	r.put(0, regICR, 0x0f)
	r.ack(0, 0xfe)
	r.ack(1, -1)
	r.put(0, regEOI, 0)
	if r.get(0, regESR) != 0 {
		t.Error("ESR before the write that latches it")
	}
	r.put(0, regESR, 0)
	if v := r.get(0, regESR); v != errSendVector {
		t.Errorf("ESR %#x", v)
	}
	r.Deliver(fixed(1, 3))
	r.put(1, regESR, 0)
	if v := r.get(1, regESR); v != errRecvVector {
		t.Errorf("ESR %#x", v)
	}
	r.get(1, 0)
	r.put(1, 0x3d, 1)
	r.put(1, regESR, 0)
	if v := r.get(1, regESR); v != errRegister {
		t.Errorf("ESR %#x", v)
	}
	r.put(0, regLVTError, 0x05) // its own vector illegal: no recursion
	r.put(0, regICR, 0x0f)
	r.put(0, regESR, 0)
	if v := r.get(0, regESR); v != errSendVector|errRecvVector {
		t.Errorf("ESR %#x", v)
	}
}

// Virtual wire mode: the 8259 through LINT0 (SDM §11.5.1, MP specification §3.6.2.2).
func TestExtINTThroughLINT0(t *testing.T) {
	r := newRig(t, 2)
	r.pic = []uint8{0x20, 0x28}
	r.SetINTR(true)
	r.ack(1, -1)
	kicks := r.cpus[0].kicks
	r.ack(0, 0x20)
	if r.cpus[0].kicks == kicks {
		t.Error("no kick though another one waits")
	}
	r.enable(false)
	r.Deliver(fixed(0, 0x41))
	r.ack(0, 0x41) // the APIC's own first
	r.ack(0, 0x28)
	r.ack(0, -1)
	r.put(0, regLINT0, lvtMasked|modeExtINT<<8)
	r.pic = []uint8{0x21}
	r.SetINTR(true)
	r.ack(0, -1)
	r.APIC(1).WriteMSR(x86.MSRAPICBase, DefaultBase) // without an APIC INTR is the CPU's
	r.ack(1, 0x21)
	m := fixed(0, 0)
	m.Data = modeExtINT << 8
	r.pic = []uint8{0x22}
	r.Deliver(m)
	r.ack(0, 0x22)
	r.ack(0, -1)
}

func TestLINT0FixedAndLINT1NMI(t *testing.T) {
	r := newRig(t, 2)
	r.enable(false)
	r.put(0, regLINT0, 0x31)
	r.SetINTR(true)
	r.SetINTR(true)
	r.ack(0, 0x31)
	r.ack(0, -1)
	r.put(1, regLINT1, modeNMI<<8)
	r.NMI()
	if r.cpus[0].nmis != 0 || r.cpus[1].nmis != 1 {
		t.Error("NMI by LINT1")
	}
	r.APIC(0).LINT1() // masked
	if r.APIC(0).WriteMSR(x86.MSRAPICBase, DefaultBase); r.cpus[0].nmis != 0 {
		t.Error("an NMI though LINT1 is masked")
	}
	if r.APIC(0).LINT1(); r.cpus[0].nmis != 1 {
		t.Error("LINT1 is not the NMI pin of a CPU without an APIC")
	}
}

// SDM §11.12.1, figure 11-27.
func TestAPICBaseTransitions(t *testing.T) {
	const off, x1, x2 = DefaultBase, DefaultBase | baseEnable, DefaultBase | baseEnable | baseX2
	for _, c := range []struct {
		from []uint64
		to   uint64
		ok   bool
	}{
		{nil, off, true}, {nil, x1, true}, {nil, x2, true}, {nil, DefaultBase | baseX2, false},
		{[]uint64{off}, x1, true}, {[]uint64{off}, x2, false},
		{[]uint64{x2}, off, true}, {[]uint64{x2}, x1, false}, {[]uint64{x2}, x2, true}, {[]uint64{x2, off}, x1, true},
		{nil, x1 | 1, false}, {nil, x1 | 1<<9, false}, {nil, x1 | 1<<52, false},
	} {
		r := newRig(t, 1)
		for _, v := range c.from {
			r.APIC(0).WriteMSR(x86.MSRAPICBase, v)
		}
		if ok := r.APIC(0).WriteMSR(x86.MSRAPICBase, c.to); ok != c.ok {
			t.Errorf("%x then %x: %v", c.from, c.to, ok)
		}
		if v, _ := r.APIC(0).ReadMSR(x86.MSRAPICBase); v&baseBSP == 0 || c.ok && v != c.to|baseBSP {
			t.Errorf("base %#x after writing %#x", v, c.to)
		}
	}
}

func TestDisablingForgetsEverything(t *testing.T) {
	r := newRig(t, 1)
	r.enable(true)
	r.Deliver(fixed(0, 0x41))
	r.put(0, regLVTTimer, 0x42)
	r.put(0, regInitial, 1000)
	r.APIC(0).WriteMSR(x86.MSRAPICBase, DefaultBase)
	r.ack(0, -1)
	r.clock.Advance(1e9)
	r.APIC(0).WriteMSR(x86.MSRAPICBase, DefaultBase|baseEnable)
	r.ack(0, -1)
	if r.get(0, regSVR) != 0xff || r.get(0, regLDR) != 0 {
		t.Error("registers survived")
	}
}

// SDM table 11-6 and §11.12.1.3: which registers there are and what is #GP.
func TestX2APICRegisters(t *testing.T) {
	r := newRig(t, 2)
	a := r.APIC(1)
	if _, ok := a.ReadMSR(x86.MSRX2APIC + regID); ok {
		t.Error("x2APIC register in xAPIC mode")
	}
	r.x2(1)
	writable := map[int]uint64{regTPR: 0xff, regEOI: 0, regSVR: 0x1ff, regESR: 0, regLVTTimer: 0x10020, regThermal: 0x10020,
		regPerf: 0x10020, regLINT0: 0x10020, regLINT1: 0x10020, regLVTError: 0x10020, regInitial: 0xffffffff, regDivide: 0xb, regSelfIPI: 0x20}
	for reg := range 0x100 {
		_, ok := a.ReadMSR(x86.MSRX2APIC + uint32(reg))
		if want := readable(reg) || reg == regICR; ok != want {
			t.Errorf("reading %#x: %v", reg, ok)
		}
		v, want := writable[reg]
		if reg == regICR {
			continue
		}
		if ok := a.WriteMSR(x86.MSRX2APIC+uint32(reg), v); ok != want {
			t.Errorf("writing %#x: %v", reg, ok)
		}
		if a.WriteMSR(x86.MSRX2APIC+uint32(reg), 1<<32) {
			t.Errorf("reserved bits of %#x accepted", reg)
		}
	}
	if a.WriteMSR(x86.MSRX2APIC+regEOI, 1) || a.WriteMSR(x86.MSRX2APIC+regICR, 1<<20) {
		t.Error("reserved bits accepted")
	}
	if r.msr(1, regID) != 1 || r.msr(1, regLDR) != 2 {
		t.Errorf("ID %#x LDR %#x", r.msr(1, regID), r.msr(1, regLDR))
	}
	if _, ok := a.ReadMSR(0x10); ok {
		t.Error("a foreign MSR is served")
	}
	if a.WriteMSR(0x10, 0) {
		t.Error("a foreign MSR is taken")
	}
}

// SDM §11.12.9, §11.12.10: 32-bit destinations, clusters of 16, more than 255 vCPUs.
func TestX2APICDestinations(t *testing.T) {
	r := newRig(t, 300)
	for i := range 300 {
		r.x2(i)
		r.setMSR(i, regSVR, 0x1ff)
	}
	r.setMSR(0, regICR, 290<<32|0x41)
	r.ack(290, 0x41)
	if v := r.msr(0, regICR); v != 290<<32|0x41 {
		t.Errorf("ICR %#x", v)
	}
	r.setMSR(0, regICR, (18<<16|0b101)<<32|1<<11|0x42) // cluster 18: 288 and 290
	r.setMSR(290, regEOI, 0)
	r.ack(288, 0x42)
	r.ack(289, -1)
	r.ack(290, 0x42)
	r.setMSR(5, regICR, broadcast32<<32|0x51)
	for i := range 300 {
		r.ack(i, 0x51)
	}
	r.setMSR(7, regSelfIPI, 0x61)
	r.ack(7, 0x61)
	r.Deliver(fixed(0xff, 0x71)) // a device's 8-bit broadcast
	r.ack(299, 0x71)
	r.Deliver(logical(0x08, 0x81))
	r.ack(3, 0x81)
}

func TestStateRoundTripInMidOperation(t *testing.T) {
	r := newRig(t, 2)
	r.enable(true)
	r.x2(1)
	r.put(0, regLVTTimer, timerPeriodic<<17|0x41)
	r.put(0, regInitial, 1_000_000) // by 2
	r.setMSR(1, regLVTTimer, timerDeadline<<17|0x42)
	r.APIC(1).WriteMSR(x86.MSRTSCDeadline, 5_000_000+tscOffset)
	r.Deliver(fixed(0, 0x51))
	r.APIC(0).Acknowledge()
	r.Deliver(fixed(0, 0x52))
	r.Deliver(fixed(1, 0x61))
	r.put(0, 0, 0) // an error
	r.clock.Advance(500_000)
	s := r.Save()

	n := newRig(t, 2)
	n.clock.Advance(500_000)
	if err := n.Load(s); err != nil {
		t.Fatal(err)
	}
	if got := n.Save(); !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v\nwant %+v", got, s)
	}
	if n.cpus[1].kicks != 1 {
		t.Error("no kick for an interrupt that was loaded")
	}
	n.ack(1, 0x61)
	n.setMSR(1, regEOI, 0)
	n.ack(0, -1)
	n.put(0, regEOI, 0)
	n.ack(0, 0x52)
	n.put(0, regEOI, 0)
	n.clock.Advance(1_500_000)
	n.ack(0, 0x41)
	n.ack(1, -1)
	n.clock.Advance(3_000_000)
	n.ack(1, 0x42)

	if n.Load(s[:1]) == nil {
		t.Error("too few states accepted")
	}
	for _, damage := range []func(*irq.LAPICState){
		func(s *irq.LAPICState) { s.Base = baseX2 },
		func(s *irq.LAPICState) { s.Base |= 1 },
		func(s *irq.LAPICState) { s.Regs[regID]++ },
	} {
		bad := append([]irq.LAPICState(nil), s...)
		damage(&bad[0])
		if n.Load(bad) == nil {
			t.Error("impossible state accepted")
		}
	}
}

func TestIDsAreUnique(t *testing.T) {
	for _, ids := range [][]uint32{{1, 1}, {broadcast32}} {
		cfg := Config{Clock: clock.NewManual()}
		for _, id := range ids {
			cfg.CPUs = append(cfg.CPUs, CPUConfig{ID: id, CPU: &cpu{}})
		}
		if _, err := New(cfg); err == nil {
			t.Errorf("IDs %v accepted", ids)
		}
	}
}

// space records what passes the overlay.
type space struct{ reads, writes []uint64 }

func (s *space) Read(addr uint64, p []byte)  { s.reads = append(s.reads, addr) }
func (s *space) Write(addr uint64, p []byte) { s.writes = append(s.writes, addr) }

func TestOverlayFollowsBaseAndMode(t *testing.T) {
	r := newRig(t, 2)
	next := &space{}
	o := Overlay{r.APIC(1), next}
	p := make([]byte, 4)
	o.Read(DefaultBase+regID<<4, p)
	if !bytes.Equal(p, []byte{0, 0, 0, 1}) || len(next.reads) != 0 {
		t.Errorf("ID % x", p)
	}
	o.Write(DefaultBase+regTPR<<4, []byte{0x20, 0, 0, 0})
	if r.get(1, regTPR) != 0x20 {
		t.Error("write did not arrive")
	}
	o.Read(DefaultBase-4, p)
	o.Read(DefaultBase+Size, p)
	r.APIC(1).WriteMSR(x86.MSRAPICBase, 0xfed00000|baseEnable)
	o.Read(DefaultBase, p)
	o.Write(DefaultBase, p)
	o.Read(0xfed00000+regTPR<<4, p)
	if p[0] != 0x20 {
		t.Error("moved page")
	}
	r.x2(1)
	o.Read(0xfed00000, p)
	if len(next.reads) != 4 || len(next.writes) != 1 {
		t.Errorf("passed on %x %x", next.reads, next.writes)
	}
}

func TestHostileAccessEveryOffsetAndWidth(t *testing.T) {
	r := newRig(t, 2)
	r.enable(true)
	for _, width := range []int{1, 2, 4, 8} {
		for off := uint64(0); off+uint64(width) <= Size; off++ {
			p := bytes.Repeat([]byte{0xff}, width)
			r.APIC(0).Write(off, p)
			r.APIC(0).Read(off, p)
		}
	}
	r.clock.Advance(1 << 40)
	var p [2]byte
	r.APIC(1).Read(regVersion<<4+1, p[:])
	if p != [2]byte{0x00, 0x05} {
		t.Errorf("part of a register % x", p)
	}
}
