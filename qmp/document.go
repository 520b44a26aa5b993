package qmp

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Documentation is what a table's commands and events are, take and answer, as
// Markdown: "name?" is optional, "when X is Y" names the members that only then are
// there, and a type with a capital letter is described at the end.
func (t *Table) Documentation() string {
	d := &documenter{shapes: t.shapes, names: map[*shape]string{}}
	d.name(t)
	var b strings.Builder
	b.WriteString("## Commands\n\n")
	for _, c := range t.commands {
		fmt.Fprintf(&b, "### %s\n\n%s", c.Name, c.Doc)
		if c.OOB {
			b.WriteString(" May be run out of band.")
		}
		fmt.Fprintf(&b, "\n\n%s", d.signature("arguments", c.args)+d.signature("returns", c.returns))
	}
	b.WriteString("## Events\n\n")
	for _, e := range t.events {
		fmt.Fprintf(&b, "### %s\n\n%s", e.Name, e.Doc)
		if e.Rate > 0 {
			fmt.Fprintf(&b, " At most one every %s.", e.Rate)
		}
		fmt.Fprintf(&b, "\n\n%s", d.signature("data", e.data))
	}
	b.WriteString("## Types\n\n")
	for _, sh := range d.list {
		fmt.Fprintf(&b, "### %s\n\n```\n%s\n```\n\n", d.names[sh], d.body(sh, ""))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// documenter writes types.
type documenter struct {
	shapes shapes
	names  map[*shape]string // of types that are described on their own
	list   []*shape          // these, by name
}

// name gives a name to each type that is used more than once and is more than a word.
func (d *documenter) name(t *Table) {
	uses := map[*shape]int{}
	var visit func(sh *shape)
	visit = func(sh *shape) {
		if sh.elem != nil { // which is used as often
			visit(sh.elem)
			return
		}
		if uses[sh]++; uses[sh] > 1 {
			return
		}
		for _, m := range sh.members {
			visit(m.shape)
		}
		for _, c := range sh.cases {
			if sh.tag == "" {
				visit(c.shape)
				continue
			}
			for _, m := range c.shape.members { // they are written where their object is
				visit(m.shape)
			}
		}
	}
	for _, c := range t.commands {
		visit(d.shape(c.args))
		visit(d.shape(c.returns))
	}
	for _, e := range t.events {
		visit(d.shape(e.data))
	}
	for sh, n := range uses {
		many := len(sh.members)+len(sh.cases) > 0 || len(sh.values) > 4
		if name := typeName(sh.typ); n > 1 && many && name != "" {
			d.names[sh] = name
			d.list = append(d.list, sh)
		}
	}
	slices.SortFunc(d.list, func(a, b *shape) int { return cmp.Compare(d.names[a], d.names[b]) })
}

// typeName is what readers call a type; of a generic one, with what it is made of.
func typeName(t reflect.Type) (name string) {
	for part := range strings.FieldsFuncSeq(t.Name(), func(c rune) bool { return c == '[' || c == ']' || c == ',' }) {
		part = part[strings.LastIndexAny(part, "./")+1:]
		name += strings.ToUpper(part[:1]) + part[1:]
	}
	return name
}

func (d *documenter) shape(t reflect.Type) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return d.shapes[t]
}

// signature is a command's arguments, say; nothing if there are none.
func (d *documenter) signature(what string, t reflect.Type) string {
	sh := d.shape(t)
	if sh.kind == kindObject && len(sh.members) == 0 && sh.rest == nil {
		return ""
	}
	return fmt.Sprintf("```\n%s: %s\n```\n\n", what, d.text(sh, ""))
}

// text is a type where it is used.
func (d *documenter) text(sh *shape, indent string) string {
	if n := d.names[sh]; n != "" {
		return n
	}
	return d.body(sh, indent)
}

// body is a type in full.
func (d *documenter) body(sh *shape, indent string) string {
	switch sh.kind {
	case kindEnum:
		return `"` + strings.Join(sh.values, `" | "`) + `"`
	case kindArray:
		return "[" + d.text(sh.elem, indent) + "]"
	case kindAlternate:
		var all []string
		for _, c := range sh.cases {
			all = append(all, d.text(c.shape, indent))
		}
		return strings.Join(all, " | ")
	case kindObject:
		return d.object(sh, indent)
	}
	n, _ := builtin(sh)
	return n
}

func (d *documenter) object(sh *shape, indent string) string {
	in := indent + "  "
	lines := d.members(sh, in)
	for _, c := range sh.cases {
		lines = append(lines, fmt.Sprintf("%swhen %s is %q:", in, sh.tag, c.value))
		lines = append(lines, d.members(c.shape, in+"  ")...)
	}
	if sh.rest != nil {
		lines = append(lines, in+"…: any")
	}
	if len(lines) == 0 {
		return "{}"
	}
	return "{\n" + strings.Join(lines, "\n") + "\n" + indent + "}"
}

func (d *documenter) members(sh *shape, indent string) (lines []string) {
	for _, m := range sh.members {
		mark := ""
		if m.optional {
			mark = "?"
		}
		lines = append(lines, fmt.Sprintf("%s%s%s: %s", indent, m.name, mark, d.text(m.shape, indent)))
	}
	return lines
}
