package gdb

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
	"berth/tests/nested"
)

var minimal = flag.String("gdb.nested", "", "a gdb without Python, as gdb-minimal's, to debug guests of a real KVM with")

const root = "../.."

// patience bounds a wait for something that must happen.
const patience = time.Minute

// need skips the test without Debian's gdb.
func need(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("gdb"); err != nil {
		t.Skip("no gdb in PATH: tests/guest/setup --test installs gdb-minimal")
	}
}

// run runs a command that must succeed.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

func berth(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "berth")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/berth")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(t, cmd)
	return path
}

func kernel(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernel")
	run(t, exec.Command("./build", path))
	return path
}

// start runs a VM that can be debugged by way of the socket it returns, until the test's end.
func start(t *testing.T, binary string, args ...string) (socket string, hand *guest.Console) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "gdb")
	cmd := exec.Command(binary, append([]string{"run", "--gdb", "unix:" + socket}, args...)...)
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, typed := io.Pipe()
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = typed, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = typed.Close()
		if t.Failed() {
			t.Log(errs.String())
		}
	})
	hand = guest.NewConsole(screen, keys)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return socket, hand
		}
		if time.Now().After(end) {
			t.Fatalf("no socket: %s", errs.String())
		}
	}
}

// gdb runs a script, joined to a VM, and returns what it printed.
func gdb(t *testing.T, socket string, script ...string) string {
	t.Helper()
	args := []string{"--signal=KILL", fmt.Sprint(patience.Seconds()), "gdb", "-batch", "-nx"}
	for _, line := range append([]string{"set pagination off", "set confirm off", "target remote " + socket}, script...) {
		args = append(args, "-ex", line)
	}
	return run(t, exec.Command("timeout", args...))
}

// want looks for patterns, one after the other.
func want(t *testing.T, out string, patterns ...string) {
	t.Helper()
	rest := out
	for _, p := range patterns {
		at := regexp.MustCompile("(?m)" + p).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("no %q in\n%s\nof\n%s", p, rest, out)
		}
		rest = rest[at[1]:]
	}
}

// TestOwnKernel debugs a kernel by its symbols from before its first instruction on.
func TestOwnKernel(t *testing.T) {
	need(t)
	binary, image := berth(t), kernel(t)
	for _, engine := range []string{"interp", "jit", "auto"} {
		t.Run(engine, func(t *testing.T) {
			socket, _ := start(t, binary, "--accel", "soft", "--soft-engine", engine, "--paused", "--kernel", image)
			out := gdb(t, socket, "file "+image, "break add", "continue", "backtrace", "info args", "print at", "next", "finish", "step", "delete",
				"watch total if total > 10", "continue", "print turns", "delete", "rwatch turns", "continue", "delete",
				"break add if n == 50", "continue", "print n", "set var total = 77", "stepi", "hbreak work.c:18", "continue",
				"print $cr0", "print $efer", "print/x $cs", "info registers rip", "monitor info status", "delete", "detach")
			want(t, out, `Breakpoint 1, add \(n=1\)`, `#0 +add \(n=1\)`, `#1 .* work \(\)`, `^n = 1$`, `\{x = 3, y = 4\}`, `Value returned is .* 1`,
				`Hardware watchpoint 2: total`, `Old value = 10\nNew value = 15`, `= 5\n`, `Hardware read watchpoint 3: turns`, `Value = 5`,
				`Breakpoint 4, add \(n=50\)`, `= 50\n`, `Breakpoint 5, work \(\)`,
				`\[ PE ET PG \]`, `\[ LME LMA \]`, `= 0x8\n`, `rip +0x20`, `VM status: paused \(debug\)`, `\[Inferior 1 .* detached\]`)
		})
	}
}

// TestOwnKernelOnKVM does with this host's KVM what any KVM can: hardware
// breakpoints, and steps.
func TestOwnKernelOnKVM(t *testing.T) {
	need(t)
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("there is no /dev/kvm on this host")
	}
	image := kernel(t)
	socket, _ := start(t, berth(t), "--accel", "kvm", "--paused", "--kernel", image)
	out := gdb(t, socket, "file "+image, "hbreak add", "continue", "print n", "delete", "stepi", "stepi", "info symbol $pc", "hbreak work.c:18", "continue",
		"continue", "print turns", "print total", "monitor info status", "delete", "detach")
	want(t, out, `Breakpoint 1, add \(n=1\)`, `= 1\n`, `add \+ \d+ in section`, `Breakpoint 2, work \(\)`, `Breakpoint 2, work \(\)`, `= 2\n`, `= 3\n`, `paused \(debug\)`)
}

// TestOnRealKVM debugs a guest of the nested KVM, which meets neither kind of breakpoint
// there (docs/decisions/0071): step by step, and so gdb watches too.
func TestOnRealKVM(t *testing.T) {
	if *minimal == "" {
		t.Skip("-gdb.nested")
	}
	files, err := nested.Libraries(*minimal)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-c", "1", "-m", "1024", "-t", "280"}
	for _, f := range append(files, *minimal+":/bin/gdb", berth(t), kernel(t)) {
		args = append(args, "-f", f)
	}
	script := []string{"file kernel", "stepi", "info registers rip", "set can-use-hw-watchpoints 0", "watch turns", "continue", "continue", "print total", "backtrace",
		"stepi", "monitor info status", "delete", "detach"}
	command := "berth run --accel kvm --gdb unix:/tmp/gdb --paused --kernel kernel & while [ ! -e /tmp/gdb ]; do sleep 1; done\n" +
		"gdb -batch -nx -ex 'target remote /tmp/gdb' -ex '" + strings.Join(script, "' -ex '") + "'"
	_, out, errs, err := nested.Run(func() *exec.Cmd {
		return exec.Command("../nested/nested", append(args, "--", command)...)
	}, t.Logf)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	want(t, out, `rip +0x20`, `Watchpoint 1: turns`, `Old value = 0\r?\nNew value = 1`, `Old value = 1\r?\nNew value = 2`, `= 1`, `work \(\)`, `paused \(debug\)`, `detached`)
}

// TestDebianKernel debugs Debian's kernel on two vCPUs by the addresses that it says
// itself, while it works.
func TestDebianKernel(t *testing.T) {
	need(t)
	f := guest.Need(t)
	socket, hand := start(t, berth(t), "--accel", "soft", "--cpus", "2", "--memory", "512M", "--kernel", f.Kernel, "--initrd", f.Initrd,
		"--append", "console=ttyS0 quiet nokaslr berth.script=orders")
	if _, _, err := hand.Expect(`BERTH-ORDERS ready\r\n`, patience); err != nil {
		t.Fatalf("%v\n%s", err, hand.Said())
	}
	order := func(line string) string {
		t.Helper()
		out, err := hand.Run(line, patience)
		if err != nil {
			t.Fatalf("%v\n%s", err, hand.Said())
		}
		return out
	}
	symbol := map[string]string{}
	for line := range strings.Lines(order(`grep -E ' (linux_banner|do_sys_openat2|jiffies_64|__x64_sys_getppid)$' /proc/kallsyms`)) {
		if w := strings.Fields(line); len(w) == 3 {
			symbol[w[2]] = "0x" + w[0]
		}
	}
	order(`(while :; do cat /proc/uptime >/dev/null; done) & (while :; do cat /proc/loadavg >/dev/null; done) & true`)
	out := gdb(t, socket, "info threads", "x/s "+symbol["linux_banner"], "break *"+symbol["do_sys_openat2"], "continue", "continue", "info registers rip",
		"delete", "stepi", "stepi", "x/i $pc", "watch *(unsigned *)"+symbol["jiffies_64"], "continue", "delete",
		"hbreak *"+symbol["do_sys_openat2"], "continue", "thread 2", "print $efer", "delete", "detach")
	want(t, out, `Thread 1 \(CPU#0`, `Thread 2 \(CPU#1`, `"?Linux version 6`, `Breakpoint 1, 0x0*`+symbol["do_sys_openat2"][2:], `Breakpoint 1, `, `rip +`+symbol["do_sys_openat2"],
		`Hardware watchpoint 2`, `Old value = \d+\nNew value = \d+`, `Breakpoint 3, `, `Switching to thread 2`, `LME LMA`, `detached`)
	if got := order("echo still here"); got != "still here\n" {
		t.Errorf("after the debugger has gone: %q", got)
	}
}
