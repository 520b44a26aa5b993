package image

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
)

// progress tells how far a command has come. With -p it keeps a line of text on
// stdout up to date; without, SIGUSR1 makes it print one on stderr. Safe for
// concurrent use. Percentages are reckoned in 32-bit floats as QEMU's are, so
// that the same numbers are printed.
type progress struct {
	c     *call
	shown bool
	skip  float32 // percent; smaller steps than this are not printed

	mu            sync.Mutex
	current, last float32
	asked         atomic.Bool
	signals       chan os.Signal
}

// newProgress prints nothing yet; end must be called.
func newProgress(c *call, shown bool, skip float32) *progress {
	p := &progress{c: c, shown: shown, skip: skip}
	if !shown {
		p.signals = make(chan os.Signal, 1)
		signal.Notify(p.signals, syscall.SIGUSR1)
		go func() {
			for range p.signals {
				p.asked.Store(true)
			}
		}()
	}
	return p
}

// set says that percent of the work is done.
func (p *progress) set(percent float32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance(percent)
}

// add says that percent more of the work is done.
func (p *progress) add(percent float32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance(p.current + percent)
}

func (p *progress) advance(to float32) {
	p.current = min(to, 100)
	if !p.shown {
		if p.asked.CompareAndSwap(true, false) {
			fmt.Fprintf(p.c.stderr, "    (%3.2f/100%%)\n", p.current)
		}
		return
	}
	if p.current > p.last+p.skip || p.current < p.last-p.skip || p.current == 100 || p.current == 0 {
		p.last = p.current
		p.c.printf("    (%3.2f/100%%)\r", p.current)
		_ = p.c.stdout.Flush() // Main reports what stdout does not take
	}
}

// end ends the line and the handling of SIGUSR1.
func (p *progress) end() {
	if p.shown {
		p.c.printf("\n")
		return
	}
	signal.Stop(p.signals)
	close(p.signals)
}
