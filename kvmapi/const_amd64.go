package kvmapi

// Request is an ioctl number of a KVM file descriptor.
type Request uint32

// Requests on /dev/kvm.
const (
	KVM_GET_API_VERSION            Request = 0xae00
	KVM_CREATE_VM                  Request = 0xae01
	KVM_GET_MSR_INDEX_LIST         Request = 0xc004ae02
	KVM_CHECK_EXTENSION            Request = 0xae03
	KVM_GET_VCPU_MMAP_SIZE         Request = 0xae04
	KVM_GET_SUPPORTED_CPUID        Request = 0xc008ae05
	KVM_GET_MSR_FEATURE_INDEX_LIST Request = 0xc004ae0a
	KVM_X86_GET_MCE_CAP_SUPPORTED  Request = 0x8008ae9d
)

// Requests on a VM.
const (
	KVM_CREATE_VCPU            Request = 0xae41
	KVM_GET_DIRTY_LOG          Request = 0x4010ae42
	KVM_SET_USER_MEMORY_REGION Request = 0x4020ae46
	KVM_SET_TSS_ADDR           Request = 0xae47
	KVM_SET_IDENTITY_MAP_ADDR  Request = 0x4008ae48
	KVM_CREATE_IRQCHIP         Request = 0xae60
	KVM_IRQ_LINE               Request = 0x4008ae61
	KVM_GET_IRQCHIP            Request = 0xc208ae62
	KVM_SET_IRQCHIP            Request = 0x8208ae63
	KVM_SET_GSI_ROUTING        Request = 0x4008ae6a
	KVM_IRQFD                  Request = 0x4020ae76
	KVM_CREATE_PIT2            Request = 0x4040ae77
	KVM_IOEVENTFD              Request = 0x4040ae79
	KVM_SET_CLOCK              Request = 0x4030ae7b
	KVM_GET_CLOCK              Request = 0x8030ae7c
	KVM_GET_PIT2               Request = 0x8070ae9f
	KVM_SET_PIT2               Request = 0x4070aea0
	KVM_SIGNAL_MSI             Request = 0x4020aea5
)

// Requests on a vCPU.
const (
	KVM_RUN             Request = 0xae80
	KVM_GET_REGS        Request = 0x8090ae81
	KVM_SET_REGS        Request = 0x4090ae82
	KVM_GET_SREGS       Request = 0x8138ae83
	KVM_SET_SREGS       Request = 0x4138ae84
	KVM_TRANSLATE       Request = 0xc018ae85
	KVM_GET_MSRS        Request = 0xc008ae88
	KVM_SET_MSRS        Request = 0x4008ae89
	KVM_GET_LAPIC       Request = 0x8400ae8e
	KVM_SET_LAPIC       Request = 0x4400ae8f
	KVM_SET_CPUID2      Request = 0x4008ae90
	KVM_GET_MP_STATE    Request = 0x8004ae98
	KVM_SET_MP_STATE    Request = 0x4004ae99
	KVM_NMI             Request = 0xae9a
	KVM_SET_GUEST_DEBUG Request = 0x4048ae9b
	KVM_X86_SETUP_MCE   Request = 0x4008ae9c
	KVM_X86_SET_MCE     Request = 0x4040ae9e
	KVM_GET_VCPU_EVENTS Request = 0x8040ae9f
	KVM_SET_VCPU_EVENTS Request = 0x4040aea0
	KVM_GET_DEBUGREGS   Request = 0x8080aea1
	KVM_SET_DEBUGREGS   Request = 0x4080aea2
	KVM_GET_TSC_KHZ     Request = 0xaea3
	KVM_GET_XSAVE       Request = 0x9000aea4
	KVM_SET_XSAVE       Request = 0x5000aea5
	KVM_GET_XCRS        Request = 0x8188aea6
	KVM_SET_XCRS        Request = 0x4188aea7
	KVM_KVMCLOCK_CTRL   Request = 0xaead
	KVM_SET_DEVICE_ATTR Request = 0x4018aee1
	KVM_GET_DEVICE_ATTR Request = 0x4018aee2
	KVM_HAS_DEVICE_ATTR Request = 0x4018aee3
)

// KVM_API_VERSION is the only answer of KVM_GET_API_VERSION since Linux 2.6.22.
const KVM_API_VERSION = 12

// Cap is a capability number of KVM_CHECK_EXTENSION.
type Cap uint32

// Capabilities that berth asks for.
const (
	KVM_CAP_IRQCHIP               Cap = 0
	KVM_CAP_USER_MEMORY           Cap = 3
	KVM_CAP_SET_TSS_ADDR          Cap = 4
	KVM_CAP_EXT_CPUID             Cap = 7
	KVM_CAP_MP_STATE              Cap = 14
	KVM_CAP_USER_NMI              Cap = 22
	KVM_CAP_IRQ_ROUTING           Cap = 25
	KVM_CAP_MCE                   Cap = 31
	KVM_CAP_IRQFD                 Cap = 32
	KVM_CAP_PIT2                  Cap = 33
	KVM_CAP_PIT_STATE2            Cap = 35
	KVM_CAP_IOEVENTFD             Cap = 36
	KVM_CAP_SET_IDENTITY_MAP_ADDR Cap = 37
	KVM_CAP_ADJUST_CLOCK          Cap = 39
	KVM_CAP_VCPU_EVENTS           Cap = 41
	KVM_CAP_DEBUGREGS             Cap = 50
	KVM_CAP_XSAVE                 Cap = 55
	KVM_CAP_XCRS                  Cap = 56
	KVM_CAP_MAX_VCPUS             Cap = 66
	KVM_CAP_TSC_DEADLINE_TIMER    Cap = 72
	KVM_CAP_SIGNAL_MSI            Cap = 77
	KVM_CAP_READONLY_MEM          Cap = 81
	KVM_CAP_MAX_VCPU_ID           Cap = 128
	KVM_CAP_IMMEDIATE_EXIT        Cap = 136
	KVM_CAP_SET_GUEST_DEBUG2      Cap = 195
)

// ExitReason is kvm_run.exit_reason.
type ExitReason uint32

// Exit reasons; those of other architectures are left out.
const (
	KVM_EXIT_UNKNOWN         ExitReason = 0
	KVM_EXIT_EXCEPTION       ExitReason = 1
	KVM_EXIT_IO              ExitReason = 2
	KVM_EXIT_HYPERCALL       ExitReason = 3
	KVM_EXIT_DEBUG           ExitReason = 4
	KVM_EXIT_HLT             ExitReason = 5
	KVM_EXIT_MMIO            ExitReason = 6
	KVM_EXIT_IRQ_WINDOW_OPEN ExitReason = 7
	KVM_EXIT_SHUTDOWN        ExitReason = 8
	KVM_EXIT_FAIL_ENTRY      ExitReason = 9
	KVM_EXIT_INTR            ExitReason = 10
	KVM_EXIT_SET_TPR         ExitReason = 11
	KVM_EXIT_TPR_ACCESS      ExitReason = 12
	KVM_EXIT_NMI             ExitReason = 16
	KVM_EXIT_INTERNAL_ERROR  ExitReason = 17
	KVM_EXIT_WATCHDOG        ExitReason = 21
	KVM_EXIT_SYSTEM_EVENT    ExitReason = 24
	KVM_EXIT_IOAPIC_EOI      ExitReason = 26
	KVM_EXIT_HYPERV          ExitReason = 27
	KVM_EXIT_X86_RDMSR       ExitReason = 29
	KVM_EXIT_X86_WRMSR       ExitReason = 30
	KVM_EXIT_DIRTY_RING_FULL ExitReason = 31
	KVM_EXIT_AP_RESET_HOLD   ExitReason = 32
	KVM_EXIT_X86_BUS_LOCK    ExitReason = 33
	KVM_EXIT_XEN             ExitReason = 34
	KVM_EXIT_NOTIFY          ExitReason = 37
)

// Suberror is the first datum of KVM_EXIT_INTERNAL_ERROR.
type Suberror uint32

// Internal errors.
const (
	KVM_INTERNAL_ERROR_EMULATION              Suberror = 1
	KVM_INTERNAL_ERROR_SIMUL_EX               Suberror = 2
	KVM_INTERNAL_ERROR_DELIVERY_EV            Suberror = 3
	KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON Suberror = 4
)

// KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES says that an emulation failure carries instruction bytes.
const KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1

// Fields of KVM_EXIT_IO and KVM_EXIT_SYSTEM_EVENT.
const (
	KVM_EXIT_IO_IN  = 0
	KVM_EXIT_IO_OUT = 1

	KVM_SYSTEM_EVENT_SHUTDOWN = 1
	KVM_SYSTEM_EVENT_RESET    = 2
	KVM_SYSTEM_EVENT_CRASH    = 3
)

// Flags and selectors of the structs.
const (
	KVM_MEM_LOG_DIRTY_PAGES = 1
	KVM_MEM_READONLY        = 2

	KVM_IRQCHIP_PIC_MASTER = 0
	KVM_IRQCHIP_PIC_SLAVE  = 1
	KVM_IRQCHIP_IOAPIC     = 2
	KVM_IOAPIC_NUM_PINS    = 24

	KVM_IRQ_ROUTING_IRQCHIP = 1
	KVM_IRQ_ROUTING_MSI     = 2
	KVM_IRQFD_FLAG_DEASSIGN = 1

	KVM_IOEVENTFD_FLAG_DATAMATCH = 1
	KVM_IOEVENTFD_FLAG_PIO       = 2
	KVM_IOEVENTFD_FLAG_DEASSIGN  = 4

	KVM_PIT_SPEAKER_DUMMY         = 1
	KVM_PIT_FLAGS_SPEAKER_DATA_ON = 2

	KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1

	KVM_VCPUEVENT_VALID_NMI_PENDING = 1
	KVM_VCPUEVENT_VALID_SIPI_VECTOR = 2
	KVM_VCPUEVENT_VALID_SHADOW      = 4
	KVM_X86_SHADOW_INT_MOV_SS       = 1
	KVM_X86_SHADOW_INT_STI          = 2

	KVM_GUESTDBG_ENABLE     = 0x1
	KVM_GUESTDBG_SINGLESTEP = 0x2
	KVM_GUESTDBG_USE_SW_BP  = 0x10000
	KVM_GUESTDBG_USE_HW_BP  = 0x20000
	KVM_GUESTDBG_INJECT_DB  = 0x40000
	KVM_GUESTDBG_INJECT_BP  = 0x80000
	KVM_GUESTDBG_BLOCKIRQ   = 0x100000

	KVM_MP_STATE_RUNNABLE      = 0
	KVM_MP_STATE_UNINITIALIZED = 1
	KVM_MP_STATE_INIT_RECEIVED = 2
	KVM_MP_STATE_HALTED        = 3
	KVM_MP_STATE_SIPI_RECEIVED = 4

	KVM_VCPU_TSC_CTRL   = 0
	KVM_VCPU_TSC_OFFSET = 0

	KVM_MAX_XCRS = 16
)
