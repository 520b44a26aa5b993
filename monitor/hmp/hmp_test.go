package hmp

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// echo is a command that prints its arguments.
func echo(name string, args ...Arg) Command {
	return Command{Name: name, Args: args, Params: "params", Help: "help of " + name, Run: func(c *Call) error {
		for _, a := range args {
			switch a.Kind {
			case Format:
				c.Printf("%d%c%d ", c.Layout().Count, c.Layout().Format, c.Layout().Size)
			case Flag:
				c.Printf("%v ", c.On(a.Name))
			case Number, Index, Mega, Size:
				if c.Has(a.Name) {
					c.Printf("%d ", c.Number(a.Name))
				}
			default:
				c.Printf("[%s]", c.Text(a.Name))
			}
		}
		return nil
	}}
}

func testInterpreter() *Interpreter {
	return &Interpreter{
		Register: func(cpu int, name string) (uint64, bool) {
			return map[string]uint64{"pc": 0x1234, "cs.base": 7}[name], name == "pc" || name == "cs.base"
		},
		Commands: []Command{
			echo("x", Arg{Name: "fmt", Kind: Format}, Arg{Name: "addr", Kind: Number}),
			echo("print|p", Arg{Name: "val", Kind: Number}),
			echo("in", Arg{Name: "addr", Kind: Index}, Arg{Name: "index", Kind: Index, AfterDot: true}),
			echo("resize", Arg{Name: "device", Kind: Block}, Arg{Name: "size", Kind: Size}),
			echo("balloon", Arg{Name: "value", Kind: Mega}),
			echo("save", Arg{Name: "p", Kind: Flag}, Arg{Name: "d", Kind: Flag}, Arg{Name: "file", Kind: File}, Arg{Name: "begin", Kind: Number, Optional: true}),
			echo("link", Arg{Name: "name", Kind: Word, Values: func() []string { return []string{"net0", "net1", "nic"} }}, Arg{Name: "up", Kind: Switch}),
			echo("add", Arg{Name: "device", Kind: Rest}),
			{Name: "fail", Run: func(*Call) error { return errors.New("no such thing") }},
			{Name: "none"},
			{Name: "flood", Run: func(c *Call) error {
				for range 20 {
					c.Printf("%s", strings.Repeat("x", 1<<20))
				}
				return nil
			}},
			{Name: "info", Params: "[subcommand]", Help: "show", Run: HelpOn("info"), Sub: []Command{echo("one"), echo("two", Arg{Name: "a", Kind: Word, Optional: true})}},
			HelpCommand(),
		},
	}
}

// What QEMU 7.2 answers to the same.
func TestLines(t *testing.T) {
	i, s := testInterpreter(), NewState()
	for _, c := range [][2]string{
		{"", ""},
		{"  ", ""},
		{"nosuch thing", "unknown command: 'nosuch'\n"},
		{"info nosuch", "unknown command: 'info nosuch'\n"},
		{"none", "Command \"none\" is not available.\n"},
		{"fail", "Error: no such thing\n"},
		{"x /4xb 1", "4x1 1 "},
		{"x/2i $pc", "2i1 4660 "},
		{"x 3", "1i1 3 "},
		{"x /3dg 3", "3d8 3 "},
		{"x /9", "unexpected end of expression\nTry \"help x\" for more information\n"},
		{"x /2s 1", "invalid char in format: 's'\nTry \"help x\" for more information\n"},
		{"x /99999999999x 1", "2147483647x8 1 "},
		{"p 1 2", "print|p: extraneous characters at the end of line\nTry \"help p\" for more information\n"},
		{"in 0x71", "113 "},
		{"in 0x70.1", "112 1 "},
		{"in 1<<40", "in: extraneous characters at the end of line\nTry \"help in\" for more information\n"},
		{"in 0x100000000", "'in' has failed: integer is for 32-bit values\nTry \"help in\" for more information\n"},
		{"resize d0 10", "[d0]10485760 "},
		{"resize d0 1.5G", "[d0]1610612736 "},
		{"resize d0 512B", "[d0]512 "},
		{"resize d0 9E", "invalid size\nTry \"help resize\" for more information\n"},
		{"resize d0 x", "invalid size\nTry \"help resize\" for more information\n"},
		{"resize", "resize: block device name expected\nTry \"help resize\" for more information\n"},
		{"balloon 3", "3145728 "},
		{"balloon -3", "enter a positive value\nTry \"help balloon\" for more information\n"},
		{"save -p -d f", "true true [f]"},
		{"save -d f 7", "false true [f]7 "},
		{"save -q f", "save: unsupported option -q\nTry \"help save\" for more information\n"},
		{"save", "save: filename expected\nTry \"help save\" for more information\n"},
		{`save "a \"b\\\n" 1`, "false false [a \"b\\\n]1 "},
		{`save "a`, "unterminated string\nsave: filename expected\nTry \"help save\" for more information\n"},
		{`save "a\q"`, "unsupported escape code: '\\q'\nsave: filename expected\nTry \"help save\" for more information\n"},
		{"link net0 on", "[net0][on]"},
		{"link net0 maybe", "Expected 'on' or 'off'\nTry \"help link\" for more information\n"},
		{"add virtio-blk, id=x y ", "[virtio-blk, id=x y ]"},
		{"add", "add: string expected\nTry \"help add\" for more information\n"},
		{"info two a b", "two: extraneous characters at the end of line\nTry \"help info two\" for more information\n"},
		{"info", "info one params -- help of one\ninfo two params -- help of two\n"},
		{"help info one", "info one params -- help of one\n"},
		{"? p", "print|p params -- help of print|p\n"},
		{"help nosuch", "unknown command: 'nosuch'\n"},
	} {
		if got, _ := i.Run(s, nil, c[0]); got != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
	if out, _ := i.Run(s, nil, "flood"); len(out) > maxOutput+100 || !strings.HasSuffix(out, "the rest is left out)\n") {
		t.Errorf("a flood of %d bytes", len(out))
	}
}

func TestExpressions(t *testing.T) {
	i, s := testInterpreter(), NewState()
	for expression, want := range map[string]string{
		"1+2*3": "7 ", "3%2": "1 ", "~1": "-2 ", "-5": "-5 ", "+ 5": "5 ", "0x10 | 1": "17 ", "7&3": "3 ", "7^1": "6 ", "010": "8 ", "'A'": "65 ",
		"$pc": "4660 ", "$cs.base+1": "8 ", "(1+2)*3": "9 ", "2*(3": "')' expected", "1/0": "division by zero", "1 +": "unexpected end of expression",
		"$nosuch": "unknown register", "*0": "invalid char '*' in expression", "99999999999999999999": "number too large", "''": "missing terminating ' character",
		"0x": "print|p: extraneous characters at the end of line", "'": "character constant expected", "0xffffffffffffffff": "-1 ",
		strings.Repeat("(", 100000): "expression too deep", "-0x8000000000000000/-1": "-9223372036854775808 ",
		"1-2-3": "-4 ", "1|2+4": "7 ",
	} {
		got, _ := i.Run(s, nil, "p "+expression)
		if line, _, _ := strings.Cut(got, "\n"); line != want {
			t.Errorf("%.20s: %q, want %q", expression, line, want)
		}
	}
}

func TestComplete(t *testing.T) {
	i := testInterpreter()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "core.1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][]string{
		"":          {"?", "add", "balloon", "fail", "flood", "help", "in", "info", "link", "none", "p", "print", "resize", "save", "x"},
		"in":        {"in", "info"},
		"info t":    {"two"},
		"help info": {"info"}, "help info t": {"two"}, "? lin": {"link"},
		"link n": {"net0", "net1", "nic"}, "link net0 ": {"off", "on"}, "link net0 on ": nil, "nosuch ": nil,
		"save -p " + dir + "/c": {dir + "/core.1"},
	} {
		if _, got := i.Complete(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// A person's keys and what they see.
func TestSession(t *testing.T) {
	here, there := net.Pipe()
	i := testInterpreter()
	s := Session{Interpreter: i, Banner: "hello\n", Run: func(st *State, line string) (string, []func()) { return i.Run(st, nil, line) }}
	done := make(chan error, 1)
	go func() { done <- s.Serve(there) }()
	seen := make(chan string, 1000)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := here.Read(buf)
			if err != nil {
				return
			}
			seen <- string(buf[:n])
		}
	}()
	text := ""
	expect := func(want string) {
		t.Helper()
		for !strings.Contains(text, want) {
			select {
			case s := <-seen:
				text += s
			case <-time.After(5 * time.Second):
				t.Fatalf("%q is not in %q", want, text)
			}
		}
		text = ""
	}
	keys := func(s string) {
		t.Helper()
		if _, err := io.WriteString(here, s); err != nil {
			t.Fatal(err)
		}
	}
	expect("hello\r\n" + Prompt)
	keys("p 1+1\r")
	expect("2 ")
	keys("\x1b[A\r") // the same again
	expect("2 ")
	keys("li\tn\t\t")
	expect("net0 net1 nic")
	keys("et1 off\r")
	expect("[net1][off]")
	keys("\x04")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !slices.Equal(s.state.History, []string{"p 1+1", "p 1+1", "link net1 off"}) {
		t.Errorf("history %q", s.state.History)
	}
}

// FuzzLine: no line makes the interpreter fail, hang or print without end.
func FuzzLine(f *testing.F) {
	for _, line := range []string{"x /4xb $pc", "p (1+2)*-3", `save -p "a\n" 1`, "help info one", "info two", "resize d0 1.5G", "in 0x70.1", "add a=b,c"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		i := testInterpreter()
		out, _ := i.Run(NewState(), nil, line)
		if len(out) > maxOutput+4096+2*len(line) {
			t.Errorf("%d bytes of output", len(out))
		}
		i.Complete(line)
	})
}
