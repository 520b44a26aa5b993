package main

import (
	"bufio"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"berth/tests/process"
)

// sample is what one run of a row took, in CPU-seconds, and what it answered.
type sample struct {
	cpu    float64
	answer string
}

// skipped reports that the row says why it did not run.
func (s sample) skipped() bool { return strings.HasPrefix(s.answer, "skipped") }

// native runs a row's command on the host. Its time is that of the shell and all that ran in it.
func native(dir, command string, limit time.Duration) (sample, error) {
	p, err := process.Start(limit, filepath.Join(dir, "busybox"), "sh", "-c", "cd "+dir+" && { "+command+"; }")
	if err != nil {
		return sample{}, err
	}
	defer p.Kill()
	out, err1 := readAll(p)
	state, err2 := p.Wait()
	if err := errors.Join(err1, err2); err != nil {
		return sample{}, fmt.Errorf("%s on the host: %w: %s%s", command, err, out, p.Errors())
	}
	return sample{cpu: (state.UserTime() + state.SystemTime()).Seconds(), answer: out}, nil
}

// readAll is all words that a program prints.
func readAll(p *process.Running) (string, error) {
	var words []string
	lines := bufio.NewScanner(p.Stdout)
	for lines.Scan() {
		words = append(words, strings.Fields(lines.Text())...)
	}
	return strings.Join(words, " "), lines.Err()
}

// boot is one run of a guest with all rows.
type boot struct {
	p       *process.Running
	started float64 // CPU-seconds of the VM when the row began
	samples map[string]sample
	said    strings.Builder
}

// bootAll boots a VM, whose console is the program's standard input and output, and
// has it run every row. The time of a row is the VM process's, all threads of it.
func bootAll(args []string, limit time.Duration) (*boot, error) {
	p, err := process.Start(limit, args[0], args[1:]...)
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	b := &boot{p: p, samples: map[string]sample{}}
	lines := bufio.NewScanner(p.Stdout)
	lines.Buffer(nil, 1<<20)
	ended := false
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		fmt.Fprintln(&b.said, line)
		_, mark, ok := strings.Cut(line, "CPUBENCH ")
		if !ok {
			continue
		}
		ended = ended || mark == "end"
		if err := b.mark(mark); err != nil {
			return nil, err
		}
	}
	_, err = p.Wait()
	if err != nil {
		return nil, fmt.Errorf("%w: %s%s", err, b.said.String(), p.Errors())
	}
	if !ended {
		return nil, fmt.Errorf("the guest ended before its rows: %s%s", b.said.String(), p.Errors())
	}
	return b, lines.Err()
}

var doneLine = regexp.MustCompile(`^done (\S+) (\d+): (.*)$`)

// mark acts on what guest.sh says.
func (b *boot) mark(line string) error {
	cpu, err := process.CPUSeconds(b.p.PID())
	if err != nil {
		return err
	}
	if strings.HasPrefix(line, "ready ") {
		b.started = cpu
		_, err := b.p.Stdin.Write([]byte("\n"))
		return err
	}
	if m := doneLine.FindStringSubmatch(line); m != nil {
		if m[2] != "0" {
			return fmt.Errorf("%s ended with status %s in the guest: %s", m[1], m[2], m[3])
		}
		b.samples[m[1]] = sample{cpu: cpu - b.started, answer: m[3]}
	}
	return nil
}

// version is the first number that QEMU says of itself.
func version(qemu string) string {
	out, _ := exec.Command(qemu, "--version").Output() // no version is none
	return regexp.MustCompile(`\d+\.\d+`).FindString(string(out))
}
