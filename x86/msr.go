package x86

// MSR indices (Intel SDM vol. 4; AMD APM vol. 2 appendix A for 0xc000_0000 and up).
const (
	MSRTSC            = 0x10
	MSRPlatformID     = 0x17
	MSRAPICBase       = 0x1b
	MSRFeatureControl = 0x3a
	MSRTSCAdjust      = 0x3b
	MSRSpecCtrl       = 0x48
	MSRBiosSignID     = 0x8b
	MSRMTRRCap        = 0xfe
	MSRArchCaps       = 0x10a
	MSRSysenterCS     = 0x174
	MSRSysenterESP    = 0x175
	MSRSysenterEIP    = 0x176
	MSRMCGCap         = 0x179
	MSRMCGStatus      = 0x17a
	MSRMiscEnable     = 0x1a0
	MSRMTRRPhysBase0  = 0x200
	MSRMTRRFix64K     = 0x250
	MSRPAT            = 0x277
	MSRMTRRDefType    = 0x2ff
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
