package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"sync"
)

// signals builds n trees of 2^12 nodes in four goroutines, beside loops that only
// a signal preempts, with the garbage collector at work all the time and profiled by
// SIGPROF. The answer is the sum of the nodes.
func signals(n int) string {
	debug.SetGCPercent(20)
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		fmt.Fprintf(os.Stderr, "work: %v\n", err)
		os.Exit(1)
	}
	defer pprof.StopCPUProfile()
	var wg sync.WaitGroup
	sums := make([]uint64, 4)
	for g := range sums {
		wg.Go(func() {
			for i := g; i < n; i += len(sums) {
				sums[g] += grow(12, uint64(i)).sum() + spin(1<<16)
			}
		})
	}
	wg.Wait()
	return fmt.Sprint(sums[0] + sums[1] + sums[2] + sums[3])
}

type node struct {
	left, right *node
	value       uint64
}

// grow is a tree of 2^depth-1 nodes of one value.
func grow(depth int, value uint64) *node {
	if depth == 0 {
		return nil
	}
	return &node{grow(depth-1, value), grow(depth-1, value), value}
}

func (t *node) sum() uint64 {
	if t == nil {
		return 0
	}
	return t.left.sum() + t.right.sum() + t.value
}

// spin is a loop without calls; it returns n's parity.
func spin(n int) (x uint64) {
	for range n {
		x ^= 1
	}
	return x
}
