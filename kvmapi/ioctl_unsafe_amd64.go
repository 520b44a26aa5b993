package kvmapi

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ioctl performs request r with an integer argument and returns the kernel's
// answer. Interrupted calls are repeated: KVM_CREATE_VM and others give up on
// any signal, the Go scheduler's own included. An error names the request and
// its argument and wraps the errno.
func Ioctl(fd int, r Request, arg uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(r), arg)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return int(n), fmt.Errorf("%v(0x%x): %w", r, arg, errno)
	}
}

// IoctlPtr is Ioctl with the address of a struct. unsafe: the kernel reads and
// writes at most the struct, whose layout a test holds against the kernel's
// headers; the struct lives until the call returns.
func IoctlPtr[T any](fd int, r Request, arg *T) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(r), uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		if unsafe.Sizeof(*arg) > 128 {
			return int(n), fmt.Errorf("%v: %w", r, errno)
		}
		return int(n), fmt.Errorf("%v(%+v): %w", r, *arg, errno)
	}
}

// KVMRun performs KVM_RUN and returns 0 or the bare errno, EINTR included.
// Syscall, never RawSyscall: the Go scheduler must know that the thread is away.
func KVMRun(fd int) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(KVM_RUN), 0)
	return errno
}

// GetDirtyLog fills bitmap, one bit per page of slot, and clears the log.
// unsafe: the bitmap's address travels in an integer field, so it is pinned.
func GetDirtyLog(vm int, slot uint32, bitmap []uint64) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&bitmap[0])
	log := DirtyLog{Slot: slot, Bitmap: uint64(uintptr(unsafe.Pointer(&bitmap[0])))}
	_, err := IoctlPtr(vm, KVM_GET_DIRTY_LOG, &log)
	return err
}

// DeviceAttr64 performs KVM_GET_, KVM_SET_ or KVM_HAS_DEVICE_ATTR for a 64-bit
// datum. unsafe: as GetDirtyLog.
func DeviceAttr64(fd int, r Request, group uint32, attr uint64, value *uint64) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(value)
	a := DeviceAttr{Group: group, Attr: attr, Addr: uint64(uintptr(unsafe.Pointer(value)))}
	_, err := IoctlPtr(fd, r, &a)
	return err
}

// MapRun views a vCPU's mapping as its kvm_run. unsafe: the mapping is page
// aligned, longer than Run and stays until it is unmapped.
func MapRun(mapping []byte) *Run {
	return (*Run)(unsafe.Pointer(&mapping[:unsafe.Sizeof(Run{})][0]))
}

// SetImmediateExit writes immediate_exit with release order while the kernel
// may read it. unsafe: there is no 8-bit atomic store, so the aligned word that
// starts with request_interrupt_window (always 0 with an in-kernel irqchip) is stored.
func (r *Run) SetImmediateExit(on bool) {
	var word uint32
	if on {
		word = 1 << 8
	}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(r)), word)
}

// The views of the union. unsafe: Union is 8-byte aligned and larger than each view.

// IO views the union at KVM_EXIT_IO.
func (r *Run) IO() *RunIO { return (*RunIO)(unsafe.Pointer(&r.Union)) }

// MMIO views the union at KVM_EXIT_MMIO.
func (r *Run) MMIO() *RunMMIO { return (*RunMMIO)(unsafe.Pointer(&r.Union)) }

// FailEntry views the union at KVM_EXIT_FAIL_ENTRY.
func (r *Run) FailEntry() *RunFailEntry { return (*RunFailEntry)(unsafe.Pointer(&r.Union)) }

// Internal views the union at KVM_EXIT_INTERNAL_ERROR.
func (r *Run) Internal() *RunInternal { return (*RunInternal)(unsafe.Pointer(&r.Union)) }

// EmulationFailure views the union at KVM_EXIT_INTERNAL_ERROR with suberror KVM_INTERNAL_ERROR_EMULATION.
func (r *Run) EmulationFailure() *RunEmulationFailure {
	return (*RunEmulationFailure)(unsafe.Pointer(&r.Union))
}

// Debug views the union at KVM_EXIT_DEBUG.
func (r *Run) Debug() *RunDebug { return (*RunDebug)(unsafe.Pointer(&r.Union)) }

// SystemEvent views the union at KVM_EXIT_SYSTEM_EVENT.
func (r *Run) SystemEvent() *RunSystemEvent { return (*RunSystemEvent)(unsafe.Pointer(&r.Union)) }

// HardwareReason returns hw.hardware_exit_reason at KVM_EXIT_UNKNOWN.
func (r *Run) HardwareReason() uint64 { return *(*uint64)(unsafe.Pointer(&r.Union)) }

// PIC views the state of an 8259A. unsafe: Chip is 8-byte aligned and larger.
func (c *IRQChip) PIC() *PICState { return (*PICState)(unsafe.Pointer(&c.Chip)) }

// IOAPIC views the state of the I/O APIC. unsafe: as PIC.
func (c *IRQChip) IOAPIC() *IOAPICState { return (*IOAPICState)(unsafe.Pointer(&c.Chip)) }
