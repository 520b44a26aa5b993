package kvm

import (
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// TestProbe runs the probe on this host: whatever it finds, it says why, and
// says the same from the cache.
func TestProbe(t *testing.T) {
	open(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	first, err := Probe(DefaultPath, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", first)
	if first.MIPS <= 0 || first.Cached || first.Usable != (len(first.Refused) == 0 && first.MIPS >= MinMIPS) {
		t.Errorf("%+v", first)
	}
	for _, name := range first.Refused {
		if !strings.Contains(first.Reason, name) {
			t.Errorf("%q does not name %s", first.Reason, name)
		}
	}
	second, err := Probe(DefaultPath, quiet())
	if err != nil || !second.Cached || second.Reason != first.Reason || second.Usable != first.Usable {
		t.Errorf("from the cache: %+v, %v", second, err)
	}
}

func TestReportJudges(t *testing.T) {
	all := map[uint8]bool{0: true, 1: true, 2: true, 3: true}
	for _, c := range []struct {
		p      prober
		err    error
		usable bool
		reason string
	}{
		{prober{mips: 3000, executed: all}, nil, true, "runs ordinary guests, kernel code at 3000 million"},
		{prober{mips: 1.5, executed: all}, nil, false, "at 1.5 million instructions"},
		{prober{mips: 900, executed: map[uint8]bool{1: true, 2: true}}, nil, false, "stops at cmpxchg16b, xrstor64 in kernel mode"},
		{prober{}, errors.New("silence"), false, "cannot run ordinary guests: silence"},
	} {
		if r := c.p.report(c.err); r.Usable != c.usable || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%+v, want %t %q", r, c.usable, c.reason)
		}
	}
}

func TestOpenErrorsSayWhatToDo(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "kvm")
	_, err := New(missing, quiet())
	var open *OpenError
	if !errors.As(err, &open) || !errors.Is(err, ErrMissing) || open.Remedy == "" || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing: %v", err)
	}
	_, err = New("/dev/null", quiet())
	if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), "not a KVM device") {
		t.Errorf("/dev/null: %v", err)
	}
	if err := openError("/dev/kvm", errors.ErrUnsupported); !errors.Is(err, ErrUnusable) {
		t.Errorf("other: %v", err)
	}
	for cpuinfo, want := range map[string]string{
		"flags\t: fpu vmx sse\n":        "modprobe kvm-intel",
		"flags\t: fpu svm sse\n":        "modprobe kvm-amd",
		"flags\t: fpu hypervisor sse\n": "itself a VM",
		"flags\t: fpu sse\n":            "firmware",
		"":                              "firmware",
	} {
		if got := missingRemedy(cpuinfo); !strings.Contains(got, want) {
			t.Errorf("%q: %s", cpuinfo, got)
		}
	}
}
