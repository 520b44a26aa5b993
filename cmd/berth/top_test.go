package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"berth/rundir"
)

// Disks come before network cards, each time.
func TestTopPartsInOrder(t *testing.T) {
	at := time.Now()
	now := counted{
		Usage: rundir.Usage{At: at.Add(time.Second), VCPUs: map[int]time.Duration{0: time.Second}},
		disks: map[string]moved{"b": {}, "a": {}}, nics: map[string]moved{"n": {}},
	}
	for range 20 {
		var out strings.Builder
		showParts(&out, counted{Usage: rundir.Usage{At: at}}, now)
		if !regexp.MustCompile(`(?s)vCPU 0.*process.*disk a.*disk b.*nic n`).MatchString(out.String()) {
			t.Fatalf("%s", out.String())
		}
	}
}
