package spec

import (
	"cmp"
	"fmt"
)

// MaxCPUs is the most vCPUs a machine can have.
const MaxCPUs = 255

// maxGroups bounds each factor of a topology, so that their product cannot overflow.
const maxGroups = 4096

// CPUs is how many vCPUs a machine has and how they are grouped, by the rules of
// QEMU's -smp: zeros are computed, and all zeros but Count mean one socket of
// single-threaded cores.
type CPUs struct {
	Count   int `json:"count,omitempty" implied:"yes" min:"1"`
	Sockets int `json:"sockets,omitempty" min:"1"`
	Cores   int `json:"cores,omitempty" min:"1"`   // in a socket
	Threads int `json:"threads,omitempty" min:"1"` // in a core
	// Max is the number that the topology has room for; Count of them are there.
	Max int `json:"maxcpus,omitempty" min:"1"`
}

// Set reads the value of --cpus; what it does not name stays.
func (c *CPUs) Set(s string) error { return setKeys(s, c) }

// complete computes what is missing: cores first, then sockets, then threads,
// as QEMU does since 6.2.
func (c *CPUs) complete() error {
	if err := c.checkBounds(); err != nil {
		return err
	}
	if c.Count == 0 {
		c.Count = cmp.Or(c.Max, max(c.Sockets, 1)*max(c.Cores, 1)*max(c.Threads, 1))
	}
	places := cmp.Or(c.Max, c.Count)
	switch {
	case c.Sockets == 0 && c.Cores == 0 && c.Threads == 0 && c.Max == 0:
	case c.Cores == 0:
		c.Sockets, c.Threads = max(c.Sockets, 1), max(c.Threads, 1)
		c.Cores = places / (c.Sockets * c.Threads)
	case c.Sockets == 0:
		c.Threads = max(c.Threads, 1)
		c.Sockets = places / (c.Cores * c.Threads)
	case c.Threads == 0:
		c.Threads = places / (c.Cores * c.Sockets)
	}
	return nil
}

// checkBounds refuses numbers that no machine can have.
func (c *CPUs) checkBounds() error {
	for _, g := range []struct {
		name  string
		n     int
		limit int
	}{{"CPUs", c.Count, MaxCPUs}, {"sockets", c.Sockets, maxGroups}, {"cores", c.Cores, maxGroups},
		{"threads", c.Threads, maxGroups}, {"maxcpus", c.Max, maxGroups}} {
		if g.n < 0 {
			return fmt.Errorf("%d %s: at least 1 is needed", g.n, g.name)
		}
		if g.n > g.limit {
			return fmt.Errorf("%d %s: at most %d are possible", g.n, g.name, g.limit)
		}
	}
	return nil
}

// check refuses a topology that has not exactly as many places as there are
// CPUs, or as Max says.
func (c *CPUs) check() error {
	if err := c.checkBounds(); err != nil {
		return err
	}
	if c.Count < 1 {
		return fmt.Errorf("%d CPUs: at least 1 is needed", c.Count)
	}
	places := cmp.Or(c.Max, c.Count)
	if c.Count > places {
		return fmt.Errorf("cpus: %d are more than maxcpus=%d", c.Count, c.Max)
	}
	n := c.Sockets * c.Cores * c.Threads
	if n == places || c.Sockets == 0 && c.Cores == 0 && c.Threads == 0 {
		return nil
	}
	remedy := ""
	if n > c.Count && n <= maxGroups {
		remedy = fmt.Sprintf(", or give maxcpus=%d", n)
	}
	return fmt.Errorf("cpus: %s × %s × %s are %s, not %d: change one of them%s",
		plural(c.Sockets, "socket"), plural(c.Cores, "core"), plural(c.Threads, "thread"), plural(n, "place"), places, remedy)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
