package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// cpu is what /proc/cpuinfo says of the first processor.
type cpu struct {
	vendor, model string
	flags         map[string]bool // "vmx flags" among them
	err           error
}

func readCPU(h *host) cpu {
	c := cpu{flags: map[string]bool{}}
	s, err := h.text("proc/cpuinfo")
	c.err = err
	for l := range strings.Lines(s) {
		key, value, ok := strings.Cut(l, ":")
		if !ok {
			break // the second processor's
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "vendor_id":
			c.vendor = value
		case "model name":
			c.model = value
		case "flags", "vmx flags":
			for f := range strings.FieldsSeq(value) {
				c.flags[f] = true
			}
		}
	}
	return c
}

// virtual reports whether the host is itself a VM (CPUID 1, ECX bit 31).
func (c cpu) virtual() bool { return c.flags["hypervisor"] }

func (c cpu) hasVirtualization() bool { return c.flags["vmx"] || c.flags["svm"] }

// The registers in which firmware locks virtualization.
const (
	msrFeatureControl = 0x3a       // IA32_FEATURE_CONTROL, Intel SDM volume 3, 24.7: bit 0 lock, bit 2 VMX outside SMX
	msrVMCR           = 0xc0010114 // VM_CR, AMD APM volume 2, 15.30.1: bit 4 SVMDIS
)

// firmwareOff reports whether firmware has switched virtualization off; known is
// false where the registers cannot be read: they need root and the module msr.
func (h *host) firmwareOff() (off, known bool) {
	if h.cpu.vendor == "AuthenticAMD" {
		v, err := h.msr(msrVMCR)
		return v&(1<<4) != 0, err == nil
	}
	v, err := h.msr(msrFeatureControl)
	return v&1 != 0 && v&(1<<2) == 0, err == nil
}

func (h *host) msr(number int64) (uint64, error) {
	f, err := h.root.Open("dev/cpu/0/msr")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	r, ok := f.(io.ReaderAt)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	var b [8]byte
	if _, err := r.ReadAt(b[:], number); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

func cpuVirtualization(h *host) Check {
	c := Check{Name: "cpu-virtualization", Title: "hardware virtualization", Status: OK, Meaning: "KVM needs it; " + noKVM}
	const firmware = "switch on virtualization (Intel VT-x, AMD SVM) in the firmware set-up, then power the host off and on"
	name, module := "VT-x (vmx)", "kvm-intel"
	if h.cpu.flags["svm"] {
		name, module = "AMD-V (svm)", "kvm-amd"
	}
	off, known := h.firmwareOff()
	switch {
	case h.cpu.err != nil:
		return h.blind(c, h.cpu.err)
	case h.cpu.hasVirtualization() && known && off:
		c.Status, c.Finding, c.Remedy = Fail, name+" is there, but switched off in the firmware", firmware
	case h.cpu.hasVirtualization() && !h.exists("dev/kvm") && h.container():
		c.Status, c.Finding = Warn, name+" is there, but /dev/kvm is not in this container"
		c.Remedy = "modprobe " + module + " on the host, and pass /dev/kvm in (docker, podman: --device /dev/kvm)"
	case h.cpu.hasVirtualization() && !h.exists("dev/kvm"):
		c.Status, c.Finding = Warn, name+" is there, but /dev/kvm is not: its module is not loaded, or the firmware forbids it"
		c.Remedy = "modprobe " + module + "; if dmesg then says \"disabled by bios\": " + firmware
	case h.cpu.hasVirtualization():
		c.Finding, c.Meaning = fmt.Sprintf("%s on %s", name, h.cpu.model), ""
	case h.cpu.virtual():
		c.Status, c.Finding = Fail, "neither vmx nor svm: this host is a VM whose hypervisor does not pass virtualization on"
		c.Remedy = "switch on nested virtualization for this VM in its hypervisor, or take a bare-metal host"
	default:
		c.Status, c.Finding = Fail, "neither vmx nor svm on "+h.cpu.model+": most likely switched off in the firmware"
		c.Remedy = firmware
	}
	return c
}

// feature checks what the processor adds to virtualization: whether it has the
// flag of its vendor and whether KVM's module has it on.
func feature(h *host, c Check, intelFlag, intelParameter, amdFlag, amdParameter string) (found Check, has, on bool) {
	if h.cpu.err != nil {
		return h.blind(c, h.cpu.err), false, false
	}
	if !h.cpu.hasVirtualization() {
		c.Status, c.Finding, c.Meaning, c.Remedy = Warn, notChecked+"the processor shows no virtualization", "", ""
		return c, false, false
	}
	flag, parameter := intelFlag, intelParameter
	if h.cpu.flags["svm"] {
		flag, parameter = amdFlag, amdParameter
	}
	has = h.cpu.flags[flag]
	set := h.module(h.kvmModule(), parameter)
	c.Status = OK
	c.Finding = flag
	switch {
	case !has:
		c.Status, c.Finding = Warn, "the processor has no "+flag
	case set != "" && !yes(set):
		c.Status, c.Finding = Warn, fmt.Sprintf("%s is switched off: %s.%s=%s", flag, h.kvmModule(), parameter, set)
		c.Remedy = fmt.Sprintf("take %s=0 out of /etc/modprobe.d and the kernel's command line, then reboot", parameter)
	default:
		return c, true, true
	}
	return c, has, false
}

func nestedPaging(h *host) Check {
	c := Check{Name: "cpu-nested-paging", Title: "nested paging"}
	c, _, on := feature(h, c, "ept", "ept", "npt", "npt")
	if !on && !strings.HasPrefix(c.Finding, notChecked) {
		c.Meaning = "KVM keeps shadow page tables: guests that change much memory run several times slower"
	}
	return c
}

func realMode(h *host) Check {
	c := Check{Name: "cpu-real-mode", Title: "real mode"}
	if h.cpu.flags["svm"] {
		c.Status, c.Finding = OK, "AMD-V runs it as it is"
		return c
	}
	c, _, on := feature(h, c, "unrestricted_guest", "unrestricted_guest", "", "")
	if !on && !strings.HasPrefix(c.Finding, notChecked) {
		c.Meaning = "firmware and boot loaders run in an emulator of KVM's: slow, and not every one works"
	}
	return c
}

// interruptVirtualization is no warning where it is off: that is the kernel's
// own choice on most AMD processors.
func interruptVirtualization(h *host) Check {
	c := Check{Name: "cpu-interrupts", Title: "interrupt virtualization"}
	c, has, on := feature(h, c, "apicv", "enable_apicv", "avic", "avic")
	if strings.HasPrefix(c.Finding, notChecked) {
		return c
	}
	c.Status, c.Remedy = OK, ""
	if has && !on {
		c.Finding += "; interrupts cost exits. The module's parameter switches it on"
	}
	if !has {
		c.Finding += ": interrupts cost exits"
	}
	return c
}

func gigabytePages(h *host) Check {
	c := Check{Name: "cpu-1g-pages", Title: "pages of 1 GiB", Status: OK, Finding: "pdpe1gb"}
	switch {
	case h.cpu.err != nil:
		return h.blind(c, h.cpu.err)
	case !h.cpu.flags["pdpe1gb"]:
		c.Finding = "the processor has none; large guests take pages of 2 MiB"
	}
	return c
}

func invariantTSC(h *host) Check {
	c := Check{Name: "cpu-tsc", Title: "time stamp counter", Status: OK, Finding: "invariant (constant_tsc, nonstop_tsc)"}
	switch {
	case h.cpu.err != nil:
		return h.blind(c, h.cpu.err)
	case h.cpu.flags["constant_tsc"] && h.cpu.flags["nonstop_tsc"]:
		return c
	}
	c.Status, c.Finding = Warn, "not invariant: it changes its speed or stops with the processor's"
	c.Meaning = "guests cannot use it as their clock; each look at the time costs far more"
	if h.cpu.virtual() {
		c.Remedy = "let this VM's hypervisor show an invariant TSC (QEMU: -cpu host,+invtsc)"
	}
	return c
}

// hostKind says whether the host is a VM or this is a container on it.
func hostKind(h *host) Check {
	c := Check{Name: "host-kind", Title: "kind of host", Status: OK, Finding: "bare metal"}
	if h.cpu.err != nil {
		return h.blind(c, h.cpu.err)
	}
	if h.cpu.virtual() {
		c.Status, c.Finding = Warn, "a VM"
		c.Meaning = "its guests are nested: each of their exits costs several here, and their time is taken by two hypervisors"
		c.Remedy = "for speed take a bare-metal host"
		vendor, _ := h.text("sys/class/dmi/id/sys_vendor")
		product, _ := h.text("sys/class/dmi/id/product_name")
		if who := strings.TrimSpace(vendor + " " + product); who != "" {
			c.Finding = "a VM: " + who
		}
	}
	if h.container() {
		c.Finding += ", in a container"
	}
	return c
}

// container reports whether a container's runtime has left its mark.
func (h *host) container() bool {
	for _, mark := range []string{".dockerenv", "run/.containerenv", "run/systemd/container"} {
		if _, err := fs.Stat(h.root, mark); err == nil {
			return true
		}
	}
	return false
}

func nestedGuests(h *host) Check {
	c := Check{Name: "nested", Title: "VMs inside guests", Status: OK}
	if c, hidden := h.blindTo(c, "sys"); hidden {
		return c
	}
	module := h.kvmModule()
	if module == "" {
		c.Finding = "no: neither kvm_intel nor kvm_amd is loaded"
		return c
	}
	set, err := h.text("sys/module/" + module + "/parameters/nested")
	switch {
	case err != nil:
		return h.blind(c, err)
	case yes(set):
		c.Finding = "allowed: " + module + ".nested=" + set
	default:
		c.Finding = fmt.Sprintf("not allowed. To allow: options %s nested=1 in /etc/modprobe.d/kvm.conf", module)
	}
	return c
}
