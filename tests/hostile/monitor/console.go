package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// consoleKind is what sits at the host's end of the serial port.
type consoleKind int

const (
	consoleQuick  consoleKind = iota // takes all, says nothing
	consoleSlow                      // takes its time
	consoleStuck                     // takes nothing, ever
	consoleTyping                    // types without pause
	consoleKinds
)

func (k consoleKind) String() string { return [...]string{"quick", "slow", "stuck", "typing"}[k] }

// console implements chardev.Port and reads the guest's count of operations.
type console struct {
	kind consoleKind
	rand *rand.Rand // of Read
	gone chan struct{}
	once sync.Once

	mu   sync.Mutex
	line []byte
	done work
	last string // line
}

func newConsole(kind consoleKind, seed uint64) *console {
	return &console{kind: kind, rand: rand.New(rand.NewPCG(seed, 1)), gone: make(chan struct{})}
}

// Read implements chardev.Port.
func (c *console) Read(p []byte) (int, error) {
	select {
	case <-c.gone:
		return 0, io.EOF
	default:
	}
	if c.kind != consoleTyping {
		<-c.gone
		return 0, io.EOF
	}
	n := 1 + c.rand.IntN(len(p))
	for i := range p[:n] {
		p[i] = byte(c.rand.Uint32())
	}
	return n, nil
}

// Write implements chardev.Port.
func (c *console) Write(p []byte) (int, error) {
	switch c.kind {
	case consoleStuck:
		<-c.gone
		return 0, io.ErrClosedPipe
	case consoleSlow:
		time.Sleep(5 * time.Millisecond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = append(c.line, p...)
	for {
		i := bytes.LastIndexByte(c.line, '\n')
		if i < 0 {
			break
		}
		for l := range bytes.Lines(c.line[:i+1]) {
			c.last = strings.ToValidUTF8(string(bytes.TrimSpace(l)), "?")
			var n work
			if i := bytes.Index(l, []byte("ops ")); i >= 0 {
				if _, err := fmt.Sscanf(string(l[i:]), "ops %d chains %d", &n.operations, &n.chains); err == nil {
					c.done = n
				}
			}
		}
		c.line = c.line[i+1:]
	}
	c.line = c.line[max(0, len(c.line)-100):]
	return len(p), nil
}

// work is what a guest says that it has done.
type work struct{ operations, chains int }

// said returns what the guest has done, and its last line.
func (c *console) said() (work, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done, c.last
}

// Close implements chardev.Port.
func (c *console) Close() error {
	c.once.Do(func() { close(c.gone) })
	return nil
}
