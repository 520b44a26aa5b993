package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

type program struct {
	name string
	argv []string
}

// cost is what one run of a command took.
type cost struct {
	wall, cpu float64 // seconds
	memory    int64   // bytes: the most that was resident
}

// workshop is the folder that the images lie in.
type workshop struct {
	dir, peer string
	limit     time.Duration
	made      map[string]bool
}

func (w *workshop) path(name string) string { return filepath.Join(w.dir, name) }

// Rows that take little are run more often, until they have taken this together.
const (
	manyRuns  = 15
	shortTime = 1.0 // seconds
)

// measure fills in r.taken.
func (w *workshop) measure(r *row, programs [2]program, runs int) error {
	for _, i := range r.inputs {
		if w.made[i.name] {
			continue
		}
		if err := i.make(w, w.path(i.name)); err != nil {
			return fmt.Errorf("making %s: %w", i.name, err)
		}
		w.made[i.name] = true
	}
	spent := 0.0
	for n := 0; n < runs || n < manyRuns && spent < shortTime; n++ {
		for i, p := range programs {
			if err := w.prepare(r); err != nil {
				return err
			}
			c, err := w.run(append(append([]string(nil), p.argv...), r.args...))
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			spent += c.wall
			if r.taken[i].wall == 0 || c.wall < r.taken[i].wall {
				c.memory = max(c.memory, r.taken[i].memory)
				r.taken[i] = c
			}
		}
	}
	for _, name := range r.outputs {
		_ = os.Remove(w.path(name)) // space for the next row
	}
	return nil
}

// prepare puts everything as it is before the command: what was written before
// is on the disk, so that nobody pays for another's writes.
func (w *workshop) prepare(r *row) error {
	for _, name := range r.outputs {
		if err := os.Remove(w.path(name)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	for _, name := range r.fresh {
		if err := exec.Command("cp", "--sparse=always", w.path(name), w.path("work-"+name)).Run(); err != nil {
			return err
		}
	}
	syscall.Sync()
	return nil
}

// run runs a command in the folder.
func (w *workshop) run(argv []string) (cost, error) {
	ctx, cancel := context.WithTimeout(context.Background(), w.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = w.dir
	var said bytes.Buffer
	cmd.Stderr = &said
	begun := time.Now()
	err := cmd.Run()
	wall := time.Since(begun).Seconds()
	if err != nil {
		return cost{}, fmt.Errorf("%v: %w: %s", argv, err, said.String())
	}
	s := cmd.ProcessState
	c := cost{wall: wall, cpu: (s.UserTime() + s.SystemTime()).Seconds()}
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		c.memory = u.Maxrss << 10
	}
	return c, nil
}

// img runs the peer, to make an input.
func (w *workshop) img(args ...string) error {
	_, err := w.run(append([]string{w.peer}, args...))
	return err
}
