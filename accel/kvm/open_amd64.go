package kvm

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"berth/accel"
	"berth/kvmapi"
)

// Accelerator is an open KVM device. It makes any number of VMs; safe for concurrent use.
type Accelerator struct {
	fd      int
	path    string
	log     *slog.Logger
	runSize int // of a vCPU's kvm_run mapping
	cpuid   *kvmapi.CPUID2
	msrs    []uint32 // that KVM saves and restores
	// debugFlags are those of KVM_SET_GUEST_DEBUG that KVM says it knows; before Linux 5.13 none.
	debugFlags uint32
}

// required are the capabilities without which berth's VMs cannot be made. The
// youngest is KVM_CAP_IMMEDIATE_EXIT, of Linux 4.13.
func required() []kvmapi.Cap {
	return []kvmapi.Cap{
		kvmapi.KVM_CAP_IRQCHIP, kvmapi.KVM_CAP_USER_MEMORY, kvmapi.KVM_CAP_SET_TSS_ADDR, kvmapi.KVM_CAP_EXT_CPUID,
		kvmapi.KVM_CAP_MP_STATE, kvmapi.KVM_CAP_IRQ_ROUTING, kvmapi.KVM_CAP_IRQFD, kvmapi.KVM_CAP_PIT2,
		kvmapi.KVM_CAP_PIT_STATE2, kvmapi.KVM_CAP_IOEVENTFD, kvmapi.KVM_CAP_SET_IDENTITY_MAP_ADDR,
		kvmapi.KVM_CAP_ADJUST_CLOCK, kvmapi.KVM_CAP_VCPU_EVENTS, kvmapi.KVM_CAP_DEBUGREGS, kvmapi.KVM_CAP_XSAVE,
		kvmapi.KVM_CAP_XCRS, kvmapi.KVM_CAP_SIGNAL_MSI, kvmapi.KVM_CAP_IMMEDIATE_EXIT,
	}
}

// New opens the KVM device at path. The error is an *OpenError that says what to do.
func New(path string, log *slog.Logger) (*Accelerator, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	a := &Accelerator{fd: fd, path: path, log: log}
	if err := a.inspect(); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return a, nil
}

func openError(path string, err error) error {
	e := &OpenError{Path: path, Kind: ErrUnusable, Cause: err}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOTDIR):
		e.Kind, e.Remedy = ErrMissing, missingRemedy(cpuinfo())
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		e.Kind = ErrForbidden
		e.Remedy = "join the group that owns the device (usermod -aG kvm USER, then log in again); in a container, pass the device in"
	case errors.Is(err, unix.EBUSY):
		e.Remedy = "another hypervisor holds the CPU's virtualization: stop it"
	}
	return e
}

func cpuinfo() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	return string(b)
}

// missingRemedy tells what brings /dev/kvm, by what the CPU offers.
func missingRemedy(cpuinfo string) string {
	flags := ""
	for l := range strings.Lines(cpuinfo) {
		if strings.HasPrefix(l, "flags") {
			flags = " " + strings.TrimSpace(l) + " "
			break
		}
	}
	switch {
	case strings.Contains(flags, " vmx "):
		return "load the module (modprobe kvm-intel); in a container, pass /dev/kvm in"
	case strings.Contains(flags, " svm "):
		return "load the module (modprobe kvm-amd); in a container, pass /dev/kvm in"
	case strings.Contains(flags, " hypervisor "):
		return "this host is itself a VM: let its hypervisor pass virtualization on (nested), then load kvm-intel or kvm-amd"
	}
	return "switch on virtualization (Intel VT-x, AMD SVM) in the host's firmware set-up, then load kvm-intel or kvm-amd"
}

// inspect reads what the device offers and refuses what berth cannot use.
func (a *Accelerator) inspect() error {
	unusable := func(err error, remedy string) error {
		return &OpenError{Path: a.path, Kind: ErrUnusable, Cause: err, Remedy: remedy}
	}
	version, err := kvmapi.Ioctl(a.fd, kvmapi.KVM_GET_API_VERSION, 0)
	if err != nil {
		return unusable(err, "this is not a KVM device")
	}
	if version != kvmapi.KVM_API_VERSION {
		return unusable(fmt.Errorf("API version %d, not %d", version, kvmapi.KVM_API_VERSION), "use a current kernel")
	}
	for _, c := range required() {
		if n, err := checkExtension(a.fd, c); err != nil || n == 0 {
			return unusable(errors.Join(fmt.Errorf("%v is missing", c), err), "use Linux 4.13 or newer")
		}
	}
	if a.runSize, err = kvmapi.Ioctl(a.fd, kvmapi.KVM_GET_VCPU_MMAP_SIZE, 0); err != nil {
		return unusable(err, "")
	}
	a.cpuid = &kvmapi.CPUID2{Nent: kvmapi.MaxCPUIDEntries}
	if _, err := kvmapi.IoctlPtr(a.fd, kvmapi.KVM_GET_SUPPORTED_CPUID, a.cpuid); err != nil {
		return unusable(err, "")
	}
	list := &kvmapi.MSRList{Nmsrs: uint32(len(kvmapi.MSRList{}.Indices))}
	if _, err := kvmapi.IoctlPtr(a.fd, kvmapi.KVM_GET_MSR_INDEX_LIST, list); err != nil {
		return unusable(err, "")
	}
	a.msrs = list.Indices[:list.Nmsrs]
	flags, err := checkExtension(a.fd, kvmapi.KVM_CAP_SET_GUEST_DEBUG2)
	if err != nil {
		return unusable(err, "")
	}
	a.debugFlags = uint32(flags)
	return nil
}

// checkExtension returns what fd answers for c: 0 is no, what more means is c's affair.
func checkExtension(fd int, c kvmapi.Cap) (int, error) {
	n, err := kvmapi.Ioctl(fd, kvmapi.KVM_CHECK_EXTENSION, uintptr(c))
	if err != nil {
		return 0, fmt.Errorf("%v: %w", c, err)
	}
	return n, nil
}

// Name is the word after --accel.
func (a *Accelerator) Name() string { return "kvm" }

// Close closes the device. VMs already made live on.
func (a *Accelerator) Close() error { return unix.Close(a.fd) }

// interface checks
var (
	_ accel.Accelerator = (*Accelerator)(nil)
	_ accel.VM          = (*vm)(nil)
	_ accel.Doorbells   = (*vm)(nil)
	_ accel.DirtyLogger = (*vm)(nil)
	_ accel.Stater      = (*vm)(nil)
	_ accel.ClockPauser = (*vm)(nil)
	_ accel.VCPU        = (*vcpu)(nil)

	_ accel.NMIInjector          = (*vcpu)(nil)
	_ accel.MachineCheckInjector = (*vcpu)(nil)
	_ accel.Debugger             = (*vcpu)(nil)
	_ accel.IRQChip              = (*chip)(nil)
)
