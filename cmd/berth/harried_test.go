package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"time"
)

// harried is main for a soak: from SIGUSR1 on garbage is collected a hundred times a
// second, and the CPU is profiled, anew every ten seconds, for a profile grows.
func harried() {
	runtime.LockOSThread()
	calmRuntime()
	var collections, profiles atomic.Int64
	begin := make(chan os.Signal, 1)
	signal.Notify(begin, syscall.SIGUSR1)
	go func() {
		<-begin
		go func() {
			for range time.Tick(10 * time.Millisecond) {
				runtime.GC()
				collections.Add(1)
			}
		}()
		for {
			if err := pprof.StartCPUProfile(io.Discard); err != nil {
				panic(err)
			}
			time.Sleep(10 * time.Second)
			pprof.StopCPUProfile()
			profiles.Add(1)
		}
	}()
	status := berth(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	fmt.Fprintf(os.Stderr, "harried by %d collections and %d profiles\n", collections.Load(), profiles.Load())
	os.Exit(status)
}
