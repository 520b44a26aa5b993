// Package hmp is QEMU's human monitor: command lines, expressions, help and completion, and sessions with a line editor.
package hmp

import (
	"fmt"
	"strings"
)

// Command is one command, or a word before further commands.
type Command struct {
	Name   string // as typed; other names of it follow, each behind a |
	Args   []Arg
	Params string // the arguments as help names them
	Help   string
	Sub    []Command // what may follow the name; Run is then what the name alone does
	Run    func(*Call) error
}

// is reports whether name is one of the command's names.
func (c *Command) is(name string) bool {
	for n := range strings.SplitSeq(c.Name, "|") {
		if n == name {
			return true
		}
	}
	return false
}

// Kind is how an argument is written.
type Kind uint8

// The kinds. QEMU's own letter for each is in its name's comment.
const (
	Word   Kind = iota // s: a word, or text in double quotes
	File               // F: likewise, the name of a file of the host
	Block              // B: likewise, the name of a disk
	Rest               // S: all that is left of the line
	Number             // l: an expression
	Index              // i: an expression of at most 32 bits
	Mega               // M: an expression, counted in MiB
	Size               // o: a number with K, M, G, …; MiB without
	Switch             // b: on or off
	Flag               // -X: there or not; Name is the letter
	Format             // /FORMAT: count, format and size of what is printed
)

// Arg is one argument.
type Arg struct {
	Name     string
	Kind     Kind
	Optional bool
	// AfterDot makes the argument one that a period precedes, if it is there.
	AfterDot bool
	// Values are what the argument may be, for completion; nil: nothing is known.
	Values func() []string
}

// Layout is what a Format argument says.
type Layout struct {
	Count  int
	Format byte // one of o d u x i c
	Size   int  // bytes of each value: 1, 2, 4 or 8; with i of no meaning
}

// maxOutput is how many bytes one command may print. What is more is dropped, and said to be.
const maxOutput = 8 << 20

// Call is one execution of a command.
type Call struct {
	State *State // of the session
	// Ended is closed when nobody waits for the answer any more; it may be nil.
	Ended <-chan struct{}

	interpreter *Interpreter
	numbers     map[string]int64
	texts       map[string]string
	flags       map[string]bool
	layout      Layout
	out         strings.Builder
	full        bool
	then        []func()
}

// Printf prints to whoever gave the command. Lines end with \n.
func (c *Call) Printf(format string, args ...any) { _, _ = fmt.Fprintf(c, format, args...) }

// Write implements io.Writer. It fails once the command has printed too much.
func (c *Call) Write(p []byte) (int, error) {
	if c.full || c.out.Len()+len(p) > maxOutput {
		c.full = true
		return 0, errFull
	}
	return c.out.Write(p)
}

var errFull = fmt.Errorf("more than %d MiB of output", maxOutput>>20)

// Then has f run once the answer is on its way.
func (c *Call) Then(f func()) { c.then = append(c.then, f) }

// Has reports whether an optional argument was given.
func (c *Call) Has(name string) bool {
	_, number := c.numbers[name]
	_, text := c.texts[name]
	return number || text
}

// Number is the value of a Number, Index, Mega or Size; 0 of one that was not given.
func (c *Call) Number(name string) int64 { return c.numbers[name] }

// Text is that of a Word, File, Block or Rest; empty of one that was not given.
func (c *Call) Text(name string) string { return c.texts[name] }

// On is the value of a Switch or a Flag.
func (c *Call) On(name string) bool { return c.flags[name] }

// Layout is that of the command's Format.
func (c *Call) Layout() Layout { return c.layout }

// State is what a session remembers from one command to the next.
type State struct {
	CPU     int      // the vCPU whose registers and memory are meant
	History []string // the lines that were typed, the oldest first

	last Layout // of the last command that named it
}

// NewState is that of a session that begins.
func NewState() *State { return &State{last: Layout{Format: 'x', Size: 4}} }

// Interpreter runs command lines. It does not change and may be used by many goroutines.
type Interpreter struct {
	Commands []Command
	// Register is the value of a vCPU's register.
	Register func(cpu int, name string) (value uint64, ok bool)
}

// Run runs one line and returns what it printed and what is to happen once that is
// on its way. Whatever is wrong with the line is part of what is printed.
func (i *Interpreter) Run(s *State, ended <-chan struct{}, line string) (out string, then []func()) {
	c := &Call{State: s, Ended: ended, interpreter: i, numbers: map[string]int64{}, texts: map[string]string{}, flags: map[string]bool{}}
	p := &parser{text: line, cpu: s.CPU, register: i.Register}
	command := p.command(c, i.Commands)
	name := strings.TrimRight(line[:p.at], spaces)
	switch {
	case command == nil:
	case command.Run == nil:
		c.Printf("Command \"%s\" is not available.\n", name)
	case !p.arguments(c, command):
		c.Printf("Try \"help %s\" for more information\n", name)
	default:
		if err := command.Run(c); err != nil {
			c.Printf("Error: %s\n", err)
		}
	}
	if c.full {
		c.out.WriteString("\n(" + errFull.Error() + ": the rest is left out)\n")
	}
	return c.out.String(), c.then
}
