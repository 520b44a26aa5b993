package nested

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// Firmware is where QEMU's firmware lies in an outer guest that has QEMUFiles: the value of -L.
const Firmware = "/firmware"

// firmware is what QEMU loads to boot a kernel, in Debian's folders.
func firmware() []string {
	return []string{
		"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin",
		"/usr/share/qemu/pvh.bin",
	}
}

// Libraries lists a program's as FILE:PATH.
func Libraries(program string) (list []string, err error) {
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	for _, lib := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		list = append(list, lib[1]+":"+lib[1])
	}
	return list, nil
}

// QEMUFiles lists QEMU, its libraries and its firmware as FILE:PATH.
func QEMUFiles() ([]string, error) {
	all, err := WithLibraries("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	for _, f := range firmware() {
		if _, err := os.Stat(f); err != nil {
			return nil, err
		}
		all = append(all, f+":"+Firmware+"/"+filepath.Base(f))
	}
	return all, nil
}

// WithLibraries lists a program of this host, which becomes /bin/PROGRAM, and its
// libraries as FILE:PATH.
func WithLibraries(program string) ([]string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", path, err)
	}
	all := []string{path + ":/bin/" + program}
	for _, lib := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		all = append(all, lib[1]+":"+lib[1])
	}
	return all, nil
}
