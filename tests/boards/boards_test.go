package boards

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/tests/guest"
	"berth/tests/process"
)

// limit is for one VM, on a host that has other work too.
const limit = 10 * time.Minute

// TestQ35WithNodes: two sockets of two cores of two threads, two nodes with the
// second above 4 GiB; the panic of its kernel resets it.
func TestQ35WithNodes(t *testing.T) {
	mark, tables := disk(t), disk(t)
	g := boot(t, 0, "again,numa,high,warnings,tables,panic", "--machine", "q35",
		"--memory", "6G", "--cpus", "8,sockets=2,threads=2",
		"--numa", "node,cpus=0-3,memory=2G", "--numa", "node,cpus=4-7,memory=4G", "--numa", "dist,src=0,dst=1,val=21",
		"--disk", "file="+mark, "--disk", "file="+tables, "--pvpanic", "pci", "--on-panic", "reset")
	g.says(t, "CPU", `
		0 socket 0 core 0 threads 0-1 apic 0
		1 socket 0 core 0 threads 0-1 apic 1
		2 socket 0 core 1 threads 2-3 apic 2
		3 socket 0 core 1 threads 2-3 apic 3
		4 socket 1 core 0 threads 4-5 apic 4
		5 socket 1 core 0 threads 4-5 apic 5
		6 socket 1 core 1 threads 6-7 apic 6
		7 socket 1 core 1 threads 6-7 apic 7`)
	g.saysNear(t, "NODE", 10, `
		0 cpus 0-3 distance 10 21 MiB 2048
		1 cpus 4-7 distance 21 10 MiB 4096`)
	g.saysNear(t, "MEMORY", 10, `6144 MiB`)
	g.says(t, "RAM", `
		00001000-0009fbff : System RAM
		00100000-7fffffff : System RAM
		100000000-1ffffffff : System RAM`)
	if kib := g.written(t); len(kib) != 2 || kib[0] > 512 || kib[1] < 512 {
		t.Errorf("the last CPU wrote 1024 KiB, on its own node 1: %d KiB a node", kib)
	}
	g.warns(t)
	g.says(t, "TABLES", "APIC DSDT FACP FACS MCFG SLIT SRAT WAET")
	found := disassemble(t, tables)
	count(t, found["APIC"], `\[Processor Local APIC\]`, 8)
	count(t, found["SRAT"], `\[Memory Affinity\]`, 2)
	count(t, found["SLIT"], `Localities : 0000000000000002`, 1)
	if !strings.Contains(g.errs, "the guest's kernel panicked, and is reset") || len(g.lines("AGAIN")) != 1 || len(g.lines("SURVIVED")) != 0 {
		t.Errorf("the panic should have reset the guest:\n%s", g.errs)
	}
	// Memory that the guest did not touch is not there.
	if g.resident > 3<<30 {
		t.Errorf("a guest with 6 GiB that it hardly uses took %d MiB of the host", g.resident>>20)
	}
}

// TestMicrovm: the board without PCI; the panic of its kernel ends it.
func TestMicrovm(t *testing.T) {
	mark, tables := disk(t), disk(t)
	const panicked = 18
	g := boot(t, panicked, "numa,high,warnings,tables,panic", "--machine", "microvm", "--cpus", "3,cores=3",
		"--disk", "file="+mark, "--disk", "file="+tables)
	g.says(t, "CPU", `
		0 socket 0 core 0 threads 0 apic 0
		1 socket 0 core 1 threads 1 apic 1
		2 socket 0 core 2 threads 2 apic 2`)
	g.saysNear(t, "MEMORY", 10, `512 MiB`)
	g.warns(t, "PCI: Fatal: No config space access function found", "PCI: System does not support PCI")
	g.says(t, "TABLES", "APIC DSDT FACP FACS WAET")
	found := disassemble(t, tables)
	count(t, found["APIC"], `\[Processor Local APIC\]`, 3)
	count(t, found["DSDT"], `"LNRO0005"`, 3) // the disks and the entropy device
	count(t, found["DSDT"], `"QEMU0001"`, 1)
	if !strings.HasSuffix(g.errs, "berth: the guest's kernel panicked\n") || len(g.lines("PANIC")) != 1 || len(g.lines("SURVIVED")) != 0 {
		t.Errorf("the panic should have been said and have ended the VM:\n%s", g.errs)
	}
	if !strings.Contains(g.said, "Kernel panic - not syncing: sysrq triggered crash") {
		t.Error("the console's last words are missing")
	}
}

// guestSaid is a VM that has ended.
type guestSaid struct {
	said, errs string // its console; berth's own words
	resident   int64  // the most memory that it took, in bytes
}

// disk makes an empty disk.
func disk(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// boot runs Debian's kernel on soft with scripts of tests/guest/scripts.
func boot(t *testing.T, status int, scripts string, flags ...string) guestSaid {
	t.Helper()
	files := guest.Need(t)
	args := append([]string{"run", "--accel", "soft", "--kernel", files.Kernel, "--initrd", files.Initrd,
		"--append", "console=ttyS0 quiet berth.script=" + scripts}, flags...)
	cmd := exec.Command(build(t), args...)
	var said, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &errs
	if err := process.Tie(cmd).Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("status %d, want %d:\n%s%s", got, status, said.String(), errs.String())
	}
	g := guestSaid{said: strings.ReplaceAll(said.String(), "\r\n", "\n"), errs: errs.String()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		g.resident = usage.Maxrss << 10
	}
	t.Logf("%.0f CPU-seconds, %d MiB", (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), g.resident>>20)
	t.Log(g.said)
	return g
}

func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "berth")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/berth")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// lines are what a script said after a word: "BERTH-WORD …".
func (g guestSaid) lines(word string) []string {
	var lines []string
	for l := range strings.Lines(g.said) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(l), "BERTH-"+word); ok {
			lines = append(lines, strings.TrimSpace(rest))
		}
	}
	return lines
}

// wanted are the lines of a text in the source.
func wanted(text string) []string {
	var lines []string
	for l := range strings.Lines(strings.TrimSpace(text)) {
		lines = append(lines, strings.TrimSpace(l))
	}
	return lines
}

func (g guestSaid) says(t *testing.T, word, want string) {
	t.Helper()
	if d := cmp.Diff(wanted(want), g.lines(word)); d != "" {
		t.Errorf("%s: -want +got:\n%s", word, d)
	}
}

var mebibytes = regexp.MustCompile(`MiB \d+|^\d+ MiB`)

// saysNear is says, but that each number of MiB may be less, by percent: the
// kernel does not count what it keeps for itself.
func (g guestSaid) saysNear(t *testing.T, word string, percent int, want string) {
	t.Helper()
	got := g.lines(word)
	for i, w := range wanted(want) {
		if i >= len(got) {
			break // says complains
		}
		wantMiB, gotMiB := number(w), number(got[i])
		if gotMiB <= wantMiB && gotMiB >= wantMiB*(100-percent)/100 {
			got[i] = mebibytes.ReplaceAllString(got[i], mebibytes.FindString(w))
		}
	}
	if d := cmp.Diff(wanted(want), got); d != "" {
		t.Errorf("%s: -want +got, MiB within %d%%:\n%s", word, percent, d)
	}
}

func number(line string) int {
	n, _ := strconv.Atoi(strings.Trim(mebibytes.FindString(line), "MiB "))
	return n
}

// written is how many KiB of the file that script high wrote lie on each node.
func (g guestSaid) written(t *testing.T) []int {
	t.Helper()
	var kib []int
	for i, l := range g.lines("WRITTEN") {
		f := strings.Fields(l) // node N KiB K
		n, err := strconv.Atoi(f[len(f)-1])
		if err != nil || f[1] != strconv.Itoa(i) {
			t.Fatal(l, err)
		}
		kib = append(kib, n)
	}
	return kib
}

// warns allows the kernel's warnings that are known, and those of a host that is too busy.
func (g guestSaid) warns(t *testing.T, known ...string) {
	t.Helper()
	known = append(known, "hrtimer: interrupt took", "clocksource: Long readout interval", "#") // "#1 #2": CPUs that come up
	for _, l := range g.lines("WARNING") {
		if !slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(l, k) }) {
			t.Errorf("the kernel warned: %s", l)
		}
	}
}

// disassemble takes the tables from the disk where script tables put them and
// returns what iasl makes of each; a complaint of iasl's fails the test.
func disassemble(t *testing.T, disk string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	names := untar(t, disk, dir)
	for _, name := range names {
		cmd := exec.Command("iasl", "-d", name)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("Warning")) || bytes.Contains(out, []byte("Error")) {
			t.Errorf("iasl -d %s: %v\n%s", name, err, out)
		}
	}
	found := map[string]string{}
	for _, name := range names {
		src, err := os.ReadFile(filepath.Join(dir, name+".dsl"))
		if err != nil {
			t.Error(err)
		}
		found[name] = string(src)
	}
	return found
}

func untar(t *testing.T, archive, dir string) (names []string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		// tables/data holds tables' memory, tables/dynamic what was loaded later.
		name, ok := strings.CutPrefix(h.Name, "tables/")
		if !ok || h.Typeflag != tar.TypeReg || strings.Contains(name, "/") {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
}

func count(t *testing.T, source, pattern string, want int) {
	t.Helper()
	if got := len(regexp.MustCompile(pattern).FindAllString(source, -1)); got != want {
		t.Errorf("%d times %s, want %d, in\n%s", got, pattern, want, source)
	}
}
