package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

const vulnerabilities = "sys/devices/system/cpu/vulnerabilities"

// weaknesses are what the kernel says of each of the processor's, by name
// (Documentation/ABI/testing/sysfs-devices-system-cpu).
func (h *host) weaknesses() (names []string, said map[string]string, err error) {
	if _, err := fs.ReadDir(h.root, vulnerabilities); err != nil {
		return nil, nil, err
	}
	said = map[string]string{}
	for _, n := range h.names(vulnerabilities) {
		s, err := h.text(path.Join(vulnerabilities, n))
		if err != nil {
			return nil, nil, err
		}
		names = append(names, n)
		said[n] = s
	}
	return names, said, nil
}

func mitigations(h *host) Check {
	c := Check{Name: "mitigations", Title: "processor's weaknesses", Status: OK}
	names, said, err := h.weaknesses()
	if err != nil {
		return h.blind(c, err)
	}
	var open []string
	for _, n := range names {
		s := strings.TrimPrefix(said[n], "KVM: ")
		// l1tf's line tells of guests apart: "Mitigation: PTE Inversion; VMX: vulnerable".
		if strings.HasPrefix(s, "Vulnerable") || strings.Contains(s, "VMX: vulnerable") {
			open = append(open, n)
		}
	}
	off := h.mitigationsOff()
	if len(open) == 0 && off == "" {
		c.Finding = fmt.Sprintf("all %d that the kernel knows are mitigated or absent", len(names))
		return c
	}
	c.Status = Warn
	c.Meaning = "a guest may read memory of the host or of other guests by the processor's side effects"
	c.Remedy = "install the newest kernel and microcode (Debian: intel-microcode, amd64-microcode) and reboot"
	if h.cpu.virtual() {
		c.Remedy = "update the hypervisor below this VM, and this kernel"
	}
	c.Finding = "open: " + strings.Join(open, ", ")
	if off != "" {
		c.Finding = strings.TrimSuffix(off+" on the kernel's command line; "+c.Finding, "; open: ")
		c.Remedy = "take " + off + " out of the kernel's command line; " + c.Remedy
	}
	return c
}

// mitigationsOff is the kernel's parameter that switches off those that guests
// need (Documentation/admin-guide/kernel-parameters.txt), or "".
func (h *host) mitigationsOff() string {
	line, _ := h.text("proc/cmdline")
	for f := range strings.FieldsSeq(line) {
		value, ok := strings.CutPrefix(f, "mitigations=")
		if ok && (value == "off" || strings.Contains(value, "no_guest_")) {
			return f
		}
	}
	return ""
}

// smt warns where threads of a core can look at each other's data.
func smt(h *host) Check {
	c := Check{Name: "smt", Title: "threads of a core (SMT)", Status: OK, Finding: "none, or switched off"}
	active, err := h.text("sys/devices/system/cpu/smt/active")
	switch {
	case errors.Is(err, fs.ErrNotExist) && h.exists("sys/devices/system/cpu"):
		return c
	case err != nil:
		return h.blind(c, err)
	case active != "1":
		return c
	}
	names, said, err := h.weaknesses()
	if err != nil {
		return h.blind(c, err)
	}
	var open []string
	for _, n := range names {
		if strings.Contains(said[n], "SMT vulnerable") {
			open = append(open, n)
		}
	}
	c.Finding = "on, and safe as far as the kernel knows"
	if len(open) > 0 {
		c.Status, c.Finding = Warn, "on, and not safe with "+strings.Join(open, ", ")
		c.Meaning = "a guest may read what another one on the same core works with"
		c.Remedy = "where guests do not trust one another: echo off >/sys/devices/system/cpu/smt/control (nosmt at boot)"
	}
	return c
}

func selinux(h *host) Check {
	c := Check{Name: "selinux", Title: "SELinux", Status: OK}
	if c, hidden := h.blindTo(c, "sys"); hidden {
		return c
	}
	mode, err := h.text("sys/fs/selinux/enforce")
	switch {
	case err == nil && mode == "1":
		c.Finding = "enforcing"
	case err == nil:
		c.Status, c.Finding = Warn, "permissive"
		c.Meaning = "what it forbids is only logged: a guest that breaks out of its process is not held by it"
		c.Remedy = "setenforce 1, and SELINUX=enforcing in /etc/selinux/config"
	case !errors.Is(err, fs.ErrNotExist):
		return h.blind(c, err)
	case h.apparmorOn():
		c.Finding = "absent; AppArmor is there"
	default:
		c.Status, c.Finding = Warn, "absent, as AppArmor is"
		c.Meaning = "a guest that breaks out of its process is held by the rights of that process's user alone"
		c.Remedy = "run guests as a user of their own, not as root; or install AppArmor or SELinux"
	}
	return c
}

func (h *host) apparmorOn() bool {
	s, err := h.text("sys/module/apparmor/parameters/enabled")
	return err == nil && yes(s)
}

func apparmor(h *host) Check {
	c := Check{Name: "apparmor", Title: "AppArmor", Status: OK, Finding: "absent"}
	if c, hidden := h.blindTo(c, "sys"); hidden || !h.apparmorOn() {
		return c
	}
	c.Finding = "enabled"
	if s, err := h.text("proc/self/attr/current"); err == nil && s != "" {
		c.Finding += "; this process is " + s
	}
	return c
}

// secureGuests is for information: no guest needs it.
func secureGuests(h *host) Check {
	c := Check{Name: "secure-guests", Title: "encrypted guests", Status: OK}
	if c, hidden := h.blindTo(c, "sys"); hidden {
		return c
	}
	var on []string
	for _, p := range []struct{ module, parameter, name string }{
		{"kvm_amd", "sev", "SEV"}, {"kvm_amd", "sev_es", "SEV-ES"}, {"kvm_amd", "sev_snp", "SEV-SNP"}, {"kvm_intel", "tdx", "TDX"},
	} {
		if yes(h.module(p.module, p.parameter)) {
			on = append(on, p.name)
		}
	}
	if c.Finding = strings.Join(on, ", "); c.Finding == "" {
		c.Finding = "not offered by KVM here"
	}
	return c
}
