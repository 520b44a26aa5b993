package main

import (
	"strings"
	"testing"
)

func TestReportShowsWhatIsLost(t *testing.T) {
	var out strings.Builder
	report("title", []result{
		{"berth", "raw", "read:4k:1", 100}, {"QEMU", "raw", "read:4k:1", 50},
		{"berth", "raw", "write:4k:1", 10}, {"berth", "raw", "write:4k:1", 20}, {"QEMU", "raw", "write:4k:1", 40},
	}, &out)
	for _, want := range []string{"2.00\n", "0.50  slower\n", "geometric mean 1.00; 1 of 2 slower\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
