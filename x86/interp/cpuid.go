package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/mmu"
)

// The CPU model is explained in docs/decisions/0010-cpu-model.md.

const (
	physBits   = mmu.PhysBits
	linearBits = 48

	// signature: family 6, model 0x36, stepping 1: an in-order processor, which
	// operating systems know to need no defences against speculation.
	signature = 0x30661

	maxBasic      = 0x16
	maxHypervisor = 0x40000010
	maxExtended   = 0x80000008

	tscHz = 1_000_000_000 // Config.TSC counts nanoseconds
)

// CPUID.1:ECX features.
const (
	feat1SSE3    = 1 << 0
	feat1SSSE3   = 1 << 9
	feat1CX16    = 1 << 13
	feat1PCID    = 1 << 17
	feat1SSE41   = 1 << 19
	feat1SSE42   = 1 << 20
	feat1X2APIC  = 1 << 21
	feat1POPCNT  = 1 << 23
	feat1TSCDL   = 1 << 24
	feat1XSAVE   = 1 << 26
	feat1OSXSAVE = 1 << 27
	feat1Hyper   = 1 << 31

	// FMA, MOVBE, AVX, F16C
	feat1V3 = 1<<12 | 1<<22 | 1<<28 | 1<<29
	// What distinguishes x86-64-v2 from v1.
	feat1V2 = feat1SSE3 | feat1SSSE3 | feat1CX16 | feat1SSE41 | feat1SSE42 | feat1POPCNT

	feat1ECX = feat1SSE3 | feat1SSSE3 | feat1CX16 | feat1PCID | feat1SSE41 | feat1SSE42 | feat1X2APIC |
		feat1POPCNT | feat1TSCDL | feat1XSAVE | feat1Hyper
)

// feat1EDX is CPUID.1:EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR,
// PGE, MCA, CMOV, PAT, PSE-36, CLFSH, MMX, FXSR, SSE, SSE2, SS and, with several CPUs, HTT.
const (
	feat1EDX = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9 | 1<<11 | 1<<12 | 1<<13 | 1<<14 |
		1<<15 | 1<<16 | 1<<17 | 1<<19 | 1<<23 | 1<<24 | 1<<25 | 1<<26 | 1<<27
	feat1HTT  = 1 << 28
	feat1APIC = 1 << 9 // while IA32_APIC_BASE enables it

	apicEnable = 1 << 11 // of IA32_APIC_BASE
)

// feat7EBX is CPUID.7.0:EBX: FSGSBASE, TSC_ADJUST, SMEP, ERMS, INVPCID, FCS
// and FDS always 0, SMAP.
const (
	feat7EBX = 1<<0 | 1<<1 | 1<<7 | 1<<9 | 1<<10 | 1<<13 | 1<<20
	// feat7V3: BMI1, AVX2, BMI2.
	feat7V3 = 1<<3 | 1<<5 | 1<<8
	// feat7ECX: UMIP, RDPID.
	feat7ECX = 1<<2 | 1<<22
	// feat7EDX: ARCH_CAPABILITIES.
	feat7EDX = 1 << 29
)

// Extended features: LAHF64, 3DNOWPREFETCH; SYSCALL, NX, 1 GiB pages, RDTSCP, LM.
const (
	featExtECX = 1<<0 | 1<<8
	featExtV3  = 1 << 5 // LZCNT
	featExtEDX = 1<<11 | 1<<20 | 1<<26 | 1<<27 | 1<<29
)

// regs4 is what CPUID returns: EAX, EBX, ECX, EDX.
type regs4 [4]uint32

// cpuid is CPUID.
func (c *CPU) cpuid(*decode.Inst) status {
	c.sys.msrs.biosSignID = microcode
	r := c.leaf(uint32(c.R[x86.RAX]), uint32(c.R[x86.RCX]))
	c.R[x86.RAX], c.R[x86.RBX], c.R[x86.RCX], c.R[x86.RDX] = uint64(r[0]), uint64(r[1]), uint64(r[2]), uint64(r[3])
	return next
}

// text packs up to 4n characters into n registers.
func text(s string, i int) (v uint32) {
	for n := range 4 {
		if 4*i+n < len(s) {
			v |= uint32(s[4*i+n]) << (8 * n)
		}
	}
	return v
}

const brand = "berth soft virtual CPU"

// CPUID is what the instruction returns: EAX, EBX, ECX, EDX. It is called between two
// Runs, by the thread that runs the CPU.
func (c *CPU) CPUID(leaf, sub uint32) [4]uint32 { return c.leaf(leaf, sub) }

func (c *CPU) leaf(n, sub uint32) regs4 {
	basic := uint32(maxBasic)
	if c.sys.msrs.miscEnable&miscLimitCPUID != 0 {
		basic = 2
	}
	switch {
	case n > basic && n < 0x40000000, n > maxExtended, n > maxHypervisor && n < 0x80000000:
		n = basic // an unknown leaf reads as the highest basic one
	}
	switch n {
	case 0:
		return regs4{basic, text("Genu", 0), text("ntel", 0), text("ineI", 0)}
	case 1:
		return c.leaf1()
	case 2:
		return regs4{0x00feff01} // no descriptors: see leaf 4
	case 4:
		return c.cacheLeaf(sub)
	case 7:
		if sub == 0 {
			r := regs4{0, feat7EBX, feat7ECX, feat7EDX}
			if c.single != nil {
				r[1] |= feat7V3
			}
			return r
		}
	case 0xb:
		return c.topologyLeaf(sub)
	case 0xd:
		return c.xsaveLeaf(sub)
	case 0x15:
		return regs4{1, 1, tscHz, 0}
	case 0x16:
		return regs4{tscHz / 1e6, tscHz / 1e6, 100, 0}
	case 0x40000000:
		return regs4{maxHypervisor, text("Bert", 0), text("hBer", 0), text("th\x00\x00", 0)}
	case 0x40000010:
		return regs4{tscHz / 1e3, tscHz / 1e3}
	case 0x80000000:
		return regs4{maxExtended}
	case 0x80000001:
		r := regs4{0, 0, featExtECX, featExtEDX}
		if c.single != nil {
			r[2] |= featExtV3
		}
		if c.cfg.Level == x86.LevelV1 {
			r[2] &^= 1 << 0
		}
		if c.Mode != decode.Mode64 {
			r[3] &^= 1 << 11 // SYSCALL exists in 64-bit mode only
		}
		if c.sys.msrs.miscEnable&miscNoXD != 0 {
			r[3] &^= 1 << 20
		}
		return r
	case 0x80000002, 0x80000003, 0x80000004:
		i := int(n-0x80000002) * 4
		return regs4{text(brand, i), text(brand, i+1), text(brand, i+2), text(brand, i+3)}
	case 0x80000006:
		return regs4{0, 0, 1024<<16 | 6<<12 | 64, 0}
	case 0x80000007:
		return regs4{0, 0, 0, 1 << 8} // invariant TSC
	case 0x80000008:
		return regs4{linearBits<<8 | physBits}
	}
	return regs4{}
}

func (c *CPU) leaf1() regs4 {
	r := regs4{signature, c.apicID()<<24 | 64/8<<8, feat1ECX, feat1EDX}
	switch c.cfg.Level {
	case x86.LevelV1:
		r[2] &^= feat1V2
	case x86.LevelV3:
		r[2] |= feat1V3
	}
	if c.CR4&x86.CR4OSXSAVE != 0 {
		r[2] |= feat1OSXSAVE
	}
	if base, ok := c.cfg.APIC.ReadMSR(x86.MSRAPICBase); ok && base&apicEnable == 0 {
		r[3] &^= feat1APIC
	}
	if t := c.topology(); t.Cores*t.Threads > 1 {
		r[1] |= min(uint32(1)<<(t.ThreadBits()+t.CoreBits()), 255) << 16
		r[3] |= feat1HTT
	}
	return r
}

func (c *CPU) topology() x86.Topology { return c.cfg.Topology.Resolve(max(c.cfg.CPUs, 1)) }

func (c *CPU) apicID() uint32 { return c.cfg.Topology.APICID(c.cfg.ID) }

// cacheLeaf is leaf 4: 32 KiB of L1 data and code and 1 MiB of L2 for each core.
func (c *CPU) cacheLeaf(sub uint32) regs4 {
	t := c.topology()
	sharing := (uint32(1)<<t.CoreBits()-1)<<26 | (uint32(1)<<t.ThreadBits()-1)<<14
	cache := func(kind, level, ways, sets uint32) regs4 {
		return regs4{kind | level<<5 | 1<<8 | sharing, (ways-1)<<22 | 63, sets - 1, 0}
	}
	switch sub {
	case 0:
		return cache(1, 1, 8, 64)
	case 1:
		return cache(2, 1, 8, 64)
	case 2:
		return cache(3, 2, 16, 1024)
	}
	return regs4{}
}

// topologyLeaf is leaf 0xb: threads in a core, CPUs in a package.
func (c *CPU) topologyLeaf(sub uint32) regs4 {
	id, t := c.apicID(), c.topology()
	switch sub {
	case 0:
		return regs4{uint32(t.ThreadBits()), uint32(t.Threads), 1<<8 | sub, id}
	case 1:
		return regs4{uint32(t.ThreadBits() + t.CoreBits()), uint32(t.Cores * t.Threads), 2<<8 | sub, id}
	}
	return regs4{0, 0, sub & 0xff, id}
}

// xsaveLeaf is leaf 0xd: the components, the sizes of their images, and XSAVEOPT.
func (c *CPU) xsaveLeaf(sub uint32) regs4 {
	avx := c.xcr0Supported()&xcr0AVX != 0
	switch sub {
	case 0:
		r := regs4{uint32(c.xcr0Supported()), uint32(xsaveSize(c.XCR0)), uint32(xsaveSize(c.xcr0Supported())), 0}
		return r
	case 1:
		return regs4{1}
	case 2:
		if avx {
			return regs4{ymmSize, ymmOffset}
		}
	}
	return regs4{}
}

// rdtsc is RDTSC.
func (c *CPU) rdtsc(*decode.Inst) status {
	if c.CR4&x86.CR4TSD != 0 && c.CPL != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	c.setEDXEAX(c.readTSC())
	return next
}

// rdtscp is RDTSCP.
func (c *CPU) rdtscp(in *decode.Inst) status {
	st := c.rdtsc(in)
	if st == next {
		c.R[x86.RCX] = c.Frame.TSCAux
	}
	return st
}

// rdpid is RDPID.
func (c *CPU) rdpid(in *decode.Inst) status {
	size := uint8(4)
	if in.Mode == decode.Mode64 {
		size = 8
	}
	c.setReg(in, in.RM, size, c.Frame.TSCAux)
	return next
}

// rdrand and rdseed: CPUID does not offer them.
func (c *CPU) rdrand(*decode.Inst) status { return c.raise(x86.UD) }
func (c *CPU) rdseed(*decode.Inst) status { return c.raise(x86.UD) }
