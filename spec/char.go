package spec

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Limits of byte devices and named ports.
const (
	MaxSerials  = 4 // as many as a PC has
	MaxConsoles = 8
	MaxPorts    = 30
	MaxPortName = 128      // bytes
	MaxRing     = 64 << 20 // bytes that a ringbuf keeps
	DefaultRing = 64 << 10 // and of one that says nothing else
)

// Char is the host's end of a byte device: one of To, File, Pipe, Socket and TCP.
// The zero Char is none.
type Char struct {
	// To is this process's standard input and output, a pseudo-terminal that is
	// made, memory that keeps the last bytes, or nowhere.
	To     string `json:"to,omitempty" implied:"yes" words:"stdio pty ringbuf null"`
	File   string `json:"file,omitempty" path:"yes"` // only written; begun anew, unless Append
	Append bool   `json:"append,omitempty"`
	Pipe   string `json:"pipe,omitempty" path:"yes"`   // FIFOs: PATH.in and PATH.out, or PATH alone
	Socket string `json:"socket,omitempty" path:"yes"` // a Unix socket's name
	TCP    string `json:"tcp,omitempty"`               // HOST:PORT
	// Server makes the socket and listens on it; else another process does.
	Server bool `json:"server,omitempty"`
	// Size is how many bytes a ringbuf keeps, a power of two; 0 is DefaultRing.
	Size int64 `json:"size,omitempty"`
	// ID is what QMP calls it; empty is serial0, console0, … or the port's name.
	ID string `json:"id,omitempty"`
}

// Chars are the host's ends of devices of one kind, in their order.
type Chars []Char

// Set reads one host's end, in place of all others.
func (c *Chars) Set(s string) error {
	*c = nil
	return c.Add(s)
}

// Add reads one more host's end, the value of --serial or --console.
func (c *Chars) Add(s string) error {
	var one Char
	err := one.Set(s)
	*c = append(*c, one)
	return err
}

// Port is a named virtio port between a program in the guest and the host.
type Port struct {
	Name   string `json:"name"` // the guest's /dev/virtio-ports/NAME
	To     string `json:"to,omitempty" words:"stdio pty ringbuf null"`
	File   string `json:"file,omitempty" path:"yes"`
	Append bool   `json:"append,omitempty"`
	Pipe   string `json:"pipe,omitempty" path:"yes"`
	Socket string `json:"socket,omitempty" path:"yes"`
	TCP    string `json:"tcp,omitempty"`
	Server bool   `json:"server,omitempty"`
	Size   int64  `json:"size,omitempty"`
	ID     string `json:"id,omitempty"`
}

// Char returns the host's end of the port.
func (p Port) Char() Char {
	return Char{To: p.To, File: p.File, Append: p.Append, Pipe: p.Pipe, Socket: p.Socket, TCP: p.TCP, Server: p.Server, Size: p.Size, ID: p.ID}
}

// Set reads a host's end as --serial has it, in place of what was said before: keys, or QEMU's
// unix:PATH, tcp:HOST:PORT, file:PATH and pipe:PATH.
func (c *Char) Set(s string) error {
	*c = Char{}
	return setKeys(qemuChar(s), c)
}

// ParsePort reads the value of --port.
func ParsePort(s string) (Port, error) {
	var p Port
	if err := setKeys(s, &p); err != nil {
		return p, fmt.Errorf("port: %w", err)
	}
	return p, nil
}

// qemuChar puts a host's end in QEMU's words into keys. Nobody is waited for
// here (docs/decisions/0051-who-waits-for-a-console.md), so wait=off is dropped.
func qemuChar(s string) string {
	for prefix, key := range map[string]string{"unix:": "socket=", "tcp:": "tcp=", "file:": "file=", "pipe:": "pipe="} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			s = key + rest
			break
		}
	}
	parts := strings.Split(s, ",")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "wait=off" || p == "nowait" }), ",")
}

// named is a byte device as errors call it.
type named struct {
	what, id string
	char     Char
}

// chars lists the byte devices that there are.
func (m *Machine) chars() []named {
	var all []named
	for i, c := range m.Serial {
		all = append(all, named{numbered("serial", i), c.Label("serial", i), c})
	}
	for i, c := range m.Console {
		all = append(all, named{numbered("console", i), c.Label("console", i), c})
	}
	for _, p := range m.Ports {
		all = append(all, named{"port " + p.Name, p.Char().Label(p.Name, 0), p.Char()})
	}
	return all
}

// numbered names one of several devices; the first goes without a number.
func numbered(kind string, i int) string {
	if i == 0 {
		return kind
	}
	return fmt.Sprintf("%s %d", kind, i)
}

// OnStdio reports whether a byte device has standard input and output.
func (m *Machine) OnStdio() bool {
	for _, n := range m.chars() {
		if n.char.To == "stdio" {
			return true
		}
	}
	return false
}

// completeChars gives the serial port standard input and output, unless another
// device has them.
func (m *Machine) completeChars() {
	if len(m.Serial) == 0 {
		to := "stdio"
		if m.OnStdio() || m.MonitorOnStdio() {
			to = "null"
		}
		m.Serial = Chars{{To: to}}
	}
	for _, list := range []Chars{m.Serial, m.Console} {
		for i := range list {
			list[i].complete()
		}
	}
	for i, p := range m.Ports {
		c := p.Char()
		c.complete()
		m.Ports[i].Size = c.Size
	}
}

func (c *Char) complete() {
	if c.To == "ringbuf" && c.Size == 0 {
		c.Size = DefaultRing
	}
}

// Label is what QMP calls the host's end of serial port or console i (kind "serial",
// "console") or of a port, whose name is its kind.
func (c Char) Label(kind string, i int) string {
	switch {
	case c.ID != "":
		return c.ID
	case kind == "serial" || kind == "console":
		return fmt.Sprintf("%s%d", kind, i)
	}
	return kind
}

func (m *Machine) checkChars() error {
	if err := m.checkPortNames(); err != nil {
		return err
	}
	if len(m.Serial) > MaxSerials {
		return fmt.Errorf("%d serial ports: a PC has at most %d", len(m.Serial), MaxSerials)
	}
	if len(m.Console) > MaxConsoles {
		return fmt.Errorf("%d consoles: at most %d are possible", len(m.Console), MaxConsoles)
	}
	owner, ids := map[string]string{}, map[string]string{} // of what only one device can have
	if m.MonitorOnStdio() {
		owner["stdio"] = "hmp"
	}
	for _, n := range m.chars() {
		if err := n.char.Check(); err != nil {
			return fmt.Errorf("%s: %w", n.what, err)
		}
		at := n.char.File + n.char.Pipe + n.char.Socket + n.char.TCP
		if n.char.To == "stdio" {
			at = "stdio"
		}
		if other := owner[at]; other != "" && at != "" && at != "/dev/null" {
			return fmt.Errorf("%s: %s is that of %s already: give one of them another, or null", n.what, at, other)
		}
		if other := ids[n.id]; other != "" {
			return fmt.Errorf("%s: its id %s is that of %s already: give one of them another", n.what, n.id, other)
		}
		owner[at], ids[n.id] = n.what, n.what
	}
	return nil
}

// Check refuses a host's end that is none, or more than one.
func (c Char) Check() error {
	given := 0
	for _, s := range []string{c.To, c.File, c.Pipe, c.Socket, c.TCP} {
		if s != "" {
			given++
		}
	}
	const ends = "stdio, pty, ringbuf, null, file=PATH, pipe=PATH, socket=PATH"
	switch {
	case given == 0:
		return errors.New("no host's end: give " + ends + " or tcp=HOST:PORT")
	case given > 1:
		return errors.New("more than one host's end: give one of " + ends + " and tcp=HOST:PORT")
	case c.Server && c.Socket == "" && c.TCP == "":
		return errors.New("server says nothing without a socket: add socket=PATH or tcp=HOST:PORT")
	case c.Append && c.File == "":
		return errors.New("append says nothing without a file: add file=PATH")
	case c.Size != 0 && c.To != "ringbuf":
		return errors.New("size says nothing without a ringbuf")
	case c.Size < 0 || c.Size&(c.Size-1) != 0:
		return errors.New("size of ringbuf chardev must be power of two") // QEMU's words
	case c.Size > MaxRing:
		return fmt.Errorf("size %d: a ringbuf has at most %s", c.Size, FormatSize(MaxRing))
	case c.To != "":
		return oneOf(c.To, []string{"stdio", "pty", "ringbuf", "null"})
	case c.TCP != "":
		if _, _, err := net.SplitHostPort(c.TCP); err != nil {
			return fmt.Errorf("address %q: give HOST:PORT", c.TCP)
		}
	}
	return nil
}

func (m *Machine) checkPortNames() error {
	if len(m.Ports) > MaxPorts {
		return fmt.Errorf("%d ports: at most %d are possible", len(m.Ports), MaxPorts)
	}
	seen := map[string]bool{}
	for i, p := range m.Ports {
		switch {
		case p.Name == "":
			return fmt.Errorf("port %d: no name: give name=NAME, such as name=org.qemu.guest_agent.0", i)
		case len(p.Name) > MaxPortName:
			return fmt.Errorf("port %s: its name is longer than %d bytes", p.Name, MaxPortName)
		case strings.ContainsFunc(p.Name, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }):
			return fmt.Errorf("port %q: a name is one word without slashes", p.Name)
		case seen[p.Name]:
			return fmt.Errorf("port %s: there are two of that name", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}
