// Command bootbench compares the CPU-seconds that berth's soft engine and QEMU's TCG need to bring the same kernel to
// userland, in one run with the two taking turns.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"berth/boot"
	"berth/boot/linux"
	"berth/tests/process"
)

const marker = "BERTH-USERLAND"

// row is one way of booting.
type row struct {
	name string
	args []string
	// cpu holds the CPU-seconds of each run, from the start of the process to the marker.
	cpu []float64
	// Of the last run as a whole, where the program counts: millions of instructions a
	// second, nanoseconds to translate one, and the share of the vCPU's time for that.
	mips, each, share string
}

func main() {
	runs := flag.Int("runs", 5, "runs of each row")
	dir := flag.String("guest", ".cache/guest", "folder of the guest's kernel and initrd")
	qemu := flag.String("qemu", "qemu-system-x86_64", "QEMU's program, which may be another version's")
	model := flag.String("qemu-cpu", "max", "QEMU's CPU model")
	extra := flag.String("append", "mitigations=off", "more of the guest's kernel command line; what it defends against depends on the CPU model, which is not measured here")
	limit := flag.Duration("limit", 5*time.Minute, "time limit of one boot")
	flag.Parse()
	if err := bench(*runs, *dir, []string{*qemu, "-cpu", *model}, *extra, *limit, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "bootbench: %v\n", err)
		os.Exit(1)
	}
}

func bench(runs int, dir string, program []string, extra string, limit time.Duration, out io.Writer) error {
	kernel, initrd := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd.img")
	scratch, err := os.MkdirTemp("", "bootbench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	vmlinux := filepath.Join(scratch, "vmlinux")
	if err := extract(kernel, vmlinux); err != nil {
		return err
	}
	cmdline := "console=ttyS0 berth.script=boot panic=-1 " + extra
	berth := func(extra ...string) []string {
		return append([]string{"./berth", "run", "--accel", "soft", "-v", "--initrd", initrd, "--memory", "512M", "--append", cmdline}, extra...)
	}
	qemu := func(kernel string) []string {
		return append(slices.Clone(program), "-accel", "tcg", "-machine", "q35", "-m", "512", "-smp", "1", "-nodefaults",
			"-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", cmdline)
	}
	rows := []*row{
		{name: "berth soft, payload unpacked on the host", args: berth("--kernel", kernel, "--decompress", "host")},
		{name: "QEMU TCG, payload unpacked by the guest", args: qemu(kernel)},
		{name: "berth soft, payload unpacked by the guest", args: berth("--kernel", kernel, "--decompress", "guest")},
		{name: "berth soft, vmlinux unpacked before", args: berth("--kernel", vmlinux)},
		{name: "QEMU TCG, vmlinux unpacked before (PVH)", args: qemu(vmlinux)},
	}
	for i := range runs {
		for _, r := range rows {
			fmt.Fprintf(os.Stderr, "run %d of %d: %s\n", i+1, runs, r.name)
			if err := r.run(limit); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	report(rows, out)
	return nil
}

// extract writes the ELF inside a bzImage, so that one row leaves decompression out.
func extract(kernel, to string) error {
	f, err := boot.OpenFile("kernel", kernel)
	if err != nil {
		return err
	}
	defer f.Close()
	elf, err := linux.Payload(f.SectionReader, 1<<30)
	if err != nil {
		return err
	}
	defer func() { _ = elf.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(elf, 0, int64(elf.Size())))
	return errors.Join(err, out.Close())
}

// run boots once and reads the process's CPU time when the marker appears.
func (r *row) run(limit time.Duration) error {
	p, err := process.Start(limit, r.args[0], r.args[1:]...)
	if err != nil {
		return err
	}
	defer p.Kill()
	seen := false
	lines := bufio.NewScanner(p.Stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !seen && strings.Contains(lines.Text(), marker) {
			seen = true
			cpu, err := process.CPUSeconds(p.PID())
			if err != nil {
				return err
			}
			r.cpu = append(r.cpu, cpu)
		}
	}
	_, err = p.Wait()
	if !seen || err != nil {
		return fmt.Errorf("no userland within %s (%w): %s", limit, err, p.Errors())
	}
	r.mips, r.each, r.share = counted(p.Errors(), "MIPS"), counted(p.Errors(), `"ns per instruction"`), counted(p.Errors(), `"share of CPU"`)
	return nil
}

// counted is what the log of berth run -v has behind a key; "-": nothing.
func counted(log, key string) string {
	if m := regexp.MustCompile(regexp.QuoteMeta(key) + `=(\S+)`).FindStringSubmatch(log); m != nil {
		return m[1]
	}
	return "-"
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[len(s)/2] + s[(len(s)-1)/2]) / 2
}

func report(rows []*row, out io.Writer) {
	fmt.Fprintf(out, "%-44s %8s %8s %8s %8s %15s %8s\n", "kernel to userland, CPU-seconds", "min", "median", "max", "MIPS", "ns to translate", "of CPU")
	for _, r := range rows {
		fmt.Fprintf(out, "%-44s %8.2f %8.2f %8.2f %8s %15s %8s\n", r.name, slices.Min(r.cpu), median(r.cpu), slices.Max(r.cpu), r.mips, r.each, r.share)
	}
	fmt.Fprintf(out, "berth/TCG, each as its user gets it: %.2f\n", median(rows[0].cpu)/median(rows[1].cpu))
	fmt.Fprintf(out, "berth/TCG, payload unpacked by the guest: %.2f\n", median(rows[2].cpu)/median(rows[1].cpu))
	fmt.Fprintf(out, "berth/TCG, vmlinux unpacked before: %.2f\n", median(rows[3].cpu)/median(rows[4].cpu))
}
