package irq

// ChipState is the interrupt controllers and the interval timer of one VM in a
// form that every accelerator saves and loads.
type ChipState struct {
	Version uint32 // 1
	PIC     [2]PICState
	IOAPIC  IOAPICState
	PIT     PITState
	LAPIC   []LAPICState // by vCPU
	FERR    FERRState
	// ParavirtClock is what kvmclock shows, in ns; 0 where the engine has none.
	ParavirtClock uint64
}

// FERRState is a PC's logic for the FPU's error pin. KVM has none.
type FERRState struct {
	Asserted bool // FERR#
	Ignored  bool // IGNNE#
}

// PICState is one 8259A: request, mask and service registers, and where its
// initialisation sequence stands.
type PICState struct {
	LastIRR, IRR, IMR, ISR  uint8
	PriorityAdd             uint8 // the lowest-priority input + 1, mod 8
	VectorBase              uint8
	ReadISR                 bool // OCW3: the next read returns ISR
	Poll                    bool
	SpecialMask             bool
	InitState               uint8 // 0 ready, 1-3 the next ICW to come + 1 is 2-4
	AutoEOI                 bool
	RotateOnAutoEOI         bool
	SpecialFullyNested      bool
	Init4                   bool  // ICW4 expected
	Single                  bool  // ICW1: no ICW3 expected
	LevelTriggered          uint8 // ELCR
	LevelTriggeredPermitted uint8 // ELCR bits that can be set
}

// IOAPICState is one 82093AA.
type IOAPICState struct {
	ID       uint8
	Select   uint32
	IRR      uint32     // input levels as they stand, by pin
	Redirect [24]uint64 // the redirection table, delivery status and remote IRR included
}

// PITState is one 8254.
type PITState struct {
	Channel   [3]PITChannel
	SpeakerOn bool // port 0x61 bit 1
}

// PITChannel is one counter of an 8254.
type PITChannel struct {
	Count         uint32 // 0x10000 (BCD: 10000) for a programmed 0
	LatchedCount  uint16
	CountLatched  uint8 // 0 none; else as ReadState
	StatusLatched bool
	Status        uint8
	ReadState     uint8 // the next byte: 1 low only, 2 high only, 3 low of two, 4 high of two
	WriteState    uint8 // likewise
	WriteLatch    uint8
	RWMode        uint8 // 1 low only, 2 high only, 3 both
	Mode          uint8
	BCD           bool
	Gate          bool
	LoadTime      uint64 // guest time in ns at which Count was loaded
	// What KVM's timer does not know, and leaves 0:
	Idle     bool   // nothing counts: no count since the control word, or modes 1 and 5 wait for the gate
	Next     uint32 // the count to take up at NextTime (modes 2 and 3) or with the gate (all but 0 and 4); 0: none
	NextTime uint64 // guest time in ns
	Stopped  uint64 // how long it had counted, in ns, when the gate stopped it
}

// LAPICState is one local APIC: its registers as the xAPIC page shows them,
// Regs[n] being the 32-bit register at offset n*16. In x2APIC mode the ID is all
// of Regs[2], and Regs[0x31] the upper half of the interrupt command.
type LAPICState struct {
	Regs        [64]uint32
	Base        uint64 // IA32_APIC_BASE
	TSCDeadline uint64
	Errors      uint32 // found since ESR was last written
	ExtINT      bool   // an ExtINT message waits
}
