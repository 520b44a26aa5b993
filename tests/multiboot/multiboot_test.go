// Package multiboot runs a kernel that says what its Multiboot loader gave it: on soft, on KVM, and on QEMU as the peer.
package multiboot

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"berth/accel/kvm"
	"berth/tests/nested"
)

// build makes the kernel in dir: how is "" for an ELF file, "addressed" for one
// whose header says where it goes.
func build(t *testing.T, dir, how string) string {
	t.Helper()
	path := filepath.Join(dir, "kernel"+how)
	if out, err := exec.Command("./build", path, how).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

func berth(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "berth")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/berth")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// run returns what the kernel said; it must have found everything in order.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	return judge(t, dir, "timeout", append([]string{"-s", "KILL", "60", name}, args...)...)
}

// onKVM is run for berth on a real KVM: this host's, or an outer guest's if it has none.
func onKVM(t *testing.T, dir, binary string, args ...string) string {
	t.Helper()
	args = append([]string{"run", "--accel", "kvm"}, args...)
	if r, err := kvm.Probe(kvm.DefaultPath, slog.New(slog.DiscardHandler)); err == nil && r.Usable {
		return run(t, dir, binary, args...)
	}
	script, err := filepath.Abs("../nested/nested")
	if err != nil {
		t.Fatal(err)
	}
	in := []string{"-f", binary}
	for _, name := range []string{"kernel", "kerneladdressed", "a.mod", "b.mod"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			in = append(in, "-f", name)
		}
	}
	return judge(t, dir, script, append(in, "--", "berth '"+strings.Join(args, "' '")+"'")...)
}

// judge runs a command in dir, and again if it is an outer machine that freezes.
func judge(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd, out, errs, err := nested.Run(func() *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		return cmd
	}, t.Logf)
	_, said, told := strings.Cut(out, "berth: kvm: asked for with --accel kvm\n")
	if !told {
		said = out
	}
	if s := cmd.ProcessState; s == nil || s.ExitCode() != 1 || !strings.HasSuffix(said, "passed\n") {
		t.Fatalf("%v\n%s\n%s", err, out, errs)
	}
	return said
}

// common drops from what the kernel said what may differ between loaders.
func common(said string) string {
	return regexp.MustCompile(`(?m)^(flags|loader|upper|map) .*\n`).ReplaceAllString(said, "")
}

func TestKernelFindsWhatItWasGiven(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"a.mod": 5, "b.mod": 100000} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name), size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary := berth(t, dir)
	for _, how := range []string{"", "addressed"} {
		kernel := filepath.Base(build(t, dir, how))
		args := []string{"-append", "root=x quiet", "-initrd", "a.mod one two,b.mod"}
		peer := run(t, dir, "qemu-system-x86_64", append([]string{"-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-serial", "stdio",
			"-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", kernel}, args...)...)
		for _, board := range []string{"q35", "microvm"} {
			flags := []string{"--machine", board, "--debug-exit", "--memory", "64M", "--kernel", kernel, "--append", args[1], "--initrd", args[3]}
			for engine, said := range map[string]string{
				"soft": run(t, dir, binary, append([]string{"run", "--accel", "soft"}, flags...)...),
				"kvm":  onKVM(t, dir, binary, flags...),
			} {
				if common(said) != common(peer) || !strings.Contains(said, "module 7a120 ") {
					t.Errorf("%s, %s: the kernel said\n%son QEMU it says\n%s", engine, board, said, peer)
				}
			}
		}
	}
}

// The map has every byte of RAM, however it lies around the hole below 4 GiB.
func TestMemoryOfAllSizes(t *testing.T) {
	dir := t.TempDir()
	binary, kernel := berth(t, dir), build(t, dir, "")
	const mib = 1 << 20
	for size, want := range map[string]uint64{
		"16M": 16 * mib, "2047M": 2047 * mib, "2G": 2048 * mib, "2049M": 2049 * mib, "3G": 3072 * mib, "4G": 4096 * mib, "4097M": 4097 * mib, "65G": 65 << 30,
	} {
		for _, board := range []string{"q35", "microvm"} {
			said := run(t, dir, binary, "run", "--accel", "soft", "--machine", board, "--debug-exit", "--memory", size, "--kernel", kernel)
			var sum uint64
			for _, line := range strings.Split(said, "\n") {
				var base, length, kind uint64
				if n, _ := fmt.Sscanf(line, "map %x %x %x", &base, &length, &kind); n == 3 && kind == 1 {
					sum += length
				}
			}
			if hole := uint64(0x100000 - 0x9fc00); sum != want-hole {
				t.Errorf("%s, %s: %d bytes of RAM, want %d:\n%s", size, board, sum, want-hole, said)
			}
		}
	}
}
