package image

import (
	"fmt"
	"sort"
	"strings"

	"berth/block"
	"berth/block/formats"
)

// dictionaryOrder returns the members of an object as QEMU prints them: by the bucket of
// their names, the newest of a bucket first.
func dictionaryOrder(o []block.Field) []block.Field {
	sorted := make([]block.Field, 0, len(o))
	for i := len(o) - 1; i >= 0; i-- {
		sorted = append(sorted, o[i])
	}
	sort.SliceStable(sorted, func(a, b int) bool { return formats.Bucket(sorted[a].Name) < formats.Bucket(sorted[b].Name) })
	return sorted
}

// list returns v's elements if it is a list.
func list(v any) ([]any, bool) {
	var all []any
	switch v := v.(type) {
	case []any:
		return v, true
	case [][]block.Field:
		for _, e := range v {
			all = append(all, e)
		}
		return all, true
	case []string:
		for _, e := range v {
			all = append(all, e)
		}
		return all, true
	}
	return nil, false
}

// printJSON prints v, an object ([]block.Field), a list or a plain value, and ends the line.
func printJSON(c *call, v any) {
	var b strings.Builder
	writeJSON(&b, v, 0)
	c.printf("%s\n", b.String())
}

func writeJSON(b *strings.Builder, v any, depth int) {
	if o, ok := v.([]block.Field); ok {
		members := dictionaryOrder(o)
		writeItems(b, "{}", len(members), depth, func(i int) {
			b.WriteString(quoteJSON(members[i].Name) + ": ")
			writeJSON(b, members[i].Value, depth+1)
		})
		return
	}
	if l, ok := list(v); ok {
		writeItems(b, "[]", len(l), depth, func(i int) { writeJSON(b, l[i], depth+1) })
		return
	}
	if s, ok := v.(string); ok {
		b.WriteString(quoteJSON(s))
		return
	}
	fmt.Fprintf(b, "%v", v)
}

func writeItems(b *strings.Builder, brackets string, n, depth int, item func(i int)) {
	b.WriteByte(brackets[0])
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + strings.Repeat("    ", depth+1))
		item(i)
	}
	b.WriteString("\n" + strings.Repeat("    ", depth))
	b.WriteByte(brackets[1])
}

// quoteJSON quotes as QEMU does: all but printable ASCII is escaped.
func quoteJSON(s string) string {
	short := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s { // what is no UTF-8 is U+FFFD
		switch e, ok := short[r]; {
		case ok:
			b.WriteString(e)
		case r >= 0x20 && r < 0x7F:
			b.WriteRune(r)
		case r > 0xFFFF:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04X\u%04X`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// printTree prints v below a line of its own, as people read it.
func printTree(c *call, v any, indent int) {
	if o, ok := v.([]block.Field); ok {
		for _, f := range dictionaryOrder(o) {
			printBranch(c, strings.ReplaceAll(f.Name, "-", " "), f.Value, indent)
		}
		return
	}
	l, _ := list(v)
	for i, e := range l {
		printBranch(c, fmt.Sprintf("[%d]", i), e, indent)
	}
}

func printBranch(c *call, label string, v any, indent int) {
	c.printf("%*s%s:", indent*4, "", label)
	_, object := v.([]block.Field)
	if _, array := list(v); object || array {
		c.printf("\n")
		printTree(c, v, indent+1)
		return
	}
	c.printf(" %v\n", v)
}
