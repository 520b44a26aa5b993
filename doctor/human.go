package doctor

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	columns     = 100 // that the report fits
	titleColumn = 8
	findingAt   = 34
	explainAt   = titleColumn + len("means: ")
)

// Human writes the report for people: under each group a line a check, and what
// follows from those that are not ok; the verdict last.
func (r Report) Human(w io.Writer) error {
	var b strings.Builder
	count := map[Status]int{}
	shown, blind := "", false
	for _, c := range r.Checks {
		if c.Group != shown {
			if shown != "" {
				b.WriteByte('\n')
			}
			b.WriteString(c.Group + "\n")
			shown = c.Group
		}
		count[c.Status]++
		wrap(&b, fmt.Sprintf("  %-4s  %-*s", c.Status, findingAt-titleColumn, c.Title), findingAt, c.Finding)
		if strings.HasPrefix(c.Finding, notChecked) {
			blind = blind || c.Remedy != ""
			continue // its remedy is every such check's: said once, at the end
		}
		explain(&b, "means:", c.Meaning)
		explain(&b, "do:", c.Remedy)
	}
	fmt.Fprintf(&b, "\n%d checks: %d ok, %d warn, %d fail\n", len(r.Checks), count[OK], count[Warn], count[Fail])
	if blind {
		b.WriteString("Root sees more: not all could be checked by this user.\n")
	}
	wrap(&b, "", 0, r.Verdict)
	_, err := io.WriteString(w, b.String())
	return err
}

func explain(b *strings.Builder, label, text string) {
	if text != "" {
		wrap(b, fmt.Sprintf("%*s%-7s", titleColumn, "", label), explainAt, text)
	}
}

// wrap writes first and the words of text after it, and starts a new line,
// indented, before a word that would pass the last column.
func wrap(b *strings.Builder, first string, indent int, text string) {
	line := first
	empty := true
	for word := range strings.FieldsSeq(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			b.WriteString(line + "\n")
			line, empty = strings.Repeat(" ", indent), true
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}
