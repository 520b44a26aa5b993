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

func TestTopRates(t *testing.T) {
	r := rates{2}
	before := map[string]moved{"a": {inBytes: 100, outBytes: 10, inOps: 1, outOps: 2}, "gone": {inBytes: 5}}
	now := map[string]moved{"a": {inBytes: 300, outBytes: 10, inOps: 5, outOps: 4}, "begun anew": {outBytes: 6}}
	if got, want := r.of(before["a"], now["a"]), (rate{100, 0, 2, 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := r.of(moved{inBytes: 50}, moved{inBytes: 8}), (rate{inBytes: 4}); got != want {
		t.Errorf("counters that began anew: %+v, want %+v", got, want)
	}
	if got, want := r.sum(before, now), (rate{100, 3, 2, 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := r.percent(3 * time.Second); got != 150 {
		t.Errorf("%g%%", got)
	}
	for v, want := range map[float64]string{0: "0", 999: "999", 1024: "1K", 1536: "1.5K", 20 << 20: "20M", 5 << 40: "5T"} {
		if got := amount(v); got != want {
			t.Errorf("%g is %q, want %q", v, got, want)
		}
	}
}
