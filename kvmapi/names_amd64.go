package kvmapi

import "fmt"

// String returns the C name.
func (v Request) String() string {
	switch v {
	case KVM_GET_API_VERSION:
		return "KVM_GET_API_VERSION"
	case KVM_CREATE_VM:
		return "KVM_CREATE_VM"
	case KVM_GET_MSR_INDEX_LIST:
		return "KVM_GET_MSR_INDEX_LIST"
	case KVM_CHECK_EXTENSION:
		return "KVM_CHECK_EXTENSION"
	case KVM_GET_VCPU_MMAP_SIZE:
		return "KVM_GET_VCPU_MMAP_SIZE"
	case KVM_GET_SUPPORTED_CPUID:
		return "KVM_GET_SUPPORTED_CPUID"
	case KVM_GET_MSR_FEATURE_INDEX_LIST:
		return "KVM_GET_MSR_FEATURE_INDEX_LIST"
	case KVM_X86_GET_MCE_CAP_SUPPORTED:
		return "KVM_X86_GET_MCE_CAP_SUPPORTED"
	case KVM_CREATE_VCPU:
		return "KVM_CREATE_VCPU"
	case KVM_GET_DIRTY_LOG:
		return "KVM_GET_DIRTY_LOG"
	case KVM_SET_USER_MEMORY_REGION:
		return "KVM_SET_USER_MEMORY_REGION"
	case KVM_SET_TSS_ADDR:
		return "KVM_SET_TSS_ADDR"
	case KVM_SET_IDENTITY_MAP_ADDR:
		return "KVM_SET_IDENTITY_MAP_ADDR"
	case KVM_CREATE_IRQCHIP:
		return "KVM_CREATE_IRQCHIP"
	case KVM_IRQ_LINE:
		return "KVM_IRQ_LINE"
	case KVM_GET_IRQCHIP:
		return "KVM_GET_IRQCHIP"
	case KVM_SET_IRQCHIP:
		return "KVM_SET_IRQCHIP"
	case KVM_SET_GSI_ROUTING:
		return "KVM_SET_GSI_ROUTING"
	case KVM_IRQFD:
		return "KVM_IRQFD"
	case KVM_CREATE_PIT2:
		return "KVM_CREATE_PIT2"
	case KVM_IOEVENTFD:
		return "KVM_IOEVENTFD"
	case KVM_SET_CLOCK:
		return "KVM_SET_CLOCK"
	case KVM_GET_CLOCK:
		return "KVM_GET_CLOCK"
	case KVM_GET_PIT2:
		return "KVM_GET_PIT2"
	case KVM_SET_PIT2:
		return "KVM_SET_PIT2"
	case KVM_SIGNAL_MSI:
		return "KVM_SIGNAL_MSI"
	case KVM_RUN:
		return "KVM_RUN"
	case KVM_GET_REGS:
		return "KVM_GET_REGS"
	case KVM_SET_REGS:
		return "KVM_SET_REGS"
	case KVM_GET_SREGS:
		return "KVM_GET_SREGS"
	case KVM_SET_SREGS:
		return "KVM_SET_SREGS"
	case KVM_TRANSLATE:
		return "KVM_TRANSLATE"
	case KVM_GET_MSRS:
		return "KVM_GET_MSRS"
	case KVM_SET_MSRS:
		return "KVM_SET_MSRS"
	case KVM_GET_LAPIC:
		return "KVM_GET_LAPIC"
	case KVM_SET_LAPIC:
		return "KVM_SET_LAPIC"
	case KVM_SET_CPUID2:
		return "KVM_SET_CPUID2"
	case KVM_GET_MP_STATE:
		return "KVM_GET_MP_STATE"
	case KVM_SET_MP_STATE:
		return "KVM_SET_MP_STATE"
	case KVM_NMI:
		return "KVM_NMI"
	case KVM_SET_GUEST_DEBUG:
		return "KVM_SET_GUEST_DEBUG"
	case KVM_X86_SETUP_MCE:
		return "KVM_X86_SETUP_MCE"
	case KVM_X86_SET_MCE:
		return "KVM_X86_SET_MCE"
	case KVM_GET_VCPU_EVENTS:
		return "KVM_GET_VCPU_EVENTS"
	case KVM_SET_VCPU_EVENTS:
		return "KVM_SET_VCPU_EVENTS"
	case KVM_GET_DEBUGREGS:
		return "KVM_GET_DEBUGREGS"
	case KVM_SET_DEBUGREGS:
		return "KVM_SET_DEBUGREGS"
	case KVM_GET_TSC_KHZ:
		return "KVM_GET_TSC_KHZ"
	case KVM_GET_XSAVE:
		return "KVM_GET_XSAVE"
	case KVM_SET_XSAVE:
		return "KVM_SET_XSAVE"
	case KVM_GET_XCRS:
		return "KVM_GET_XCRS"
	case KVM_SET_XCRS:
		return "KVM_SET_XCRS"
	case KVM_KVMCLOCK_CTRL:
		return "KVM_KVMCLOCK_CTRL"
	case KVM_SET_DEVICE_ATTR:
		return "KVM_SET_DEVICE_ATTR"
	case KVM_GET_DEVICE_ATTR:
		return "KVM_GET_DEVICE_ATTR"
	case KVM_HAS_DEVICE_ATTR:
		return "KVM_HAS_DEVICE_ATTR"
	}
	return fmt.Sprintf("KVM ioctl 0x%x", uint32(v))
}

// String returns the C name.
func (v Cap) String() string {
	switch v {
	case KVM_CAP_IRQCHIP:
		return "KVM_CAP_IRQCHIP"
	case KVM_CAP_USER_MEMORY:
		return "KVM_CAP_USER_MEMORY"
	case KVM_CAP_SET_TSS_ADDR:
		return "KVM_CAP_SET_TSS_ADDR"
	case KVM_CAP_EXT_CPUID:
		return "KVM_CAP_EXT_CPUID"
	case KVM_CAP_MP_STATE:
		return "KVM_CAP_MP_STATE"
	case KVM_CAP_USER_NMI:
		return "KVM_CAP_USER_NMI"
	case KVM_CAP_IRQ_ROUTING:
		return "KVM_CAP_IRQ_ROUTING"
	case KVM_CAP_MCE:
		return "KVM_CAP_MCE"
	case KVM_CAP_IRQFD:
		return "KVM_CAP_IRQFD"
	case KVM_CAP_PIT2:
		return "KVM_CAP_PIT2"
	case KVM_CAP_PIT_STATE2:
		return "KVM_CAP_PIT_STATE2"
	case KVM_CAP_IOEVENTFD:
		return "KVM_CAP_IOEVENTFD"
	case KVM_CAP_SET_IDENTITY_MAP_ADDR:
		return "KVM_CAP_SET_IDENTITY_MAP_ADDR"
	case KVM_CAP_ADJUST_CLOCK:
		return "KVM_CAP_ADJUST_CLOCK"
	case KVM_CAP_VCPU_EVENTS:
		return "KVM_CAP_VCPU_EVENTS"
	case KVM_CAP_DEBUGREGS:
		return "KVM_CAP_DEBUGREGS"
	case KVM_CAP_XSAVE:
		return "KVM_CAP_XSAVE"
	case KVM_CAP_XCRS:
		return "KVM_CAP_XCRS"
	case KVM_CAP_MAX_VCPUS:
		return "KVM_CAP_MAX_VCPUS"
	case KVM_CAP_TSC_DEADLINE_TIMER:
		return "KVM_CAP_TSC_DEADLINE_TIMER"
	case KVM_CAP_SIGNAL_MSI:
		return "KVM_CAP_SIGNAL_MSI"
	case KVM_CAP_READONLY_MEM:
		return "KVM_CAP_READONLY_MEM"
	case KVM_CAP_MAX_VCPU_ID:
		return "KVM_CAP_MAX_VCPU_ID"
	case KVM_CAP_IMMEDIATE_EXIT:
		return "KVM_CAP_IMMEDIATE_EXIT"
	case KVM_CAP_SET_GUEST_DEBUG2:
		return "KVM_CAP_SET_GUEST_DEBUG2"
	}
	return fmt.Sprintf("KVM capability %d", uint32(v))
}

// String returns the C name.
func (v ExitReason) String() string {
	switch v {
	case KVM_EXIT_UNKNOWN:
		return "KVM_EXIT_UNKNOWN"
	case KVM_EXIT_EXCEPTION:
		return "KVM_EXIT_EXCEPTION"
	case KVM_EXIT_IO:
		return "KVM_EXIT_IO"
	case KVM_EXIT_HYPERCALL:
		return "KVM_EXIT_HYPERCALL"
	case KVM_EXIT_DEBUG:
		return "KVM_EXIT_DEBUG"
	case KVM_EXIT_HLT:
		return "KVM_EXIT_HLT"
	case KVM_EXIT_MMIO:
		return "KVM_EXIT_MMIO"
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return "KVM_EXIT_IRQ_WINDOW_OPEN"
	case KVM_EXIT_SHUTDOWN:
		return "KVM_EXIT_SHUTDOWN"
	case KVM_EXIT_FAIL_ENTRY:
		return "KVM_EXIT_FAIL_ENTRY"
	case KVM_EXIT_INTR:
		return "KVM_EXIT_INTR"
	case KVM_EXIT_SET_TPR:
		return "KVM_EXIT_SET_TPR"
	case KVM_EXIT_TPR_ACCESS:
		return "KVM_EXIT_TPR_ACCESS"
	case KVM_EXIT_NMI:
		return "KVM_EXIT_NMI"
	case KVM_EXIT_INTERNAL_ERROR:
		return "KVM_EXIT_INTERNAL_ERROR"
	case KVM_EXIT_WATCHDOG:
		return "KVM_EXIT_WATCHDOG"
	case KVM_EXIT_SYSTEM_EVENT:
		return "KVM_EXIT_SYSTEM_EVENT"
	case KVM_EXIT_IOAPIC_EOI:
		return "KVM_EXIT_IOAPIC_EOI"
	case KVM_EXIT_HYPERV:
		return "KVM_EXIT_HYPERV"
	case KVM_EXIT_X86_RDMSR:
		return "KVM_EXIT_X86_RDMSR"
	case KVM_EXIT_X86_WRMSR:
		return "KVM_EXIT_X86_WRMSR"
	case KVM_EXIT_DIRTY_RING_FULL:
		return "KVM_EXIT_DIRTY_RING_FULL"
	case KVM_EXIT_AP_RESET_HOLD:
		return "KVM_EXIT_AP_RESET_HOLD"
	case KVM_EXIT_X86_BUS_LOCK:
		return "KVM_EXIT_X86_BUS_LOCK"
	case KVM_EXIT_XEN:
		return "KVM_EXIT_XEN"
	case KVM_EXIT_NOTIFY:
		return "KVM_EXIT_NOTIFY"
	}
	return fmt.Sprintf("KVM exit %d", uint32(v))
}

// String says what the kernel means by it.
func (e Suberror) String() string {
	switch e {
	case KVM_INTERNAL_ERROR_EMULATION:
		return "instruction emulation failed"
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		return "simultaneous exceptions"
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return "exit while an event was delivered"
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		return "unexpected exit reason"
	}
	return fmt.Sprintf("suberror %d", uint32(e))
}
