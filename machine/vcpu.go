package machine

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"berth/accel"
)

// runState is what a vCPU's thread does.
//
//	paused <-> running -> stopped
//	   \____________________/
type runState uint8

const (
	paused runState = iota
	running
	stopped
)

// vcpu is one vCPU and the OS thread that owns it. Everybody else asks: want
// and requests change under mu, and the thread obeys between two Runs.
type vcpu struct {
	id     int
	thread int        // its OS thread
	engine accel.VCPU // used by the thread alone, but for Kick

	mu       sync.Mutex
	changed  *sync.Cond
	want, is runState
	requests []func(accel.VCPU)
}

// report is a vCPU's return from Run for another reason than a kick. The vCPU
// is paused when it is sent.
type report struct {
	id   int
	exit accel.Exit
	err  error
}

// startVCPU makes vCPU id on a thread of its own, paused.
func startVCPU(id int, vm accel.VM, threadName string, reports chan<- report) (*vcpu, error) {
	c := &vcpu{id: id}
	c.changed = sync.NewCond(&c.mu)
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread, renamed, ends with the goroutine.
		runtime.LockOSThread()
		if err := nameThread(threadName); err != nil {
			ready <- fmt.Errorf("naming the thread of vCPU %d: %w", id, err)
			return
		}
		c.thread = unix.Gettid()
		engine, err := vm.NewVCPU(id)
		c.engine = engine
		ready <- err
		if err == nil {
			c.loop(reports)
		}
	}()
	return c, <-ready
}

// nameThread sets the calling thread's name as top -H shows it (at most 15 bytes).
func nameThread(name string) error {
	return os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", unix.Gettid()), []byte(name), 0)
}

func (c *vcpu) loop(reports chan<- report) {
	var exit accel.Exit
	for c.serve() {
		exit = accel.Exit{}
		err := c.engine.Run(&exit)
		if err == nil && exit.Reason == accel.ExitKick {
			continue
		}
		c.mu.Lock()
		if c.want == running {
			c.want = paused
		}
		c.mu.Unlock()
		reports <- report{id: c.id, exit: exit, err: err}
	}
}

// serve runs requests, waits while the vCPU is to be paused, and returns false
// when the thread is to end.
func (c *vcpu) serve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.is != c.want {
			c.is = c.want
			c.changed.Broadcast()
		}
		if len(c.requests) > 0 {
			f := c.requests[0]
			c.requests = c.requests[1:]
			c.mu.Unlock()
			f(c.engine)
			c.mu.Lock()
			continue
		}
		switch c.want {
		case running:
			return true
		case stopped:
			return false
		}
		c.changed.Wait()
	}
}

// ask sets what the vCPU is to do, without waiting; stopped is final.
func (c *vcpu) ask(s runState) {
	c.mu.Lock()
	if c.want != stopped {
		c.want = s
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	c.engine.Kick()
}

// await returns when the thread does what it was asked.
func (c *vcpu) await(s runState) {
	c.mu.Lock()
	for c.is != s && c.is != stopped {
		c.changed.Wait()
	}
	c.mu.Unlock()
}

// do runs f on the vCPU's thread, between two instructions, and waits for it.
func (c *vcpu) do(f func(accel.VCPU) error) error {
	done := make(chan error, 1)
	c.mu.Lock()
	c.requests = append(c.requests, func(v accel.VCPU) { done <- f(v) })
	c.changed.Broadcast()
	c.mu.Unlock()
	c.engine.Kick()
	return <-done
}
