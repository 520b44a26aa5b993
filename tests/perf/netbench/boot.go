package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"berth/tests/process"
)

// figure is what a VMM did in one row of one boot.
type figure struct {
	vmm, net, row string
	value         float64 // in the row's unit
	cpu           float64 // CPU-seconds of the VMM for each GiB, 0 where no bytes count
}

const figureWord = "NETBENCH"

func (f figure) String() string {
	return fmt.Sprintf("%s %s %s %s %g %g", figureWord, f.vmm, f.net, f.row, f.value, f.cpu)
}

// boot has one guest measure all rows.
func (h *host) boot(vmm, engine, network string, o options) (got []figure, err error) {
	cmd := h.vmm(vmm, engine, network, o)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	watchdog := time.AfterFunc(o.limit, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	l := listener{vmm: vmm, net: network, cpu: func() float64 {
		s, _ := process.CPUSeconds(cmd.Process.Pid)
		return s
	}}
	err = l.listen(out)
	err = errors.Join(err, cmd.Wait())
	if err == nil && !l.ok {
		err = errors.New("a row failed")
	}
	if err != nil {
		return l.got, fmt.Errorf("the guest did not end well: %w\n%s%s", err, l.said.String(), errs.String())
	}
	return l.got, nil
}

// listener makes figures of what a guest says.
type listener struct {
	vmm, net string
	cpu      func() float64
	begun    float64 // the VMM's CPU-seconds when the row began
	used     float64 // in it
	got      []figure
	ok       bool
	said     strings.Builder
}

func (l *listener) listen(r io.Reader) error {
	for s := bufio.NewScanner(r); ; {
		if !s.Scan() {
			return s.Err()
		}
		line := strings.TrimSpace(s.Text())
		l.said.WriteString(line + "\n")
		word, rest, _ := strings.Cut(line, " ")
		if word != "BERTH-NET" {
			continue
		}
		switch what, rest, _ := strings.Cut(rest, " "); what {
		case "begin":
			l.begun = l.cpu()
		case "end":
			l.used = l.cpu() - l.begun
		case "ok":
			l.ok = true
		case "result":
			name, text, _ := strings.Cut(rest, " ")
			f, err := l.figure(name, text)
			if err != nil {
				return err
			}
			l.got = append(l.got, f)
		}
	}
}

var (
	// [SUM]   0.00-4.00   sec  120 MBytes  654321 Kbits/sec  0.012 ms  10/2000 (0.5%)  receiver
	iperfLine = regexp.MustCompile(`-([0-9.]+) +sec +[0-9.]+ [KMGT]?Bytes +([0-9.]+) Kbits/sec(?: +[0-9.e+-]+ ms +(-?[0-9]+)/([0-9]+))?`)
	// round-trip min/avg/max = 0.100/0.200/0.300 ms
	pingLine = regexp.MustCompile(`= [0-9.]+/([0-9.]+)/`)
)

// figure reads a row's result: Mbit/s of bytes, packets a second, milliseconds of a ping.
func (l *listener) figure(row, text string) (figure, error) {
	f := figure{vmm: l.vmm, net: l.net, row: row}
	if m := pingLine.FindStringSubmatch(text); m != nil {
		f.value = number(m[1])
		return f, nil
	}
	m := iperfLine.FindStringSubmatch(text)
	if m == nil {
		return f, fmt.Errorf("row %s: %q is not what iperf3 or ping says", row, text)
	}
	if strings.HasPrefix(row, "packets") {
		f.value = (number(m[4]) - number(m[3])) / number(m[1])
		return f, nil
	}
	f.value = number(m[2]) / 1000
	if gib := number(m[1]) * number(m[2]) * 1000 / 8 / (1 << 30); gib > 0 {
		f.cpu = l.used / gib
	}
	return f, nil
}

func number(s string) float64 {
	v, _ := strconv.ParseFloat(s, 64)
	return v
}
