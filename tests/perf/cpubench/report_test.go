package main

import (
	"strings"
	"testing"
)

func results() []*result {
	one := func(cpu float64, answer string) []sample {
		return []sample{{cpu, answer}, {cpu + 2, answer}, {cpu + 1, answer}}
	}
	return []*result{
		{row{name: "won"}, [columns][]sample{one(1, "7"), one(3, "7"), one(7, "7"), one(15, "7")}, counters{1000, 995, 5}},
		{row{name: "lost"}, [columns][]sample{one(1, "8"), one(7, "8"), one(3, "8")}, counters{}},
		{row{name: "none"}, [columns][]sample{one(1, "9"), one(0, "skipped: no AVX2"), one(3, "9")}, counters{}},
	}
}

func TestReportShowsWhatIsLostAndSkipped(t *testing.T) {
	var out strings.Builder
	report(results(), [2]string{"TCG 7.2", "TCG 10.0"}, &out)
	for _, want := range []string{
		"0.50         2.00      99.50%     199.0    16.000       0.25\n", "2.00         4.00           -         -         -          -  slower\n", "berth: skipped: no AVX2\n",
		"mean of 2 rows: 1.00 of TCG 7.2, 2.83 of native; 1 rows slower than TCG\n", "mean of 1 rows: 0.25 of TCG 10.0; 0 rows slower\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestDifferentAnswersFail(t *testing.T) {
	all := results()
	if err := differences(all); err != nil {
		t.Error(err)
	}
	all[1].samples[onBerth][2].answer = "88"
	if err := differences(all); err == nil || !strings.Contains(err.Error(), `"88" on berth`) {
		t.Errorf("said %v", err)
	}
}

func TestRowsAreChosenByName(t *testing.T) {
	if r, err := choose("^matmul"); err != nil || len(r) != 2 || r[0].at(0.5) != "./matmul-sse2 1000" || r[0].id() != "matmul-SSE2" {
		t.Errorf("chose %v, %v", r, err)
	}
	if _, err := choose("nothing"); err == nil || !strings.Contains(err.Error(), "fork+exec, integer") {
		t.Errorf("said %v", err)
	}
}

func TestCountsAreReadFromTheLog(t *testing.T) {
	got := counts("level=DEBUG msg=ended vCPU=0 instructions=2000000000\nlevel=DEBUG msg=ended vCPU=0 translated=1990000000 exits=\"map[edge:10 miss:90]\"\n").String()
	if want := "99.50% of 2.00 G instructions ran translated, 19900000 between two exits"; !strings.Contains(got, want) {
		t.Errorf("said %q", got)
	}
}
