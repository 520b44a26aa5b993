package spec

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Control is a socket from which the VM is controlled, or standard input and output.
type Control struct {
	Protocol string `json:"protocol" words:"qmp hmp gdb"`
	To       string `json:"to,omitempty" implied:"yes" words:"stdio"` // of hmp only
	Socket   string `json:"socket,omitempty" path:"yes"`              // a Unix socket's name
	TCP      string `json:"tcp,omitempty"`                            // HOST:PORT
	// Server makes the socket and listens on it; else another process does.
	Server bool `json:"server,omitempty"`
	// Wait has the VM begin only once somebody has connected.
	Wait bool `json:"wait,omitempty"`
}

// ParseControl reads the value of --qmp or --hmp: stdio for the latter, else as QEMU's -qmp, unix:PATH or tcp:HOST:PORT,
// with server=on and wait=off (a server waits unless told otherwise), or keys alone.
func ParseControl(protocol, s string) (Control, error) {
	c := Control{Protocol: protocol}
	for prefix, key := range map[string]string{"unix:": "socket=", "tcp:": "tcp="} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			s = key + rest
		}
	}
	parts := strings.Split(s, ",")
	told := false
	for i, p := range parts {
		if p == "nowait" {
			parts[i] = "wait=off"
		}
		told = told || strings.HasPrefix(parts[i], "wait")
	}
	if err := setKeys(strings.Join(parts, ","), &c); err != nil {
		return c, err
	}
	if c.Server && !told {
		c.Wait = true
	}
	return c, nil
}

// ParseGDB reads the value of --gdb: unix:PATH, tcp:HOST:PORT or :PORT, which is on
// this host alone unless HOST says otherwise, "on" for QEMU's :1234, or keys alone. It
// makes the socket, and the VM does not wait for anybody.
func ParseGDB(s string) (Control, error) {
	if s == "on" {
		s = ":1234"
	}
	if strings.HasPrefix(s, ":") {
		s = "tcp:" + s
	}
	if port, ok := strings.CutPrefix(s, "tcp::"); ok {
		s = "tcp:127.0.0.1:" + port
	}
	if !strings.ContainsAny(s, ":=") {
		return Control{}, fmt.Errorf("address %q: give unix:PATH, tcp:HOST:PORT, :PORT or on", s)
	}
	c, err := ParseControl("gdb", s)
	c.Server, c.Wait = true, false
	return c, err
}

func (m *Machine) checkControls() error {
	seen := map[string]bool{}
	for _, c := range m.Controls {
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: %w", c.Protocol, err)
		}
		at := c.To + c.Socket + c.TCP
		if seen[at] {
			return fmt.Errorf("%s: %s is there twice", c.Protocol, at)
		}
		seen[at] = true
	}
	return nil
}

// MonitorOnStdio reports whether the human monitor has standard input and output.
func (m *Machine) MonitorOnStdio() bool {
	return slices.ContainsFunc(m.Controls, func(c Control) bool { return c.To == "stdio" })
}

func (c Control) check() error {
	if err := oneOf(c.Protocol, []string{"qmp", "hmp", "gdb"}); err != nil {
		return err
	}
	given := 0
	for _, s := range []string{c.To, c.Socket, c.TCP} {
		if s != "" {
			given++
		}
	}
	switch {
	case c.To != "" && c.Protocol != "hmp":
		return errors.New("only --hmp can be on stdio: give unix:PATH or tcp:HOST:PORT")
	case c.To != "" && c.To != "stdio":
		return oneOf(c.To, []string{"stdio"})
	case given != 1:
		return errors.New("give one address: unix:PATH or tcp:HOST:PORT, or stdio of --hmp")
	case c.Protocol == "gdb" && (!c.Server || c.Wait):
		return errors.New("a debugger connects to the VM, which waits with --paused: server=on, wait=off")
	case c.Wait && !c.Server:
		return errors.New("wait says nothing without server=on")
	case c.TCP != "":
		if _, _, err := net.SplitHostPort(c.TCP); err != nil {
			return fmt.Errorf("address %q: give HOST:PORT", c.TCP)
		}
	}
	return nil
}
