package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	realkvm "berth/tests/nested"
)

// The host is a network of its own, in which a guest finds iperf3's server behind its
// user network or at the other end of its tap:
//
//	192.0.2.1      on lo: what a guest of a user network reaches (RFC 5737)
//	198.51.100.1   on tap0: what the guest 198.51.100.2 reaches
const (
	farServer = "192.0.2.1"
	tapServer = "198.51.100.1"
	tapGuest  = "198.51.100.2"
	tapName   = "tap0"
)

// host is where VMMs and iperf3's server run.
type host struct {
	berth, kernel, initrd string
	firmware              bool   // QEMU's lies where an outer guest has it
	namespace             string // "": this machine is the bench's own
}

// enter makes a network namespace and its addresses.
func (h *host) enter() error {
	h.namespace = fmt.Sprintf("netbench-%d", os.Getpid())
	for _, args := range [][]string{
		{"ip", "netns", "add", h.namespace},
		{"ip", "-n", h.namespace, "link", "set", "lo", "up"},
		{"ip", "-n", h.namespace, "addr", "add", farServer + "/32", "dev", "lo"},
		{"ip", "-n", h.namespace, "tuntap", "add", "dev", tapName, "mode", "tap"},
		{"ip", "-n", h.namespace, "addr", "add", tapServer + "/24", "dev", tapName},
		{"ip", "-n", h.namespace, "link", "set", tapName, "up"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return errors.Join(fmt.Errorf("%v: %w: %s", args, err, out), h.leave())
		}
	}
	return nil
}

func (h *host) leave() error {
	return exec.Command("ip", "netns", "del", h.namespace).Run()
}

// command is a command in the host's network. Its process is the program itself.
func (h *host) command(name string, args ...string) *exec.Cmd {
	if h.namespace == "" {
		return exec.Command(name, args...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", h.namespace, name}, args...)...)
}

// serve starts iperf3's server and returns when it listens.
func (h *host) serve() (stop func(), err error) {
	cmd := h.command("iperf3", "-s")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if h.namespace != "" {
			if h.command("iperf3", "-c", farServer, "-n", "1K").Run() == nil {
				return stop, nil
			}
		} else if conn, err := net.Dial("tcp", farServer+":5201"); err == nil {
			return stop, conn.Close()
		}
		if time.Now().After(limit) {
			stop()
			return nil, errors.New("iperf3's server does not listen")
		}
	}
}

// vmm is the command of a VMM, "berth" or "QEMU", with a NIC on a network.
func (h *host) vmm(vmm, engine, network string, o options) *exec.Cmd {
	address, gateway, server := "10.0.2.15/24", "10.0.2.2", farServer
	if network == "tap" {
		address, gateway, server = tapGuest+"/24", tapServer, tapServer
	}
	line := fmt.Sprintf("console=ttyS0 quiet berth.script=netbench berth.net=%s,%s,%s,%d", address, gateway, server, o.seconds)
	if vmm == "berth" {
		nic := map[string]string{"user": "user", "tap": "tap,ifname=" + tapName}[network]
		return h.command(h.berth, "run", "--accel", engine, "--memory", "256M", "--kernel", h.kernel, "--initrd", h.initrd, "--append", line, "--nic", nic)
	}
	args := []string{"-accel", "tcg", "-cpu", "max"}
	if engine == "kvm" {
		args = []string{"-accel", "kvm", "-cpu", "host"}
	}
	nic := map[string]string{"user": "user,id=n", "tap": "tap,id=n,ifname=" + tapName + ",script=no,downscript=no"}[network]
	args = append(args, "-machine", "q35", "-m", "256", "-nodefaults", "-display", "none", "-serial", "stdio", "-kernel", h.kernel, "-initrd", h.initrd,
		"-append", line, "-netdev", nic, "-device", "virtio-net-pci,netdev=n,romfile=", "-device", "virtio-rng-pci")
	if h.firmware {
		args = append(args, "-L", realkvm.Firmware)
	}
	return h.command("qemu-system-x86_64", args...)
}
