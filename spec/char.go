package spec

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of named ports.
const (
	MaxPorts    = 30
	MaxPortName = 128 // bytes
)

// Char is the host's end of a byte device: one of To, File and Socket. The zero
// Char is none.
type Char struct {
	// To is this process's standard input and output, a pseudo-terminal that is
	// made, or nowhere.
	To     string `json:"to,omitempty" implied:"yes" words:"stdio pty null"`
	File   string `json:"file,omitempty" path:"yes"`   // begun anew, and only written
	Socket string `json:"socket,omitempty" path:"yes"` // a Unix socket's name
	// Server makes the socket and listens on it; else another process does.
	Server bool `json:"server,omitempty"`
}

// Port is a named virtio port between a program in the guest and the host.
type Port struct {
	Name   string `json:"name"` // the guest's /dev/virtio-ports/NAME
	To     string `json:"to,omitempty" words:"stdio pty null"`
	File   string `json:"file,omitempty" path:"yes"`
	Socket string `json:"socket,omitempty" path:"yes"`
	Server bool   `json:"server,omitempty"`
}

// Char returns the host's end of the port.
func (p Port) Char() Char { return Char{p.To, p.File, p.Socket, p.Server} }

// Set reads the value of --serial and --console, in place of what was said before.
func (c *Char) Set(s string) error {
	*c = Char{}
	return setKeys(s, c)
}

// ParsePort reads the value of --port.
func ParsePort(s string) (Port, error) {
	var p Port
	if err := setKeys(s, &p); err != nil {
		return p, fmt.Errorf("port: %w", err)
	}
	return p, nil
}

// named is a byte device as errors call it.
type named struct {
	what string
	char Char
}

// chars lists the byte devices that there are.
func (m *Machine) chars() []named {
	all := []named{{"serial", m.Serial}}
	if m.Console != (Char{}) {
		all = append(all, named{"console", m.Console})
	}
	for _, p := range m.Ports {
		all = append(all, named{"port " + p.Name, p.Char()})
	}
	return all
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
	if m.Serial != (Char{}) {
		return
	}
	if m.Serial.To = "null"; !m.OnStdio() {
		m.Serial.To = "stdio"
	}
}

func (m *Machine) checkChars() error {
	if err := m.checkPortNames(); err != nil {
		return err
	}
	owner := map[string]string{} // of what only one device can have
	for _, n := range m.chars() {
		if err := n.char.check(); err != nil {
			return fmt.Errorf("%s: %w", n.what, err)
		}
		at := n.char.File + n.char.Socket
		if n.char.To == "stdio" {
			at = "stdio"
		}
		if other := owner[at]; other != "" && at != "" && at != "/dev/null" {
			return fmt.Errorf("%s: %s is that of %s already: give one of them another, or null", n.what, at, other)
		}
		owner[at] = n.what
	}
	return nil
}

func (c Char) check() error {
	given := 0
	for _, s := range []string{c.To, c.File, c.Socket} {
		if s != "" {
			given++
		}
	}
	switch {
	case given == 0:
		return errors.New("no host's end: give stdio, pty, null, file=PATH or socket=PATH")
	case given > 1:
		return errors.New("more than one host's end: give one of stdio, pty, null, file=PATH and socket=PATH")
	case c.Server && c.Socket == "":
		return errors.New("server says nothing without a socket: add socket=PATH")
	case c.To != "":
		return oneOf(c.To, []string{"stdio", "pty", "null"})
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
