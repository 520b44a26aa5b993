package kvmapi

// UserspaceMemoryRegion is struct kvm_userspace_memory_region: one memslot.
type UserspaceMemoryRegion struct {
	Slot          uint32
	Flags         uint32
	GuestPhysAddr uint64
	MemorySize    uint64 // bytes; 0 deletes the slot
	UserspaceAddr uint64
}

// DirtyLog is struct kvm_dirty_log. Bitmap is the address of one bit per page
// of the slot, rounded up to 64.
type DirtyLog struct {
	Slot   uint32
	_      uint32
	Bitmap uint64
}

// IRQLevel is struct kvm_irq_level.
type IRQLevel struct {
	IRQ   uint32
	Level uint32
}

// IRQChip is struct kvm_irqchip; PIC and IOAPIC view its union.
type IRQChip struct {
	ChipID uint32
	_      uint32
	Chip   [512]byte
}

// PICState is struct kvm_pic_state.
type PICState struct {
	LastIRR, IRR, IMR, ISR uint8
	PriorityAdd            uint8
	IRQBase                uint8
	ReadRegSelect          uint8
	Poll                   uint8
	SpecialMask            uint8
	InitState              uint8
	AutoEOI                uint8
	RotateOnAutoEOI        uint8
	SpecialFullyNestedMode uint8
	Init4                  uint8
	ELCR                   uint8
	ELCRMask               uint8
}

// IOAPICState is struct kvm_ioapic_state.
type IOAPICState struct {
	BaseAddress uint64
	IORegSel    uint32
	ID          uint32
	IRR         uint32
	_           uint32
	RedirTbl    [KVM_IOAPIC_NUM_PINS]uint64
}

// PITConfig is struct kvm_pit_config.
type PITConfig struct {
	Flags uint32
	_     [15]uint32
}

// PITChannelState is struct kvm_pit_channel_state.
type PITChannelState struct {
	Count         uint32
	LatchedCount  uint16
	CountLatched  uint8
	StatusLatched uint8
	Status        uint8
	ReadState     uint8
	WriteState    uint8
	WriteLatch    uint8
	RWMode        uint8
	Mode          uint8
	BCD           uint8
	Gate          uint8
	CountLoadTime int64 // ns of the host's CLOCK_MONOTONIC
}

// PITState2 is struct kvm_pit_state2.
type PITState2 struct {
	Channels [3]PITChannelState
	Flags    uint32
	_        [9]uint32
}

// MaxRoutes is the kernel's limit of routing entries (KVM_MAX_IRQ_ROUTES).
const MaxRoutes = 4096

// IRQRouting is struct kvm_irq_routing with room for every entry.
type IRQRouting struct {
	Nr      uint32
	Flags   uint32
	Entries [MaxRoutes]IRQRoutingEntry
}

// IRQRoutingEntry is struct kvm_irq_routing_entry. The union's words are
// {chip, pin} or {address low, address high, data}.
type IRQRoutingEntry struct {
	GSI   uint32
	Type  uint32
	Flags uint32
	_     uint32
	U     [8]uint32
}

// IRQFD is struct kvm_irqfd.
type IRQFD struct {
	FD         uint32
	GSI        uint32
	Flags      uint32
	ResampleFD uint32
	_          [16]uint8
}

// IOEventFD is struct kvm_ioeventfd.
type IOEventFD struct {
	DataMatch uint64
	Addr      uint64
	Len       uint32
	FD        int32
	Flags     uint32
	_         [36]uint8
}

// MSI is struct kvm_msi.
type MSI struct {
	AddressLo uint32
	AddressHi uint32
	Data      uint32
	Flags     uint32
	DevID     uint32
	_         [12]uint8
}

// ClockData is struct kvm_clock_data.
type ClockData struct {
	Clock    uint64 // ns
	Flags    uint32
	_        uint32
	Realtime uint64
	HostTSC  uint64
	_        [4]uint32
}

// DeviceAttr is struct kvm_device_attr. Addr is the address of the datum.
type DeviceAttr struct {
	Flags uint32
	Group uint32
	Attr  uint64
	Addr  uint64
}

// MaxCPUIDEntries is the kernel's limit (KVM_MAX_CPUID_ENTRIES).
const MaxCPUIDEntries = 256

// CPUID2 is struct kvm_cpuid2 with room for every entry.
type CPUID2 struct {
	Nent    uint32
	_       uint32
	Entries [MaxCPUIDEntries]CPUIDEntry2
}

// CPUIDEntry2 is struct kvm_cpuid_entry2.
type CPUIDEntry2 struct {
	Function           uint32
	Index              uint32
	Flags              uint32
	EAX, EBX, ECX, EDX uint32
	_                  [3]uint32
}

// MaxMSREntries is the kernel's limit for one KVM_GET_MSRS or KVM_SET_MSRS (MAX_IO_MSRS).
const MaxMSREntries = 256

// MSRs is struct kvm_msrs with room for every entry.
type MSRs struct {
	Nmsrs   uint32
	_       uint32
	Entries [MaxMSREntries]MSREntry
}

// MSREntry is struct kvm_msr_entry.
type MSREntry struct {
	Index uint32
	_     uint32
	Data  uint64
}

// MSRList is struct kvm_msr_list with room for more than any kernel names.
type MSRList struct {
	Nmsrs   uint32
	Indices [2048]uint32
}

// Regs is struct kvm_regs.
type Regs struct {
	RAX, RBX, RCX, RDX uint64
	RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11   uint64
	R12, R13, R14, R15 uint64
	RIP, RFLAGS        uint64
}

// Segment is struct kvm_segment.
type Segment struct {
	Base                           uint64
	Limit                          uint32
	Selector                       uint16
	Type                           uint8
	Present, DPL, DB, S, L, G, AVL uint8
	Unusable                       uint8
	_                              uint8
}

// DTable is struct kvm_dtable.
type DTable struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// Sregs is struct kvm_sregs.
type Sregs struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                DTable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	InterruptBitmap         [4]uint64
}

// Translation is struct kvm_translation.
type Translation struct {
	LinearAddress   uint64
	PhysicalAddress uint64
	Valid           uint8
	Writeable       uint8
	Usermode        uint8
	_               [5]uint8
}

// LAPICState is struct kvm_lapic_state: register n at byte 16 n.
type LAPICState struct {
	Regs [0x400]byte
}

// X86MCE is struct kvm_x86_mce.
type X86MCE struct {
	Status    uint64
	Addr      uint64
	Misc      uint64
	MCGStatus uint64
	Bank      uint8
	_         [7]uint8
	_         [3]uint64
}

// MPState is struct kvm_mp_state.
type MPState struct {
	MPState uint32
}

// VCPUEvents is struct kvm_vcpu_events.
type VCPUEvents struct {
	Exception struct {
		Injected, Nr, HasErrorCode, Pending uint8
		ErrorCode                           uint32
	}
	Interrupt struct {
		Injected, Nr, Soft, Shadow uint8
	}
	NMI struct {
		Injected, Pending, Masked, _ uint8
	}
	SIPIVector uint32
	Flags      uint32
	SMI        struct {
		SMM, Pending, SMMInsideNMI, LatchedInit uint8
	}
	TripleFault struct {
		Pending uint8
	}
	_                   [26]uint8
	ExceptionHasPayload uint8
	ExceptionPayload    uint64
}

// DebugRegs is struct kvm_debugregs.
type DebugRegs struct {
	DB    [4]uint64
	DR6   uint64
	DR7   uint64
	Flags uint64
	_     [9]uint64
}

// GuestDebug is struct kvm_guest_debug.
type GuestDebug struct {
	Control  uint32
	_        uint32
	DebugReg [8]uint64
}

// XSave is struct kvm_xsave: the standard form of XSAVE's area, the offsets of
// its components those of the host's CPUID leaf 0xd.
type XSave struct {
	Region [4096]byte
}

// XCR is struct kvm_xcr.
type XCR struct {
	XCR   uint32
	_     uint32
	Value uint64
}

// XCRs is struct kvm_xcrs.
type XCRs struct {
	NrXCRs uint32
	Flags  uint32
	XCRs   [KVM_MAX_XCRS]XCR
	_      [16]uint64
}

// Run is the head of struct kvm_run, which the kernel shares with the vCPU's
// mapping; IO to SystemEvent view its union.
//
//	0 request_interrupt_window | 1 immediate_exit | 8 exit_reason | 12 ready, if_flag, flags
//	16 cr8 | 24 apic_base | 32 union
type Run struct {
	RequestInterruptWindow     uint8
	ImmediateExit              uint8
	_                          [6]uint8
	ExitReason                 ExitReason
	ReadyForInterruptInjection uint8
	IfFlag                     uint8
	Flags                      uint16
	CR8                        uint64
	APICBase                   uint64
	Union                      [256]byte
}

// RunIO is kvm_run.io.
type RunIO struct {
	Direction  uint8
	Size       uint8 // bytes of one element
	Port       uint16
	Count      uint32 // elements
	DataOffset uint64 // of the elements, from the start of the mapping
}

// RunMMIO is kvm_run.mmio.
type RunMMIO struct {
	PhysAddr uint64
	Data     [8]byte
	Len      uint32
	IsWrite  uint8
}

// RunFailEntry is kvm_run.fail_entry.
type RunFailEntry struct {
	HardwareEntryFailureReason uint64
	CPU                        uint32
}

// RunInternal is kvm_run.internal; an emulation failure keeps flags in Data[0]
// and, from Data[1] on, the size and bytes of the instruction.
type RunInternal struct {
	Suberror Suberror
	Ndata    uint32
	Data     [16]uint64
}

// RunEmulationFailure is kvm_run.emulation_failure.
type RunEmulationFailure struct {
	Suberror  Suberror
	Ndata     uint32
	Flags     uint64
	InsnSize  uint8
	InsnBytes [15]uint8
}

// RunDebug is kvm_run.debug.arch.
type RunDebug struct {
	Exception uint32
	_         uint32
	PC        uint64
	DR6       uint64
	DR7       uint64
}

// RunSystemEvent is kvm_run.system_event.
type RunSystemEvent struct {
	Type  uint32
	Ndata uint32
	Data  [16]uint64
}
