package interp

import "berth/x86"

// mtrrVariable is how many variable-range MTRR pairs there are.
const mtrrVariable = 8

// msrState holds the MSRs that have no home in Core or its Frame.
type msrState struct {
	cstar                                 uint64
	tscAdjust, tscOffset                  uint64 // the architectural one, and what a restored state differs from the clock
	sysenterCS, sysenterESP, sysenterEIP  uint64
	pat, miscEnable, biosSignID, debugCtl uint64

	mc machineCheck

	mtrrDefType uint64
	mtrrBase    [mtrrVariable]uint64
	mtrrMask    [mtrrVariable]uint64
	mtrrFixed   [11]uint64
}

// Values that CPUID's features imply.
const (
	// microcode is what IA32_BIOS_SIGN_ID reports in its upper half.
	microcode = 1 << 32
	// miscEnableReset: fast strings, and the branch-trace and PEBS units absent.
	miscEnableReset = miscFastStrings | miscNoBTS | miscNoPEBS
	patReset        = 0x0007040600070406
	// mtrrCap: eight variable ranges, the fixed ones, and write-combining.
	mtrrCap = mtrrVariable | 1<<8 | 1<<10
	// archCaps: every "not vulnerable" statement that is true of an interpreter,
	// which executes nothing speculatively: RDCL_NO, SKIP_L1DFL_VMENTRY, SSB_NO,
	// MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO,
	// PBRSB_NO, GDS_NO, RFDS_NO (Intel SDM vol. 4 table 2-2).
	archCaps = 1<<0 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<8 | 1<<13 | 1<<14 | 1<<15 | 1<<20 | 1<<24 | 1<<26 | 1<<27
	// featureLocked: IA32_FEATURE_CONTROL locked with VMX off.
	featureLocked = 1
	// fsb100MHz and perfStatus say the same as CPUID leaf 0x16: a bus of 100 MHz, ratio 10 now and at most.
	fsb100MHz  = 5
	perfStatus = 10<<40 | 10<<8
	// l2Enabled: MSR_BBL_CR_CTL3's hardware and software enables of the L2 cache.
	l2Enabled = 1<<0 | 1<<8
)

// debugBTF is IA32_DEBUGCTL.BTF: TF traps after branches only. The rest of the
// register is absent, as branch records and traces are.
const debugBTF = 1 << 1

// Bits of IA32_MISC_ENABLE (Intel SDM vol. 4 table 2-2).
const (
	miscFastStrings = 1 << 0
	miscNoBTS       = 1 << 11
	miscNoPEBS      = 1 << 12
	miscLimitCPUID  = 1 << 22
	miscNoXD        = 1 << 34
	miscWritable    = miscFastStrings | miscLimitCPUID | miscNoXD
	// miscKnown adds those of the model that are fixed here: thermal control, performance
	// monitoring, TM2, SpeedStep and its lock, MONITOR, xTPR messages.
	miscKnown = miscWritable | miscNoBTS | miscNoPEBS | 1<<3 | 1<<7 | 1<<13 | 1<<16 | 1<<18 | 1<<20 | 1<<23
)

// reset gives the MSRs their power-on values.
func (m *msrState) reset() {
	*m = msrState{
		pat:        patReset,
		miscEnable: miscEnableReset,
		biosSignID: microcode,
		mc:         newMachineCheck(),
	}
}

// tsc returns IA32_TIME_STAMP_COUNTER.
func (c *CPU) tsc() uint64 { return c.cfg.TSC() + c.sys.msrs.tscAdjust + c.sys.msrs.tscOffset }

func (c *CPU) setTSCAdjust(v uint64) {
	c.sys.msrs.tscAdjust = v
	c.tscMoved()
	c.cfg.APIC.TSCChanged()
}

func isAPICMSR(i uint32) bool {
	return i == x86.MSRAPICBase || i == x86.MSRTSCDeadline || i >= x86.MSRX2APIC && i < x86.MSRX2APIC+0x100
}

// plain returns the place of an MSR that is only storage, and the bits it has.
func (c *CPU) plain(i uint32) (p *uint64, writable uint64) {
	m := &c.sys.msrs
	const all = ^uint64(0)
	switch i {
	case x86.MSRSTAR:
		return &c.Frame.STAR, all
	case x86.MSRFMASK:
		return &c.Frame.FMASK, 1<<32 - 1
	case x86.MSRTSCAux:
		return &c.Frame.TSCAux, 1<<32 - 1
	case x86.MSRSysenterCS:
		return &m.sysenterCS, 1<<32 - 1
	case x86.MSRMiscEnable:
		return &m.miscEnable, miscKnown
	case x86.MSRDebugCtl:
		return &m.debugCtl, debugBTF
	case x86.MSRMCGStatus:
		return &m.mc.status, mcgStatusBits
	case x86.MSRMCGCtl:
		return &m.mc.ctl, all
	}
	return nil, 0
}

// constantMSR returns the value of an MSR that cannot be written.
func constantMSR(i uint32) (v uint64, ok bool) {
	switch i {
	case x86.MSRP5MCAddr, x86.MSRP5MCType, x86.MSRPlatformID, x86.MSREBLPowerOn:
		return 0, true
	case x86.MSRFeatureControl:
		return featureLocked, true
	case x86.MSRFSBFreq:
		return fsb100MHz, true
	case x86.MSRMTRRCap:
		return mtrrCap, true
	case x86.MSRArchCaps:
		return archCaps, true
	case x86.MSRL2Control:
		return l2Enabled, true
	case x86.MSRMCGCap:
		return mcgCap, true
	case x86.MSRPerfStatus:
		return perfStatus, true
	}
	return 0, false
}

// address returns the place of an MSR that holds a canonical address.
func (c *CPU) address(i uint32) *uint64 {
	m := &c.sys.msrs
	switch i {
	case x86.MSRLSTAR:
		return &c.Frame.LSTAR
	case x86.MSRCSTAR:
		return &m.cstar
	case x86.MSRSysenterESP:
		return &m.sysenterESP
	case x86.MSRSysenterEIP:
		return &m.sysenterEIP
	case x86.MSRKernelGSBase:
		return &c.Frame.KernelGSBase
	case x86.MSRFSBase:
		return &c.Seg[x86.FS].Base
	case x86.MSRGSBase:
		return &c.Seg[x86.GS].Base
	}
	return nil
}

// mtrr returns the place of an MTRR, and whether it holds eight memory types.
func (c *CPU) mtrr(i uint32) (p *uint64, types bool) {
	m := &c.sys.msrs
	switch {
	case i >= x86.MSRMTRRPhysBase0 && i < x86.MSRMTRRPhysBase0+2*mtrrVariable:
		n := (i - x86.MSRMTRRPhysBase0) / 2
		if i&1 == 0 {
			return &m.mtrrBase[n], false
		}
		return &m.mtrrMask[n], false
	case i == x86.MSRMTRRFix64K:
		return &m.mtrrFixed[0], true
	case i == 0x258, i == 0x259:
		return &m.mtrrFixed[i-0x258+1], true
	case i >= 0x268 && i <= 0x26f:
		return &m.mtrrFixed[i-0x268+3], true
	case i == x86.MSRMTRRDefType:
		return &m.mtrrDefType, false
	case i == x86.MSRPAT:
		return &m.pat, true
	}
	return nil, false
}

// readMSR is RDMSR; not ok is #GP(0).
func (c *CPU) readMSR(i uint32) (uint64, bool) {
	if isAPICMSR(i) {
		return c.cfg.APIC.ReadMSR(i)
	}
	if p, _ := c.plain(i); p != nil {
		return *p, true
	}
	if p := c.address(i); p != nil {
		return *p, true
	}
	if p, _ := c.mtrr(i); p != nil {
		return *p, true
	}
	if p, _ := c.sys.msrs.mc.register(i); p != nil {
		return *p, true
	}
	if v, ok := constantMSR(i); ok {
		return v, true
	}
	switch i {
	case x86.MSRTSC:
		return c.tsc(), true
	case x86.MSRTSCAdjust:
		return c.sys.msrs.tscAdjust, true
	case x86.MSREFER:
		return c.EFER, true
	case x86.MSRBiosSignID:
		return c.sys.msrs.biosSignID, true
	}
	return 0, c.unknownMSR(i, false)
}

// unknownMSR reports an access to an MSR that does not exist and says not ok.
func (c *CPU) unknownMSR(i uint32, write bool) bool {
	if c.cfg.UnknownMSR != nil {
		c.cfg.UnknownMSR(i, write)
	}
	return false
}

// writeMSR is WRMSR; not ok is #GP(0).
func (c *CPU) writeMSR(i uint32, v uint64) bool {
	if isAPICMSR(i) {
		if i == x86.MSRAPICBase && v>>physBits != 0 {
			return false
		}
		return c.cfg.APIC.WriteMSR(i, v)
	}
	if p, mask := c.plain(i); p != nil {
		if v&^mask != 0 {
			return false
		}
		if i == x86.MSRMiscEnable {
			return c.writeMiscEnable(v)
		}
		*p = v
		return true
	}
	if p := c.address(i); p != nil {
		if uint64(int64(v<<16)>>16) != v {
			return false
		}
		*p = v
		c.SegBase[x86.FS], c.SegBase[x86.GS] = c.Seg[x86.FS].Base, c.Seg[x86.GS].Base
		return true
	}
	if p, types := c.mtrr(i); p != nil {
		if !validMTRR(i, v, types) {
			return false
		}
		*p = v
		return true
	}
	if p, status := c.sys.msrs.mc.register(i); p != nil {
		if status && v != 0 {
			return false
		}
		*p = v
		return true
	}
	switch i {
	case x86.MSRTSC:
		c.setTSCAdjust(c.sys.msrs.tscAdjust + v - c.tsc())
		return true
	case x86.MSRTSCAdjust:
		c.setTSCAdjust(v)
		return true
	case x86.MSREFER:
		return c.writeEFER(v)
	case x86.MSRBiosSignID, x86.MSRBiosUpdate:
		return true // SIGN_ID is loaded anew by CPUID; no update is newer than what there is
	}
	if _, ok := constantMSR(i); ok {
		return false
	}
	return c.unknownMSR(i, true)
}

// validMTRR checks the memory types and reserved bits of MTRRs and PAT (Intel SDM vol. 3A §11.11, §11.12).
func validMTRR(i uint32, v uint64, types bool) bool {
	if types {
		for ; v != 0; v >>= 8 {
			if !validType(uint8(v), i == x86.MSRPAT) {
				return false
			}
		}
		return true
	}
	const high = ^uint64(1<<physBits - 1)
	switch {
	case i == x86.MSRMTRRDefType:
		return v&^0xcff == 0 && validType(uint8(v), false)
	case i&1 == 0:
		return v&(high|0xf00) == 0 && validType(uint8(v), false)
	default:
		return v&(high|0x7ff) == 0
	}
}

// validType accepts UC, WC, WT, WP, WB, and in PAT also UC-.
func validType(t uint8, pat bool) bool {
	return t <= 1 || t >= 4 && t <= 6 || t == 7 && pat
}

// writeMiscEnable sets IA32_MISC_ENABLE; bits that are fixed here ignore the write.
func (c *CPU) writeMiscEnable(v uint64) bool {
	m := &c.sys.msrs.miscEnable
	*m = *m&^miscWritable | v&miscWritable
	if v&miscNoXD != 0 && c.EFER&x86.EFERNXE != 0 {
		c.setEFER(c.EFER &^ x86.EFERNXE)
	}
	return true
}

// writeEFER sets the writable bits of EFER (Intel SDM vol. 3A §2.2.1).
func (c *CPU) writeEFER(v uint64) bool {
	const bits = x86.EFERSCE | x86.EFERLME | x86.EFERNXE
	changed := c.EFER ^ v
	switch {
	case v&^(bits|x86.EFERLMA) != 0, changed&x86.EFERLME != 0 && c.CR0&x86.CR0PG != 0,
		v&x86.EFERNXE != 0 && c.sys.msrs.miscEnable&miscNoXD != 0:
		return false
	}
	c.setEFER(c.EFER&^bits | v&bits)
	return true
}

func (c *CPU) setEFER(v uint64) {
	nx := (c.EFER^v)&x86.EFERNXE != 0
	c.EFER = v
	c.pagingChanged()
	if nx {
		c.flushTLB(false)
	}
}
