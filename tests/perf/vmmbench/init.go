package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
)

// initialiser is what Go's runtime says of one package's initialisation.
type initialiser struct {
	Package string
	Clock   float64 // ms
	Bytes   int
	Allocs  int
}

// initTrace runs a program that does next to nothing and returns what its
// packages did before main (package runtime, GODEBUG inittrace).
func initTrace(program string) ([]initialiser, error) {
	cmd := exec.Command(program, "--help")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s --help: %w: %s", program, err, said.String())
	}
	line := regexp.MustCompile(`(?m)^init (\S+) @\S+ ms, (\S+) ms clock, (\d+) bytes, (\d+) allocs$`)
	var all []initialiser
	for _, m := range line.FindAllStringSubmatch(said.String(), -1) {
		i := initialiser{Package: m[1]}
		var errs [3]error
		i.Clock, errs[0] = strconv.ParseFloat(m[2], 64)
		i.Bytes, errs[1] = strconv.Atoi(m[3])
		i.Allocs, errs[2] = strconv.Atoi(m[4])
		if err := cmp.Or(errs[0], errs[1], errs[2]); err != nil {
			return nil, fmt.Errorf("inittrace: %w", err)
		}
		all = append(all, i)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("inittrace said nothing: %s", said.String())
	}
	return all, nil
}

// medianTrace is each package's median of several traces, the slowest first.
func medianTrace(program string, runs int) ([]initialiser, error) {
	clocks, last := map[string][]float64{}, []initialiser(nil)
	for range runs {
		one, err := initTrace(program)
		if err != nil {
			return nil, err
		}
		for _, i := range one {
			clocks[i.Package] = append(clocks[i.Package], i.Clock)
		}
		last = one
	}
	for n := range last {
		last[n].Clock = median(clocks[last[n].Package])
	}
	slices.SortFunc(last, func(a, b initialiser) int { return cmp.Compare(b.Clock, a.Clock) })
	return last, nil
}
