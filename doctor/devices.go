package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// deviceFile checks a device that the kernel offers in /dev.
func deviceFile(h *host, c Check, name, module, meaning string) Check {
	c.Status, c.Finding = OK, "/"+name
	if !h.exists(name) {
		c.Status, c.Finding, c.Meaning = Warn, "there is no /"+name, meaning
		c.Remedy = "modprobe " + module
		if h.container() {
			c.Remedy += " on the host, and pass the device into this container"
		}
		return c
	}
	if err := reason(h.usable(name)); err != nil {
		c.Status, c.Finding, c.Meaning = Warn, fmt.Sprintf("/%s is not for this user (%v)", name, err), meaning
		c.Remedy = "run as root, or join the group that owns it: stat -c %G /" + name
	}
	return c
}

func tun(h *host) Check {
	c := Check{Name: "tun", Title: "tap devices"}
	return deviceFile(h, c, "dev/net/tun", "tun", "guests cannot be put on the host's bridges")
}

func vhostNet(h *host) Check {
	c := Check{Name: "vhost-net", Title: "vhost-net"}
	return deviceFile(h, c, "dev/vhost-net", "vhost_net", "guests' packets cannot be moved by the kernel: networking is slower")
}

func vhostVsock(h *host) Check {
	c := Check{Name: "vhost-vsock", Title: "vhost-vsock"}
	return deviceFile(h, c, "dev/vhost-vsock", "vhost_vsock", "the kernel's sockets between guest and host (vsock) are not there")
}

// iommu looks for DMA remapping: groups are there only if the firmware has
// tables (DMAR, IVRS) and the kernel uses them.
func iommu(h *host) Check {
	c := Check{Name: "iommu", Title: "IOMMU", Status: OK}
	if c, hidden := h.blindTo(c, "sys"); hidden {
		return c
	}
	groups := h.names("sys/kernel/iommu_groups")
	if len(groups) > 0 {
		c.Finding = fmt.Sprintf("in use, groups: %d", len(groups))
		return c
	}
	c.Meaning = "PCI devices of the host cannot be given to guests"
	table := ""
	for _, t := range []string{"DMAR", "IVRS"} {
		if h.exists("sys/firmware/acpi/tables/" + t) {
			table = t
		}
	}
	switch {
	case h.bootParameter("intel_iommu=off", "amd_iommu=off", "iommu=off"):
		c.Status, c.Finding = Warn, "switched off on the kernel's command line"
		c.Remedy = "take intel_iommu=off, amd_iommu=off or iommu=off out of it and reboot"
	case table != "":
		c.Status, c.Finding = Warn, "the firmware tells of one (ACPI table "+table+"), but the kernel does not use it"
		c.Remedy = "boot with intel_iommu=on"
		if table == "IVRS" {
			c.Remedy = "boot with amd_iommu=on; dmesg | grep AMD-Vi says why it is not used"
		}
	case h.cpu.virtual():
		c.Finding, c.Meaning = "none, as in most VMs", ""
	default:
		c.Status, c.Finding = Warn, "none: the firmware does not tell of one"
		c.Remedy = "switch on VT-d or AMD-Vi (IOMMU) in the firmware set-up"
	}
	return c
}

func vfio(h *host) Check {
	c := Check{Name: "vfio", Title: "VFIO", Status: OK}
	if c, hidden := h.blindTo(c, "sys"); hidden {
		return c
	}
	switch bound := h.devicesOf("vfio-pci"); {
	case len(h.names("sys/kernel/iommu_groups")) == 0:
		c.Finding = "needs an IOMMU"
	case !h.exists("dev/vfio/vfio"):
		c.Finding = "not loaded. To give devices to guests: modprobe vfio-pci"
	case len(bound) == 0:
		c.Finding = "/dev/vfio/vfio; no device is set aside for guests"
	default:
		c.Finding = "set aside for guests: " + strings.Join(bound, ", ")
	}
	return c
}

// reason is err without the path that it is about.
func reason(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// devicesOf are the addresses of the PCI devices that a driver holds.
func (h *host) devicesOf(driver string) []string {
	var devices []string
	for _, name := range h.names("sys/bus/pci/drivers/" + driver) {
		if strings.Count(name, ":") == 2 {
			devices = append(devices, name)
		}
	}
	return devices
}
