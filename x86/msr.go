package x86

// MSR indices (Intel SDM vol. 4; AMD APM vol. 2 appendix A for 0xc000_0000 and up).
const (
	MSRP5MCAddr       = 0x0
	MSRP5MCType       = 0x1
	MSRTSC            = 0x10
	MSRPlatformID     = 0x17
	MSRAPICBase       = 0x1b
	MSRFeatureControl = 0x3a
	MSRTSCAdjust      = 0x3b
	MSREBLPowerOn     = 0x2a
	MSRBiosUpdate     = 0x79
	MSRBiosSignID     = 0x8b
	MSRFSBFreq        = 0xcd
	MSRMTRRCap        = 0xfe
	MSRArchCaps       = 0x10a
	MSRL2Control      = 0x11e // BBL_CR_CTL3
	MSRSysenterCS     = 0x174
	MSRSysenterESP    = 0x175
	MSRSysenterEIP    = 0x176
	MSRMCGCap         = 0x179
	MSRMCGStatus      = 0x17a
	MSRMCGCtl         = 0x17b
	MSRPerfStatus     = 0x198
	MSRMiscEnable     = 0x1a0
	MSRDebugCtl       = 0x1d9
	MSRMTRRPhysBase0  = 0x200
	MSRMTRRFix64K     = 0x250
	MSRPAT            = 0x277
	MSRMTRRDefType    = 0x2ff
	MSRMC0Ctl         = 0x400 // then STATUS, ADDR and MISC; four for each bank
	MSRTSCDeadline    = 0x6e0
	MSRX2APIC         = 0x800 // to 0x8ff
	MSREFER           = 0xc0000080
	MSRSTAR           = 0xc0000081
	MSRLSTAR          = 0xc0000082
	MSRCSTAR          = 0xc0000083
	MSRFMASK          = 0xc0000084
	MSRFSBase         = 0xc0000100
	MSRGSBase         = 0xc0000101
	MSRKernelGSBase   = 0xc0000102
	MSRTSCAux         = 0xc0000103
)
