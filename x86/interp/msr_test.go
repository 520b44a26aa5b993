package interp

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"berth/x86"
)

// documented returns the MSRs of docs/msrs.md with what the third column says of each.
func documented(t *testing.T) map[uint32]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/msrs.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint32]string{}
	for _, l := range strings.Split(string(b), "\n") {
		f := strings.Split(l, "|")
		if !strings.HasPrefix(l, "| 0x") || len(f) != 6 {
			continue
		}
		var first, last uint32
		if n, _ := fmt.Sscanf(f[1], " 0x%x-0x%x", &first, &last); n < 2 {
			last = first
		}
		for i := first; i <= last; i++ {
			all[i] = strings.TrimSpace(f[3]) + "|" + strings.TrimSpace(f[4])
		}
	}
	return all
}

// TestMSRsAreThoseOfTheTable tries every index that some processor uses.
func TestMSRsAreThoseOfTheTable(t *testing.T) {
	all := documented(t)
	c := newTestCPU(t, nil)
	c.cfg.APIC, c.cfg.TSC = noInterrupt{}, func() uint64 { return 1000 }
	for _, r := range [][2]uint32{{0, 0x2000}, {0x40000000, 0x40001000}, {0x4b564d00, 0x4b564e00}, {0xc0000000, 0xc0000400}, {0xc0010000, 0xc0012000}} {
		for i := r[0]; i < r[1]; i++ {
			if isAPICMSR(i) {
				continue
			}
			what, listed := all[i]
			v, readable := c.readMSR(i)
			if want := listed && !strings.HasPrefix(what, "write-only"); readable != want {
				t.Errorf("MSR %#x is readable: %t, the table says %t", i, readable, want)
			}
			if i == x86.MSREFER || strings.Contains(what, "|STATUS takes only 0") && i&3 == 1 {
				continue // the test's CPU is in long mode; a status can only be cleared
			}
			want := listed && !strings.HasSuffix(what, "|#GP")
			if writable := c.writeMSR(i, v); writable != want {
				t.Errorf("MSR %#x takes its own value: %t, the table says %t", i, writable, want)
			}
		}
	}
}

func TestMSRValuesAndReservedBits(t *testing.T) {
	c := newTestCPU(t, nil)
	c.cfg.APIC, c.cfg.TSC = noInterrupt{}, func() uint64 { return 1000 }
	c.Reset()
	for i, want := range map[uint32]uint64{
		x86.MSRFeatureControl: 1, x86.MSRBiosSignID: 1 << 32, x86.MSRFSBFreq: 5, x86.MSRMTRRCap: 0x508, x86.MSRL2Control: 0x101,
		x86.MSRMCGCap: 0x100010a, x86.MSRMCGStatus: 0, x86.MSRMCGCtl: ^uint64(0), x86.MSRMiscEnable: 0x1801, x86.MSRPAT: 0x0007040600070406,
		x86.MSRMC0Ctl: ^uint64(0), x86.MSRMC0Ctl + 37: 0, x86.MSREFER: 0,
	} {
		if v, ok := c.readMSR(i); !ok || v != want {
			t.Errorf("MSR %#x is %#x (%t) after power-on, want %#x", i, v, ok, want)
		}
	}
	for _, w := range []struct {
		i  uint32
		v  uint64
		ok bool
	}{
		{x86.MSRMC0Ctl, 0, true}, {x86.MSRMC0Ctl + 1, 0, true}, {x86.MSRMC0Ctl + 1, 1, false}, {x86.MSRMC0Ctl + 39, 5, true},
		{x86.MSRMCGStatus, 7, true}, {x86.MSRMCGStatus, 8, false}, {x86.MSRMiscEnable, 1 << 63, false}, {x86.MSRMiscEnable, 1 << 1, false},
		{x86.MSRMTRRPhysBase0, 2, false}, {x86.MSRMTRRPhysBase0 + 1, 1 << 40, false}, {x86.MSRMTRRFix64K, 3, false}, {x86.MSRPAT, 2, false},
		{x86.MSRAPICBase, 1 << 40, false}, {x86.MSRTSCAux, 1 << 32, false}, {x86.MSRLSTAR, 1 << 47, false}, {x86.MSREFER, 1 << 12, false},
	} {
		if ok := c.writeMSR(w.i, w.v); ok != w.ok {
			t.Errorf("writing %#x to MSR %#x: %t, want %t", w.v, w.i, ok, w.ok)
		}
	}
}

// TestMiscEnable: what software switches with it disappears from CPUID too.
func TestMiscEnable(t *testing.T) {
	c := newTestCPU(t, nil)
	c.cfg.APIC = noInterrupt{}
	c.EFER |= x86.EFERNXE
	if !c.writeMSR(x86.MSRMiscEnable, miscEnableReset|miscNoXD|miscLimitCPUID|1<<16) {
		t.Fatal("refused")
	}
	if v, _ := c.readMSR(x86.MSRMiscEnable); v != miscEnableReset|miscNoXD|miscLimitCPUID {
		t.Errorf("MISC_ENABLE is %#x", v)
	}
	if c.leaf(0, 0)[0] != 2 || c.leaf(7, 0) != c.leaf(2, 0) {
		t.Error("CPUID is not limited to leaf 2")
	}
	if c.leaf(0x80000001, 0)[3]>>20&1 != 0 || c.EFER&x86.EFERNXE != 0 || c.writeMSR(x86.MSREFER, c.EFER|x86.EFERNXE) {
		t.Error("execute-disable is still there")
	}
	if !c.writeMSR(x86.MSRMiscEnable, miscEnableReset) || c.leaf(0, 0)[0] != maxBasic || !c.writeMSR(x86.MSREFER, c.EFER|x86.EFERNXE) {
		t.Error("switched back, something is missing")
	}
}

func TestMachineCheckRegisters(t *testing.T) {
	c := newTestCPU(t, nil)
	c.CR4 |= x86.CR4MCE
	inject := func(m x86.MachineCheck) mcBank {
		t.Helper()
		if err := c.InjectMachineCheck(m); err != nil {
			t.Fatal(err)
		}
		return c.sys.msrs.mc.bank[m.Bank]
	}
	const en, uc, over, val = x86.MCStatusEN, x86.MCStatusUC, x86.MCStatusOver, x86.MCStatusVal
	if b := inject(x86.MachineCheck{Bank: 1, Status: en | 1, Addr: 5, Misc: 6}); b != (mcBank{^uint64(0), val | en | 1, 5, 6}) || c.Pending != 0 {
		t.Errorf("corrected: %#x, pending %#x", b, c.Pending)
	}
	if b := inject(x86.MachineCheck{Bank: 1, Status: uc | en | 2, Addr: 7}); b != (mcBank{^uint64(0), val | uc | en | over | 2, 7, 0}) || c.Pending != pendMC {
		t.Errorf("uncorrected: %#x, pending %#x", b, c.Pending)
	}
	c.Pending = 0
	if b := inject(x86.MachineCheck{Bank: 1, Status: en | 3}); b != (mcBank{^uint64(0), val | uc | en | over | 2, 7, 0}) {
		t.Errorf("a corrected error displaced an uncorrected one: %#x", b)
	}
	c.writeMSR(x86.MSRMC0Ctl+4*2, 0)
	if b := inject(x86.MachineCheck{Bank: 2, Status: uc}); b[mcStatus] != 0 || c.Pending != 0 {
		t.Error("an error that is switched off was reported")
	}
	c.sys.msrs.mc.status = x86.MCGStatusMCIP
	if inject(x86.MachineCheck{Bank: 3, Status: uc}); c.Pending != pendShutdown {
		t.Errorf("a second machine check: pending %#x", c.Pending)
	}
	if c.InjectMachineCheck(x86.MachineCheck{Bank: x86.MCBanks}) == nil {
		t.Error("a bank that does not exist was taken")
	}
}

// TestSleepUntilStartUp: what cannot reach a vCPU that waits for its start-up IPI
// does not keep it from sleeping.
func TestSleepUntilStartUp(t *testing.T) {
	c := newTestCPU(t, nil)
	c.cfg.APIC = noInterrupt{}
	c.initReset()
	c.setMP(x86.MPWaitSIPI)
	c.post(pendIntr | pendNMI | pendMC)
	slept := make(chan struct{})
	go func() {
		c.sleep()
		close(slept)
	}()
	for atomic.LoadUint32(&c.Pending)&pendSleep == 0 {
		select {
		case <-slept:
			t.Fatal("it did not sleep")
		default:
		}
	}
	c.SIPI(1)
	<-slept
}

// noInterrupt is an APIC with nothing to say.
type noInterrupt struct{ oneInterrupt }

func (noInterrupt) Deliverable() bool          { return false }
func (noInterrupt) Acknowledge() (uint8, bool) { return 0, false }
