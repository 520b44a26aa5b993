// Package baremetal runs one freestanding guest that checks system instructions on every engine: soft, QEMU's TCG, and KVM.
package baremetal

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"berth/tests/nested"
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

// run returns what the guest said; its status is 1 or 3 by debug exit. An outer
// machine that freezes is started again.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd, out, errs, err := nested.Run(func() *exec.Cmd {
		return exec.Command("timeout", append([]string{"-s", "KILL", "400", name}, args...)...)
	}, t.Logf)
	if s := cmd.ProcessState; s == nil || s.ExitCode() != 1 && s.ExitCode() != 3 {
		t.Fatalf("%v\n%s\n%s", err, tail(out), errs)
	}
	return out
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// failure is a check that an engine fails, by a pattern of path.Match for its name.
type failure struct {
	pattern string
	mayPass bool // it depends on the host
}

// known reads the checks that an engine fails, as docs/decisions/0014-system-instructions.md
// explains. A line is a pattern, a space and the reason; a ? before the pattern
// says that the checks pass on some hosts.
func known(t *testing.T, engine string) []failure {
	t.Helper()
	b, err := os.ReadFile("testdata/" + engine + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []failure
	for _, l := range strings.Split(string(b), "\n") {
		if name, _, _ := strings.Cut(l, " "); name != "" && name != "#" {
			pattern, mayPass := strings.CutPrefix(name, "?")
			list = append(list, failure{pattern, mayPass})
		}
	}
	return list
}

// match returns the first of the patterns that name fits, or "".
func match(t *testing.T, list []failure, name string) string {
	t.Helper()
	for _, f := range list {
		ok, err := path.Match(f.pattern, name)
		if err != nil {
			t.Fatalf("%s: %v", f.pattern, err)
		}
		if ok {
			return f.pattern
		}
	}
	return ""
}

// reporter is what judge tells its findings.
type reporter interface {
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
}

// judge compares what the guest said with what is known of the engine. A name
// whose checks all pass is listed for nothing, unless it may; some checks have
// the same name.
func judge(t *testing.T, to reporter, out string, known []failure) {
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
			to.Errorf("%s", l)
		case result == "FAIL":
			failed[p]++
		}
	}
	listed := 0
	for _, f := range known {
		p := f.pattern
		listed += failed[p]
		if !f.mayPass && (failed[p] == 0 || strings.ContainsAny(p, "*?[") && passed[p] > 0) {
			to.Errorf("%s is listed as failing, and %d of its checks pass: take it from the list, or put a ? before it if that depends on the host", p, passed[p])
		}
	}
	if !strings.Contains(out, "\ndone: ") {
		to.Errorf("the suite did not reach its end:\n%s", tail(out))
	}
	total := 0
	for _, n := range passed {
		total += n
	}
	to.Logf("%d checks passed, %d known to fail", total, listed)
}

// verdict counts what judge finds wrong.
type verdict struct{ errors int }

func (v *verdict) Errorf(string, ...any) { v.errors++ }
func (v *verdict) Logf(string, ...any)   {}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, out string
		known     []failure
		errors    int
	}{
		{"all pass", "ok a\nok b", nil, 0},
		{"a failure that is not listed", "ok a\nFAIL b got 1", nil, 1},
		{"a failure that is listed", "ok a\nFAIL b got 1", []failure{{"b", false}}, 0},
		{"a listed one that passes", "ok a\nok b", []failure{{"b", false}}, 1},
		{"a listed one that may pass", "ok a\nok b", []failure{{"b", true}}, 0},
		{"a listed one that is not made", "ok a", []failure{{"b", false}}, 1},
		{"one of two of the same name", "ok b\nFAIL b got 1", []failure{{"b", false}}, 0},
		{"a pattern of which one passes", "ok b-1\nFAIL b-2 got 1", []failure{{"b-*", false}}, 1},
		{"a pattern that may pass", "ok b-1\nFAIL b-2 got 1", []failure{{"b-*", true}}, 0},
	} {
		var v verdict
		judge(t, &v, c.out+"\ndone: passed\n", c.known)
		if v.errors != c.errors {
			t.Errorf("%s: %d errors, want %d", c.name, v.errors, c.errors)
		}
	}
	var v verdict
	judge(t, &v, "ok a\n", nil)
	if v.errors != 1 {
		t.Error("an end that is missing is no error")
	}
}

func TestSoft(t *testing.T) {
	judge(t, t, run(t, berth(t), "run", "--accel", "soft", "--cpus", "2", "--debug-exit", "--kernel", suite(t)), nil)
}

func TestTCG(t *testing.T) {
	out := run(t, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "64", "-nodefaults", "-display", "none",
		"-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", suite(t))
	judge(t, t, out, known(t, "tcg"))
}

// TestKVM runs the suite under a real KVM, which itself runs on TCG's emulation
// of SVM: what the guest executes without leaving is TCG's work again.
func TestKVM(t *testing.T) {
	if out, err := exec.Command(filepath.Join(root, "tests/guest/setup"), "--test").CombinedOutput(); err != nil {
		t.Fatalf("tests/guest/setup: %v\n%s", err, out)
	}
	out := run(t, filepath.Join(root, "tests/nested/nested"), "-t", "360", "-f", berth(t), "-f", suite(t),
		"--", "berth run --accel kvm --cpus 2 --debug-exit --kernel suite.elf")
	judge(t, t, out, known(t, "kvm"))
}
