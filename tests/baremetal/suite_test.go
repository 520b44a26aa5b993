// Package baremetal runs one freestanding guest that checks system instructions on every engine: soft, QEMU's TCG, and KVM.
package baremetal

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// suite builds the guest.
func suite(t *testing.T) string {
	t.Helper()
	elf := filepath.Join(t.TempDir(), "suite.elf")
	if out, err := exec.Command("./build", elf).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return elf
}

func berth(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "berth")
	cmd := exec.Command("go", "build", "-o", out, "./cmd/berth")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return out
}

// run returns what the guest said; its status is 1 or 3 by debug exit.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command("timeout", append([]string{"400", name}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if s := cmd.ProcessState; s == nil || s.ExitCode() != 1 && s.ExitCode() != 3 {
		t.Fatalf("%v\n%s\n%s", err, tail(out.String()), errs.String())
	}
	return out.String()
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// known reads the checks that an engine fails, as docs/decisions/0014-system-instructions.md
// and 0017-modes-segments-and-tasks.md explain. A name may be a pattern of path.Match.
func known(t *testing.T, engine string) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + engine + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range strings.Split(string(b), "\n") {
		if name, _, _ := strings.Cut(l, " "); name != "" && name != "#" {
			names = append(names, name)
		}
	}
	return names
}

// match returns the first of the patterns that name fits, or "".
func match(t *testing.T, patterns []string, name string) string {
	t.Helper()
	for _, p := range patterns {
		ok, err := path.Match(p, name)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if ok {
			return p
		}
	}
	return ""
}

// judge compares what the guest said with what is known of the engine. A name
// whose checks all pass is listed for nothing; some checks have the same name.
func judge(t *testing.T, out string, known []string) {
	t.Helper()
	failed, passed := map[string]int{}, map[string]int{}
	for _, l := range strings.Split(out, "\n") {
		result, rest, _ := strings.Cut(l, " ")
		name, _, _ := strings.Cut(rest, " ")
		p := match(t, known, name)
		switch {
		case result == "ok":
			passed[p]++
		case result == "FAIL" && p == "":
			t.Error(l)
		case result == "FAIL":
			failed[p]++
		}
	}
	listed := 0
	for _, p := range known {
		listed += failed[p]
		if failed[p] == 0 || strings.ContainsAny(p, "*?[") && passed[p] > 0 {
			t.Logf("%s is listed as failing, and %d of its checks pass", p, passed[p])
		}
	}
	if !strings.Contains(out, "\ndone: ") {
		t.Errorf("the suite did not reach its end:\n%s", tail(out))
	}
	total := 0
	for _, n := range passed {
		total += n
	}
	t.Logf("%d checks passed, %d known to fail", total, listed)
}

func TestSoft(t *testing.T) {
	judge(t, run(t, berth(t), "run", "--accel", "soft", "--debug-exit", "--kernel", suite(t)), nil)
}

func TestTCG(t *testing.T) {
	out := run(t, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "64", "-nodefaults", "-display", "none",
		"-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", suite(t))
	judge(t, out, known(t, "tcg"))
}

// TestKVM runs the suite under a real KVM, which itself runs on TCG's emulation
// of SVM: what the guest executes without leaving is TCG's work again.
func TestKVM(t *testing.T) {
	if out, err := exec.Command(filepath.Join(root, "tests/guest/setup"), "--test").CombinedOutput(); err != nil {
		t.Fatalf("tests/guest/setup: %v\n%s", err, out)
	}
	out := run(t, filepath.Join(root, "tests/nested/nested"), "-t", "360", "-f", berth(t), "-f", suite(t),
		"--", "berth run --accel kvm --debug-exit --kernel suite.elf")
	judge(t, out, known(t, "kvm"))
}
