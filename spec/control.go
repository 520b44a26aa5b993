package spec

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// Control is a socket from which the VM is controlled.
type Control struct {
	Protocol string `json:"protocol" words:"qmp"`
	Socket   string `json:"socket,omitempty" path:"yes"` // a Unix socket's name
	TCP      string `json:"tcp,omitempty"`               // HOST:PORT
	// Server makes the socket and listens on it; else another process does.
	Server bool `json:"server,omitempty"`
	// Wait has the VM begin only once somebody has connected.
	Wait bool `json:"wait,omitempty"`
}

// ParseControl reads the value of --qmp: as QEMU's -qmp, unix:PATH or tcp:HOST:PORT,
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

func (m *Machine) checkControls() error {
	seen := map[string]bool{}
	for _, c := range m.Controls {
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: %w", c.Protocol, err)
		}
		at := c.Socket + c.TCP
		if seen[at] {
			return fmt.Errorf("%s: %s is there twice", c.Protocol, at)
		}
		seen[at] = true
	}
	return nil
}

func (c Control) check() error {
	if err := oneOf(c.Protocol, []string{"qmp"}); err != nil {
		return err
	}
	switch {
	case (c.Socket == "") == (c.TCP == ""):
		return errors.New("give one address: unix:PATH or tcp:HOST:PORT")
	case c.Wait && !c.Server:
		return errors.New("wait says nothing without server=on")
	case c.TCP != "":
		if _, _, err := net.SplitHostPort(c.TCP); err != nil {
			return fmt.Errorf("address %q: give HOST:PORT", c.TCP)
		}
	}
	return nil
}
