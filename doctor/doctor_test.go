package doctor

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"berth/accel/kvm"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func examine(probe kvm.Report, err error) Report {
	return Run(Options{Log: quiet(), Probe: func(string, *slog.Logger) (kvm.Report, error) {
		if err != nil {
			probe.Reason = err.Error()
		}
		return probe, err
	}})
}

func TestEachHostGetsItsFindings(t *testing.T) {
	open := func(kind error, remedy string) error {
		return &kvm.OpenError{Path: kvm.DefaultPath, Kind: kind, Cause: os.ErrNotExist, Remedy: remedy}
	}
	for _, c := range []struct {
		name   string
		report Report
		status string // of the four checks
		accel  string
		words  []string
	}{
		{"hardware", examine(kvm.Report{Usable: true, MIPS: 4200, Reason: "runs ordinary guests"}, nil),
			"ok ok ok ok", "kvm", []string{"takes kvm: it runs ordinary guests", "4200 million"}},
		{"nested in an emulator", examine(kvm.Report{Usable: true, MIPS: 330, Reason: "runs ordinary guests"}, nil),
			"ok ok ok warn", "kvm", []string{"itself emulated"}},
		{"software KVM", examine(kvm.Report{MIPS: 1.5, Refused: []string{"fwait"}, Reason: "it stops at fwait"}, nil),
			"ok ok fail fail", "soft", []string{"stops at fwait in kernel mode", "1.5 million", "takes soft"}},
		{"slow only", examine(kvm.Report{MIPS: 1.5, Reason: "slow"}, nil),
			"ok ok ok fail", "soft", []string{"emulated instruction by instruction"}},
		{"probe failed", examine(kvm.Report{Reason: "the guest was silent"}, nil),
			"ok ok fail fail", "soft", []string{"the guest was silent", "not checked"}},
		{"missing", examine(kvm.Report{}, open(kvm.ErrMissing, "load it")),
			"fail fail fail fail", "soft", []string{"KVM is not present", "do:    load it", "not checked"}},
		{"forbidden", examine(kvm.Report{}, open(kvm.ErrForbidden, "join kvm")),
			"ok fail fail fail", "soft", []string{"forbidden", "do:    join kvm"}},
		{"unusable", examine(kvm.Report{}, open(kvm.ErrUnusable, "stop it")),
			"ok ok fail fail", "soft", []string{"does not work", "do:    stop it"}},
		{"another architecture", examine(kvm.Report{}, open(kvm.ErrUnsupported, "use soft")),
			"fail fail fail fail", "soft", []string{"architecture is not supported"}},
	} {
		var got []string
		for _, k := range c.report.Checks[:4] {
			got = append(got, string(k.Status))
		}
		if s := strings.Join(got, " "); s != c.status || c.report.Accelerator != c.accel {
			t.Errorf("%s: %s and %s, want %s and %s", c.name, s, c.report.Accelerator, c.status, c.accel)
		}
		var human bytes.Buffer
		if err := c.report.Human(&human); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.words {
			if !strings.Contains(human.String(), w) {
				t.Errorf("%s: no %q in\n%s", c.name, w, human.String())
			}
		}
	}
}

func TestJSONIsTheReport(t *testing.T) {
	r := examine(kvm.Report{Usable: true, MIPS: 4200, Reason: "runs"}, nil)
	var b bytes.Buffer
	if err := r.JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.Verdict != r.Verdict || len(back.Checks) != len(r.Checks) || back.Checks[0] != r.Checks[0] {
		t.Errorf("%v: %+v", err, back)
	}
}

// TestThisHost runs the real examination, whatever it finds.
func TestThisHost(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	r := Run(Options{Log: quiet()})
	var b bytes.Buffer
	if err := r.Human(&b); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", b.String())
	checkReport(t, r)
}
