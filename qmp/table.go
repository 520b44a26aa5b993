package qmp

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// Command is one command: its name, what it is given, what it answers, what it does.
type Command struct {
	Name string
	Doc  string // a sentence or two for whoever reads the documentation
	OOB  bool   // it may be run out of band: it never waits

	args, returns reflect.Type
	run           func(*Call, any) (any, error)
}

// Call is one execution of a command.
type Call struct {
	context.Context
	Session *Session
	Raw     map[string]any // the arguments as they came, which is checked: strings, bools, int64, uint64, float64, nil, []any, map[string]any

	then []func()
}

// Then has f run once the answer is on its way, before the session's next request.
func (c *Call) Then(f func()) { c.then = append(c.then, f) }

// None is what a command without arguments is given, and one without an answer returns.
type None struct{}

// Define makes a Command of a function. A and R are structs, or what the package's
// rules for values allow; None stands for nothing. The function may be called from
// any goroutine, but of all commands that are not OOB a Server runs one at a time.
func Define[A, R any](name, doc string, run func(*Call, *A) (R, error)) Command {
	return Command{
		Name: name, Doc: doc, args: reflect.TypeFor[A](), returns: reflect.TypeFor[R](),
		run: func(c *Call, args any) (any, error) { return run(c, args.(*A)) },
	}
}

// DefineOOB is Define for a command that may be run out of band.
func DefineOOB[A, R any](name, doc string, run func(*Call, *A) (R, error)) Command {
	c := Define(name, doc, run)
	c.OOB = true
	return c
}

// Event is an event that a Server may emit.
type Event struct {
	Name string
	Doc  string
	// Rate is the least time between two of them, 0 none: of those in between the
	// last is sent when it is over.
	Rate time.Duration

	data reflect.Type
}

// DefineEvent makes an Event with data of type D, None if it has none.
func DefineEvent[D any](name, doc string, rate time.Duration) Event {
	return Event{Name: name, Doc: doc, Rate: rate, data: reflect.TypeFor[D]()}
}

// Version is what a greeting says of its server.
type Version struct {
	QEMU    Triple `json:"qemu"`
	Package string `json:"package"`
}

// Triple is a version's numbers.
type Triple struct {
	Micro int64 `json:"micro"`
	Minor int64 `json:"minor"`
	Major int64 `json:"major"`
}

// Table is everything that can be said to and by a server: from it come dispatch,
// the check of arguments, the schema and the documentation. It does not change and
// may be used by many goroutines.
type Table struct {
	version  Version
	commands []Command // sorted by name
	events   []Event   // likewise
	schema   []SchemaInfo

	mu     sync.Mutex // of shapes: values of type any bring types of their own
	shapes shapes
}

// NewTable makes a table of commands and events. It adds what every server has:
// qmp_capabilities, query-version, query-commands, query-events and
// query-qmp-schema. The error names a type that the wire does not have, or a name
// that is there twice, or one that is not documented.
func NewTable(v Version, commands []Command, events []Event) (*Table, error) {
	t := &Table{version: v, shapes: shapes{}}
	t.commands = append(slices.Clone(commands), t.own()...)
	t.events = slices.Clone(events)
	slices.SortFunc(t.commands, func(a, b Command) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(t.events, func(a, b Event) int { return cmp.Compare(a.Name, b.Name) })
	for i, c := range t.commands {
		if i > 0 && t.commands[i-1].Name == c.Name {
			return nil, fmt.Errorf("qmp: there are two commands %s", c.Name)
		}
		if !documented(c.Doc) {
			return nil, fmt.Errorf("qmp: command %s has no sentence of documentation", c.Name)
		}
		for _, typ := range []reflect.Type{c.args, c.returns} {
			if _, err := t.shapes.of(typ); err != nil {
				return nil, fmt.Errorf("qmp: command %s: %w", c.Name, err)
			}
		}
	}
	for _, e := range t.events {
		if !documented(e.Doc) {
			return nil, fmt.Errorf("qmp: event %s has no sentence of documentation", e.Name)
		}
		if _, err := t.shapes.of(e.data); err != nil {
			return nil, fmt.Errorf("qmp: event %s: %w", e.Name, err)
		}
	}
	t.schema = t.makeSchema()
	return t, nil
}

// documented tells whether text is sentences.
func documented(text string) bool { return strings.HasSuffix(text, ".") }

// CommandInfo is an answer's command.
type CommandInfo struct {
	Name string `json:"name"`
}

// own are the commands that every table has.
func (t *Table) own() []Command {
	return []Command{
		Define("qmp_capabilities", "Ends the negotiation of capabilities.", negotiate),
		Define("query-version", "The version of the server.", func(*Call, *None) (Version, error) { return t.version, nil }),
		Define("query-commands", "The commands that there are.", func(c *Call, _ *None) (list []CommandInfo, err error) {
			for _, k := range t.commands {
				list = append(list, CommandInfo{k.Name})
			}
			return list, nil
		}),
		Define("query-qmp-schema", "What commands take and answer, and what events say.", func(*Call, *None) ([]SchemaInfo, error) {
			return t.schema, nil
		}),
	}
}

// Commands lists the commands by name.
func (t *Table) Commands() []Command { return t.commands }

// Events lists the events by name.
func (t *Table) Events() []Event { return t.events }

func (t *Table) command(name string) *Command {
	i, ok := slices.BinarySearchFunc(t.commands, name, func(c Command, n string) int { return cmp.Compare(c.Name, n) })
	if !ok {
		return nil
	}
	return &t.commands[i]
}

func (t *Table) event(name string) *Event {
	i, ok := slices.BinarySearchFunc(t.events, name, func(e Event, n string) int { return cmp.Compare(e.Name, n) })
	if !ok {
		return nil
	}
	return &t.events[i]
}

// encode is v, of type typ, on the wire.
func (t *Table) encode(v any) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := encoder{shapes: t.shapes}
	err := e.any(reflect.ValueOf(&v).Elem())
	return e.out.Bytes(), err
}

// arguments makes a command's arguments of what was sent.
func (t *Table) arguments(c *Command, m map[string]any, text bool) (any, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sh, err := t.shapes.of(c.args)
	if err != nil {
		return nil, err
	}
	v := reflect.New(c.args)
	d := decoder{text: text}
	return v.Interface(), d.object(sh, v.Elem(), m)
}
