package spec

import (
	"strings"
	"testing"
)

// The rows are what QEMU 7.2 makes of the same -smp, or refuses.
func TestTopologyAsQEMU(t *testing.T) {
	for in, want := range map[string]CPUs{
		"4":                              {Count: 4},
		"6,sockets=2":                    {Count: 6, Sockets: 2, Cores: 3, Threads: 1},
		"6,cores=2":                      {Count: 6, Sockets: 3, Cores: 2, Threads: 1},
		"6,threads=2":                    {Count: 6, Sockets: 1, Cores: 3, Threads: 2},
		"8,cores=2,threads=2":            {Count: 8, Sockets: 2, Cores: 2, Threads: 2},
		"8,sockets=2,cores=2":            {Count: 8, Sockets: 2, Cores: 2, Threads: 2},
		"8,sockets=2,threads=2":          {Count: 8, Sockets: 2, Cores: 2, Threads: 2},
		"sockets=2,cores=2,threads=2":    {Count: 8, Sockets: 2, Cores: 2, Threads: 2},
		"cores=3":                        {Count: 3, Sockets: 1, Cores: 3, Threads: 1},
		"maxcpus=4":                      {Count: 4, Sockets: 1, Cores: 4, Threads: 1, Max: 4},
		"3,maxcpus=4,sockets=2":          {Count: 3, Sockets: 2, Cores: 2, Threads: 1, Max: 4},
		"count=2,maxcpus=8,cores=4":      {Count: 2, Sockets: 2, Cores: 4, Threads: 1, Max: 8},
		"1,sockets=1,cores=1,maxcpus=12": {Count: 1, Sockets: 1, Cores: 1, Threads: 12, Max: 12},
	} {
		var c CPUs
		if err := c.Set(in); err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if err := c.complete(); err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if err := c.check(); err != nil || c != want {
			t.Errorf("%s: %+v, %v; want %+v", in, c, err, want)
		}
	}
}

func TestBadTopologies(t *testing.T) {
	for in, want := range map[string]string{
		"0":                                  "count: 0: at least 1 is needed",
		"-2":                                 "count: -2: at least 1",
		"many":                               `count: "many" is not a number`,
		"4,sokcets=2":                        `unknown key "sokcets": did you mean "sockets"?`,
		"4,2":                                `"2" is not key=value: the keys are count, sockets, cores, threads, maxcpus`,
		"4,cores=2,cores=2":                  "cores is given twice",
		"4,cores":                            "cores: no value: write cores=VALUE",
		"4,cores=0":                          "cores: 0: at least 1 is needed",
		"256":                                "256 CPUs: at most 255 are possible",
		"4,cores=5000":                       "5000 cores: at most 4096",
		"4,sockets=3":                        "3 sockets × 1 core × 1 thread are 3 places, not 4: change one of them",
		"4,sockets=2,cores=2,threads=2":      "2 sockets × 2 cores × 2 threads are 8 places, not 4: change one of them, or give maxcpus=8",
		"8,maxcpus=4":                        "8 are more than maxcpus=4",
		"sockets=4096,cores=4096,threads=99": "at most 255 are possible",
	} {
		var c CPUs
		err := c.Set(in)
		if err == nil {
			err = c.complete()
		}
		if err == nil {
			err = c.check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}
