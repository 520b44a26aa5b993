package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"berth/tests/guest"
)

// TestEveryFlagIsCompleted: whoever adds a flag to run says how its value is
// completed, if it is no file.
func TestEveryFlagIsCompleted(t *testing.T) {
	files := map[string]bool{"kernel": true, "initrd": true}
	run := runCommand(os.Stdin, io.Discard, io.Discard)
	run.Flags().VisitAll(func(f *pflag.Flag) {
		_, registered := run.GetFlagCompletionFunc(f.Name)
		if f.Value.Type() != "bool" && registered == files[f.Name] {
			t.Errorf("--%s: completed by a function %t, by files %t", f.Name, registered, files[f.Name])
		}
	})
	for name := range completions() {
		if run.Flags().Lookup(name) == nil {
			t.Errorf("completions for --%s, which is no flag", name)
		}
	}
}

// bashSetup makes bash show all choices at the first Tab, complete at its own
// prompt, and say the line that it has by Ctrl-T.
const bashSetup = `
PS1='ready> '
bind 'set show-all-if-ambiguous on' 'set bell-style none' 'set completion-query-items 0' 'set page-completions off' \
	'set enable-bracketed-paste off' 'set colored-completion-prefix off'
bind -x '"\C-t": printf "\nLINE<%s>\n" "$READLINE_LINE"'
. /usr/share/bash-completion/bash_completion
source <(berth completion bash)
`

// TestBashCompletes types command lines and Tab in a real bash with the script
// that berth completion prints.
func TestBashCompletes(t *testing.T) {
	if _, err := os.Stat("/usr/share/bash-completion/bash_completion"); err != nil {
		t.Fatalf("%v: tests/guest/setup --test installs the package bash-completion", err)
	}
	bash := startBash(t)
	for _, c := range []struct{ typed, line string }{
		{"berth doc", "berth doctor "},
		{"berth completion f", "berth completion fish "},
		{"berth run --ker", "berth run --kernel "},
		{"berth run --kernel vml", "berth run --kernel vmlinuz "},
		{"berth run --kernel vmlinuz --initrd in", "berth run --kernel vmlinuz --initrd initrd.img "},
		{"berth run --accel k", "berth run --accel kvm "},
		{"berth run --accel=so", "berth run --accel=soft "},
		{"berth run --machine micr", "berth run --machine microvm"},
		{"berth run --machine q35-1", "berth run --machine q35-1 "},
		{"berth run --on-panic res", "berth run --on-panic reset "},
		{"berth run --decompress g", "berth run --decompress guest "},
		{"berth run --pvpanic p", "berth run --pvpanic pci "},
		{"berth run --dry-run=y", "berth run --dry-run=yaml "},
		{"berth run --disk fi", "berth run --disk file="},
		{"berth run --disk file=ro", "berth run --disk file=root.img"},
		{"berth run --disk file=ima", "berth run --disk file=images/"},
		{"berth run --disk file=images/d", "berth run --disk file=images/data.img"},
		{"berth run --disk file=root.img,reado", "berth run --disk file=root.img,readonly="},
		{"berth run --disk file=root.img,thr", "berth run --disk file=root.img,throttling."},
		{"berth run --disk file=root.img,throttling.iops-s", "berth run --disk file=root.img,throttling.iops-size="},
		{"berth run --disk file=root.img,readonly=of", "berth run --disk file=root.img,readonly=off"},
		{"berth run --memory 1G,hugep", "berth run --memory 1G,hugepages="},
		{"berth run --memory 1G,policy=in", "berth run --memory 1G,policy=interleave"},
		{"berth run --cpus 4,so", "berth run --cpus 4,sockets="},
		{"berth run --numa di", "berth run --numa dist,"},
		{"berth run --numa node,cpus=0-3,mem", "berth run --numa node,cpus=0-3,memory="},
		{"berth run --serial st", "berth run --serial stdio"},
		{"berth run --serial pty --console so", "berth run --serial pty --console socket="},
		{"berth run --port name=a,socket=ima", "berth run --port name=a,socket=images/"},
		{"berth run we", "berth run web.yaml "},
		{"berth run --name vml", "berth run --name vml"},
		{"berth gua", "berth gua"},
		{"berth im", "berth image "},
		{"berth image sna", "berth image snapshot "},
		{"berth image info vml", "berth image info vmlinuz "},
	} {
		bash.tab(c.typed, 1)
		bash.lineIs(c.typed, c.line)
	}
	for _, c := range []struct{ typed, choices string }{
		{"berth run --accel ", "auto kvm soft"},
		{"berth run --disk ", "file= readonly= serial="},
		{"berth run --console ", "file= null pty server= socket= stdio"},
		{"berth run --numa ", "dist, node,"},
		{"berth run --cpus 4,", "cores= maxcpus= sockets= threads="},
		{"berth re", "reset resume"},
		{"berth run --on-panic ", "ignore reset stop"},
	} {
		bash.tab(c.typed, 1)
		if shown := bash.lineIs(c.typed, ""); !inOrder(shown, strings.Fields(c.choices)) {
			t.Errorf("%q: the choices %s are not all in %q", c.typed, c.choices, shown)
		}
	}
}

// inOrder reports whether text has the words one after another.
func inOrder(text string, words []string) bool {
	for _, w := range words {
		_, after, ok := strings.Cut(text, w)
		if !ok {
			return false
		}
		text = after
	}
	return true
}

// bash is an interactive bash on a terminal of its own.
type bash struct {
	*guest.Console
	t *testing.T
}

const bashPatience = time.Minute

func startBash(t *testing.T) bash {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	for _, name := range []string{"vmlinuz", "initrd.img", "root.img", "images/data.img", "web.yaml", "notes.txt"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(work, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(work, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rc := filepath.Join(t.TempDir(), "bashrc")
	if err := os.WriteFile(rc, []byte(bashSetup), 0o644); err != nil {
		t.Fatal(err)
	}
	master, slave := openPTY(t)
	cmd := exec.Command("bash", "--noprofile", "--rcfile", rc, "-i")
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+asBerth(t, self)+":"+os.Getenv("PATH"), "TERM=dumb", "COLUMNS=200", "HOME="+work)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	b := bash{guest.NewConsole(master, master), t}
	b.expect("ready> ")
	return b
}

func (b bash) expect(want string) (before string, groups []string) {
	b.t.Helper()
	before, groups, err := b.Expect(want, bashPatience)
	if err != nil {
		b.t.Fatalf("%v; bash said %q", err, b.Said())
	}
	return before, groups
}

// tab types a line and the key Tab, and asks for the line.
func (b bash) tab(typed string, tabs int) {
	b.t.Helper()
	if err := b.Type(typed + strings.Repeat("\t", tabs) + "\x14"); err != nil {
		b.t.Fatal(err)
	}
}

// lineIs reads the line, compares it unless want is empty, clears it, and
// returns what was shown before.
func (b bash) lineIs(typed, want string) string {
	b.t.Helper()
	shown, groups := b.expect(`LINE<([^>]*)>`)
	if want != "" && groups[1] != want {
		b.t.Errorf("%q and Tab: %q, want %q", typed, groups[1], want)
	}
	if err := b.Type(fmt.Sprintf("%c%c", 0x15, '\n')); err != nil { // Ctrl-U
		b.t.Fatal(err)
	}
	b.expect("ready> ")
	return shown
}
