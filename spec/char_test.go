package spec

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhoHasStandardInputAndOutput(t *testing.T) {
	for _, c := range []struct{ serial, console, want string }{
		{"", "", "stdio"}, {"", "pty", "stdio"}, {"", "stdio", "null"}, {"pty", "stdio", "pty"}, {"null", "", "null"},
	} {
		m := Default()
		m.Boot.Kernel = "k"
		if c.serial != "" {
			m.Serial = Chars{{To: c.serial}}
		}
		if c.console != "" {
			m.Console = Chars{{To: c.console}}
		}
		if err := m.Complete(); err != nil {
			t.Fatal(err)
		}
		if err := m.Validate(); err != nil || m.Serial[0].To != c.want {
			t.Errorf("serial %q, console %q: serial goes to %q (%v)", c.serial, c.console, m.Serial[0].To, err)
		}
	}
	m := Default()
	m.Ports = []Port{{Name: "a", To: "stdio"}}
	if err := m.Complete(); err != nil || m.Serial[0].To != "null" {
		t.Errorf("a port on stdio: serial goes to %q (%v)", m.Serial[0].To, err)
	}
}

func TestCharErrors(t *testing.T) {
	for want, change := range map[string]func(*Machine){
		"serial: more than one host's end: give one of":                                   func(m *Machine) { m.Serial = Chars{{To: "pty", File: "a"}} },
		"console: no host's end: give stdio, pty, ringbuf, null, file=PATH":               func(m *Machine) { m.Console = Chars{{Server: true}} },
		"console: server says nothing without a socket: add socket=PATH or tcp=HOST:PORT": func(m *Machine) { m.Console = Chars{{To: "pty", Server: true}} },
		`console: "ptty" is not known: did you mean "pty"?`:                               func(m *Machine) { m.Console = Chars{{To: "ptty"}} },
		"console: stdio is that of serial already: give one of them another":              func(m *Machine) { m.Console = Chars{{To: "stdio"}} },
		"port b: s is that of port a already":                                             func(m *Machine) { m.Ports = []Port{{Name: "a", Socket: "s"}, {Name: "b", Socket: "s"}} },
		"5 serial ports: a PC has at most 4":                                              func(m *Machine) { m.Serial = make(Chars, 5) },
		"9 consoles: at most 8 are possible":                                              func(m *Machine) { m.Console = make(Chars, 9) },
		`console 1: address "host": give HOST:PORT`:                                       func(m *Machine) { m.Console = Chars{{To: "pty"}, {TCP: "host"}} },
		"console: size of ringbuf chardev must be power of two":                           func(m *Machine) { m.Console = Chars{{To: "ringbuf", Size: 1000}} },
		"console: size says nothing without a ringbuf":                                    func(m *Machine) { m.Console = Chars{{To: "pty", Size: 4096}} },
		"port x: its id x is that of serial already: give one of them":                    func(m *Machine) { m.Serial[0].ID = "x"; m.Ports = []Port{{Name: "x", To: "pty"}} },
		"port a: no host's end: give":                                                     func(m *Machine) { m.Ports = []Port{{Name: "a"}} },
		"port 0: no name: give name=NAME, such as name=org.qemu.guest_agent.0":            func(m *Machine) { m.Ports = []Port{{To: "pty"}} },
		"port a: there are two of that name":                                              func(m *Machine) { m.Ports = []Port{{Name: "a", To: "pty"}, {Name: "a", To: "null"}} },
		`port "a/b": a name is one word without slashes`:                                  func(m *Machine) { m.Ports = []Port{{Name: "a/b", To: "pty"}} },
		"its name is longer than 128 bytes":                                               func(m *Machine) { m.Ports = []Port{{Name: strings.Repeat("n", 129), To: "pty"}} },
		"31 ports: at most 30 are possible":                                               func(m *Machine) { m.Ports = make([]Port, 31) },
	} {
		m := Default()
		m.Boot.Kernel = "k"
		m.Serial = Chars{{To: "stdio"}}
		change(&m)
		if err := m.Complete(); err != nil {
			t.Fatal(err)
		}
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for in, want := range map[string]string{
		"name=a,sokcet=b": `unknown key "sokcet": did you mean "socket"?`,
		"name=a,to=vc":    `to: "vc" is not known: use stdio, pty, ringbuf, null`,
		"name=a,pty":      "is not key=value",
	} {
		if _, err := ParsePort(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePort(%q): %v; want %q", in, err, want)
		}
	}
}

// What a flag says stands in place of all that was said before of the device.
func TestCharIsSetAsAWhole(t *testing.T) {
	c := Char{Socket: "s", Server: true}
	if err := c.Set("file=f"); err != nil || c != (Char{File: "f"}) {
		t.Errorf("%+v, %v", c, err)
	}
	if err := c.Set("pty"); err != nil || c != (Char{To: "pty"}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestCharsInQEMUsWords(t *testing.T) {
	for in, want := range map[string]Char{
		"unix:/a,server=on,wait=off":    {Socket: "/a", Server: true},
		"tcp:localhost:1,server,nowait": {TCP: "localhost:1", Server: true},
		"file:/b":                       {File: "/b"},
		"pipe:/c":                       {Pipe: "/c"},
		"ringbuf,size=1M,id=log":        {To: "ringbuf", Size: 1 << 20, ID: "log"},
	} {
		var c Char
		if err := c.Set(in); err != nil || c != want {
			t.Errorf("%s: %+v, %v", in, c, err)
		}
	}
}

func TestCharsInAMachineFile(t *testing.T) {
	m, _, err := read(t, "m.yaml", "serial: null\nports:\n- {name: a, to: null}\n- {name: b, to: \"null\"}\n")
	if err != nil || m.Serial[0].To != "null" || m.Ports[0].To != "null" || m.Ports[1].To != "null" {
		t.Errorf("what YAML has for null: %+v %+v (%v)", m.Serial, m.Ports, err)
	}
	m, path, err := read(t, "m.yaml", `
serial: [file=log, {pipe: fifo}]
console: {socket: run/console, server: on}
ports:
  - {name: agent, socket: /run/agent}
  - name: shell
    to: pty
`)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := Default()
	want.Serial = Chars{{File: dir + "/log"}, {Pipe: dir + "/fifo"}}
	want.Console = Chars{{Socket: dir + "/run/console", Server: true}}
	want.Ports = []Port{{Name: "agent", Socket: "/run/agent"}, {Name: "shell", To: "pty"}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}
