// Command imagebench compares berth image with qemu-img: the same command on the same images, in one run with the two
// taking turns.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 3, "runs of each row by each program; the fastest counts")
	flag.StringVar(&o.dir, "dir", "", "folder for the images; empty: a new one in TMPDIR")
	flag.StringVar(&o.rows, "rows", "", "regular expression of the rows to run; empty: all")
	flag.StringVar(&o.berth, "berth", "./berth", "the program to be measured")
	flag.StringVar(&o.peer, "peer", "qemu-img", "the program to compare it with")
	flag.Float64Var(&o.scale, "scale", 1, "factor of the images' sizes")
	flag.DurationVar(&o.limit, "limit", 5*time.Minute, "time limit of one command")
	flag.Parse()
	if err := bench(o, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "imagebench: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	runs        int
	dir, rows   string
	berth, peer string
	scale       float64
	limit       time.Duration
}

func bench(o options, out io.Writer) error {
	wanted, err := regexp.Compile(o.rows)
	if err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	berth, err := filepath.Abs(o.berth)
	if err != nil {
		return err
	}
	dir, err := newFolder(o.dir)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	w := &workshop{dir: dir, peer: o.peer, limit: o.limit, made: map[string]bool{}}
	programs := [2]program{{name: "berth", argv: []string{berth, "image"}}, {name: "qemu-img", argv: []string{o.peer}}}
	var done []*row
	fmt.Fprint(out, header())
	for _, r := range rows(o.scale) {
		if !wanted.MatchString(r.name) {
			continue
		}
		if err := w.measure(r, programs, o.runs); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		fmt.Fprint(out, r.line())
		done = append(done, r)
	}
	if len(done) == 0 {
		return errors.New("no row matches " + o.rows)
	}
	fmt.Fprint(out, summary(done))
	return nil
}

// newFolder makes a folder in dir; its name is absolute, since commands run in it.
func newFolder(dir string) (string, error) {
	name, err := os.MkdirTemp(dir, "imagebench")
	if err != nil {
		return "", err
	}
	return filepath.Abs(name)
}

// row is one command that both programs run.
type row struct {
	name    string
	inputs  []input  // made once
	fresh   []string // inputs that the command changes: copied before each run, under the name with "work-" before it
	outputs []string // removed before each run
	args    []string // of the command; names without a path lie in the folder
	taken   [2]cost  // the fastest of each program
}

// input is an image that rows work on, and the commands that make it.
type input struct {
	name string
	make func(w *workshop, path string) error
}

// ratio is how many times faster than the peer's berth's run was.
func (r *row) ratio() float64 { return r.taken[1].wall / r.taken[0].wall }

func words(s string) []string { return strings.Fields(s) }
