package main

import (
	"strings"
	"testing"
)

func TestReportShowsWhatIsLost(t *testing.T) {
	var out strings.Builder
	report("title", []figure{
		{"berth", "user", "tcp-up", 100, 2}, {"QEMU", "user", "tcp-up", 50, 1},
		{"berth", "user", "ping", 2, 0}, {"berth", "user", "ping", 4, 0}, {"QEMU", "user", "ping", 6, 0},
	}, &out)
	for _, want := range []string{"100         50    2.00\n", "2          1    0.50  lost\n", "3          6    2.00\n", "1 of 3 lost\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestWhatAGuestSays(t *testing.T) {
	used := 0.0
	l := listener{vmm: "berth", net: "tap", cpu: func() float64 { used++; return used }}
	err := l.listen(strings.NewReader(`BERTH-NET begin tcp-up
BERTH-NET end tcp-up
BERTH-NET result tcp-up [  5]   0.00-2.00   sec  512 MBytes  2147483.648 Kbits/sec                  receiver
BERTH-NET begin packets-up
BERTH-NET end packets-up
BERTH-NET result packets-up [  5]   0.00-2.00   sec  100 KBytes  400 Kbits/sec  0.002 ms  100/1100 (9%)  receiver
BERTH-NET result ping round-trip min/avg/max = 0.100/0.250/0.300 ms
BERTH-NET ok
`))
	want := []figure{{"berth", "tap", "tcp-up", 2147.483648, 2}, {"berth", "tap", "packets-up", 500, 0}, {"berth", "tap", "ping", 0.25, 0}}
	if err != nil || !l.ok || len(l.got) != len(want) {
		t.Fatalf("%v, %+v", err, l.got)
	}
	for i, w := range want {
		if l.got[i] != w || figures(w.String())[0] != w {
			t.Errorf("%+v, want %+v", l.got[i], w)
		}
	}
	if err := l.listen(strings.NewReader("BERTH-NET result tcp-up unable to connect\n")); err == nil {
		t.Error("nonsense is taken for a result")
	}
}
