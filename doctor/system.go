package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// enoughFiles lets a VM have some hundred disks and queues.
const enoughFiles = 4096

// limit is a hard limit of this process, in the unit of /proc/self/limits; "unlimited" is none.
func (h *host) limit(name string) (value string, err error) {
	s, err := h.text("proc/self/limits")
	if err != nil {
		return "", err
	}
	for l := range strings.Lines(s) {
		rest, ok := strings.CutPrefix(l, name)
		if f := strings.Fields(rest); ok && len(f) >= 2 {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("/proc/self/limits has no line %q", name)
}

func openFiles(h *host) Check {
	c := Check{Name: "limit-files", Title: "open files", Status: OK}
	s, err := h.limit("Max open files")
	if err != nil {
		return h.blind(c, err)
	}
	c.Finding = "at most " + s
	if n, err := strconv.ParseUint(s, 10, 64); err == nil && n < enoughFiles {
		c.Status = Warn
		c.Meaning = "VMs with many disks and vCPUs may not start"
		c.Remedy = "raise it: LimitNOFILE= of the service, or nofile in /etc/security/limits.conf"
	}
	return c
}

// lockedMemory is never a warning: only guests with devices of the host need more than systems give.
func lockedMemory(h *host) Check {
	c := Check{Name: "limit-memlock", Title: "locked memory", Status: OK}
	s, err := h.limit("Max locked memory")
	if err != nil {
		return h.blind(c, err)
	}
	c.Finding = s
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		c.Finding = fmt.Sprintf("at most %s. VFIO locks all of a guest's: raise LimitMEMLOCK= for that", gib(n>>10))
	}
	return c
}

// clocksource looks at what the host itself reads the time from: KVM gives
// guests a clock to read by themselves (kvmclock's master clock) only over the
// TSC, or Hyper-V's page over it.
func clocksource(h *host) Check {
	const dir = "sys/devices/system/clocksource/clocksource0/"
	c := Check{Name: "clocksource", Title: "clock source", Status: OK}
	s, err := h.text(dir + "current_clocksource")
	if err != nil {
		return h.blind(c, err)
	}
	c.Finding = s
	if s == "tsc" || s == "hyperv_clocksource_tsc_page" {
		return c
	}
	c.Status = Warn
	c.Meaning = "guests on KVM cannot read kvmclock without a system call, and the host's own time is slow to read"
	c.Remedy = "dmesg | grep -i tsc says why the kernel dropped the TSC; tsc=reliable at boot overrules it"
	if all, _ := h.text(dir + "available_clocksource"); slices.Contains(strings.Fields(all), "tsc") {
		c.Remedy = "echo tsc >" + "/" + dir + "current_clocksource"
	} else if h.cpu.virtual() {
		c.Remedy = "let this VM's hypervisor show an invariant TSC (QEMU: -cpu host,+invtsc)"
	}
	return c
}

// randomSeeded matters to whoever makes keys at boot, berth included.
func randomSeeded(h *host) Check {
	c := Check{Name: "random", Title: "random numbers", Status: OK, Finding: "seeded"}
	if !h.randomReady() {
		c.Status, c.Finding = Warn, "not seeded yet"
		c.Meaning = "a guest's virtio-rng gives nothing until they are"
		c.Remedy = "wait; a VM needs virtio-rng for it to be soon"
	}
	return c
}

func randomSources(h *host) Check {
	c := Check{Name: "random-sources", Title: "sources of randomness", Status: OK}
	var sources []string
	for _, f := range []string{"rdrand", "rdseed"} {
		if h.cpu.flags[f] {
			sources = append(sources, f)
		}
	}
	if s, err := h.text("sys/class/misc/hw_random/rng_current"); err == nil && s != "" && s != "none" {
		sources = append(sources, "/dev/hwrng ("+s+")")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h.blind(c, err)
	}
	if len(sources) == 0 && h.cpu.err != nil {
		return h.blind(c, h.cpu.err)
	}
	if len(sources) == 0 {
		c.Status, c.Finding = Warn, "neither rdrand nor /dev/hwrng"
		c.Meaning = "the kernel gathers randomness from the timing of events alone, slowly after a boot"
		c.Remedy = "load the driver of the board's generator (tpm-rng, intel-rng); in a VM, give it virtio-rng"
		return c
	}
	c.Finding = strings.Join(sources, ", ")
	return c
}
