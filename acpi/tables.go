package acpi

import "encoding/binary"

// waetPMTimer tells the guest that one read of the PM timer is enough
// (Microsoft, Windows ACPI Emulated Devices Table).
const waetPMTimer = 1 << 1

// FADT flags and boot architecture flags (ACPI §5.2.9).
const (
	fadtWBINVD      = 1 << 0
	fadtC1          = 1 << 2
	fadtNoSleepBtn  = 1 << 5 // the power button stays a fixed one: bit 4 is clear
	fadtNoRTCWake   = 1 << 6
	fadtTimer32     = 1 << 8
	fadtReset       = 1 << 10
	bootLegacy      = 1 << 0
	boot8042        = 1 << 1
	bootNoVGA       = 1 << 2
	bootNoASPM      = 1 << 4
	bootNoCMOSRTC   = 1 << 5
	fadtSize        = 276
	profileServer   = 4
	noC2C3          = 0xfff // latency that says there is no such state
	cmosCentury     = 0x32
	fadtMinor       = 3
	gasIO           = 1
	gasSize         = 12
	accessByte      = 1
	accessWord      = 2
	accessDword     = 3
	fadtX           = 148 - headerSize // first of the extended addresses
	fadtXControl    = 172 - headerSize
	fadtXTimer      = 208 - headerSize
	fadtXGPE0       = 220 - headerSize
	fadtResetOffset = 116 - headerSize
)

// fadt returns the fixed description table after its header (ACPI §5.2.9),
// offsets counted from the header's start.
//
//	36 FACS u32 | 40 DSDT u32 | 45 profile u8 | 46 SCI u16 | 48 SMI command u32 (0: ACPI is always on)
//	56 PM1a event u32 | 64 PM1a control u32 | 76 PM timer u32 | 80 GPE0 u32
//	88 lengths u8: PM1 event, PM1 control, PM2, PM timer, GPE0
//	96 C2 latency u16 | 98 C3 latency u16 | 108 century u8 | 109 boot flags u16 | 112 flags u32
//	116 reset register GAS | 128 reset value u8 | 131 minor u8 | 140 DSDT u64
//	148 PM1a event GAS | 172 PM1a control GAS | 208 PM timer GAS | 220 GPE0 GAS | 268 hypervisor [8]
func (c *Config) fadt(facs, dsdt uint64) []byte {
	b := make([]byte, fadtSize-headerSize)
	le := binary.LittleEndian
	put8 := func(off int, v uint8) { b[off-headerSize] = v }
	put16 := func(off int, v uint16) { le.PutUint16(b[off-headerSize:], v) }
	put32 := func(off int, v uint32) { le.PutUint32(b[off-headerSize:], v) }
	put32(36, uint32(facs))
	put32(40, uint32(dsdt))
	put8(45, profileServer)
	put16(46, uint16(c.PM.SCI))
	put32(56, uint32(c.PM.Event))
	put32(64, uint32(c.PM.Control))
	put32(76, uint32(c.PM.Timer))
	put32(80, uint32(c.PM.GPE0))
	put8(88, 4)
	put8(89, 2)
	put8(91, 4)
	put8(92, c.PM.GPE0Len)
	put16(96, noC2C3)
	put16(98, noC2C3)
	if c.RTC {
		put8(108, cmosCentury)
	}
	put16(109, c.bootArch())
	put32(112, fadtWBINVD|fadtC1|fadtNoSleepBtn|fadtNoRTCWake|fadtTimer32|fadtReset)
	copy(b[fadtResetOffset:], gas(c.PM.Reset, 1, accessByte))
	put8(128, c.PM.ResetValue)
	put8(131, fadtMinor)
	le.PutUint64(b[140-headerSize:], dsdt)
	copy(b[fadtX:], gas(c.PM.Event, 4, accessWord))
	copy(b[fadtXControl:], gas(c.PM.Control, 2, accessWord))
	copy(b[fadtXTimer:], gas(c.PM.Timer, 4, accessDword))
	if c.PM.GPE0Len > 0 {
		copy(b[fadtXGPE0:], gas(c.PM.GPE0, c.PM.GPE0Len, accessByte))
	}
	copy(b[268-headerSize:], "berth")
	return b
}

func (c *Config) bootArch() uint16 {
	f := uint16(bootNoASPM)
	if c.PIC {
		f |= bootLegacy
	}
	if c.I8042 {
		f |= boot8042
	}
	if !c.VGA {
		f |= bootNoVGA
	}
	if !c.RTC {
		f |= bootNoCMOSRTC
	}
	return f
}

// gas is a generic address structure for size ports at port (ACPI §5.2.3.2).
//
//	0 space u8 | 1 width in bits u8 | 2 bit offset u8 | 3 access size u8 | 4 address u64
func gas(port uint16, size, access uint8) []byte {
	b := make([]byte, gasSize)
	b[0], b[1], b[3] = gasIO, size*8, access
	binary.LittleEndian.PutUint64(b[4:], uint64(port))
	return b
}

// MADT entry types and flags (ACPI §5.2.12).
const (
	madtLAPIC     = 0
	madtIOAPIC    = 1
	madtOverride  = 2
	madtLAPICNMI  = 4
	madtX2APIC    = 9
	madtX2APICNMI = 10
	madtPCAT      = 1 // there are 8259s too
	madtEnabled   = 1
	mpsActiveHigh = 1
	mpsLevel      = 3 << 2
	lint1         = 1
	firstX2APICID = 255
	timerGSI      = 2
	allUIDs8      = 0xff
	allUIDs32     = 0xffffffff
	mcfgReserved  = 8
)

// isX2APIC reports whether a processor's numbers do not fit a local APIC's
// entry, where 255 stands for all.
func (c *Config) isX2APIC(uid int) bool { return c.CPUs[uid] >= firstX2APICID || uid >= allUIDs8 }

// madt returns the interrupt controllers' table after its header: local APICs
// (IDs from 255 up as x2APICs), the IOAPIC, the ISA timer on GSI 2, the SCI's
// trigger mode, and NMI on LINT1 of all processors.
func (c *Config) madt() []byte {
	flags := uint32(0)
	if c.PIC {
		flags = madtPCAT
	}
	b := append(le32(c.LAPIC), le32(flags)...)
	x2 := false
	for uid, id := range c.CPUs {
		if !c.isX2APIC(uid) {
			b = append(b, madtLAPIC, 8, uint8(uid), uint8(id))
			b = append(b, le32(madtEnabled)...)
			continue
		}
		x2 = true
		b = append(b, madtX2APIC, 16, 0, 0)
		b = append(b, le32(id)...)
		b = append(b, le32(madtEnabled)...)
		b = append(b, le32(uint32(uid))...)
	}
	b = append(b, madtIOAPIC, 12, c.IOAPICID, 0)
	b = append(b, le32(c.IOAPIC)...)
	b = append(b, le32(0)...)
	if c.PIC {
		b = append(b, isaOverride(0, timerGSI, 0)...)
	}
	b = append(b, isaOverride(c.PM.SCI, uint32(c.PM.SCI), mpsActiveHigh|mpsLevel)...)
	b = append(b, madtLAPICNMI, 6, allUIDs8, 0, 0, lint1)
	if x2 {
		b = append(b, madtX2APICNMI, 12, 0, 0)
		b = append(b, le32(allUIDs32)...)
		b = append(b, lint1, 0, 0, 0)
	}
	return b
}

func isaOverride(irq uint8, gsi uint32, flags uint16) []byte {
	b := append([]byte{madtOverride, 10, 0, irq}, le32(gsi)...)
	return append(b, le16(flags)...)
}

// mcfg returns the ECAM table after its header (PCI Firmware 3.0 §4.1.2).
func (c *Config) mcfg() []byte {
	b := make([]byte, mcfgReserved)
	b = append(b, le64(c.ECAM.Base)...)
	b = append(b, 0, 0, 0, uint8(c.ECAM.Size>>20-1)) // segment u16, first and last bus
	return append(b, le32(0)...)
}
