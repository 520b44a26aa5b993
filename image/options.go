package image

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"berth/block"
)

// optionList is a list "name=value,name=value" as it was given, checked against
// the options there are. With none of those, anything is accepted.
type optionList struct {
	known []block.Option
	given []block.Field // Value: string
}

// splitOption takes the first item off params. A name alone is a flag: its
// value is on, or off if "no" is before the name, unless first names what a
// lone first value belongs to. In values a comma is written twice.
func splitOption(params, first string) (name, value, rest string, flag bool) {
	end := strings.IndexAny(params, "=,")
	switch {
	case end >= 0 && params[end] == '=':
		value, rest = splitValue(params[end+1:])
		return params[:end], value, rest, false
	case first != "":
		value, rest = splitValue(params)
		return first, value, rest, false
	case end < 0:
		end = len(params)
	}
	name, rest = params[:end], strings.TrimPrefix(params[end:], ",")
	if off, ok := strings.CutPrefix(name, "no"); ok {
		return off, "off", rest, true
	}
	return name, "on", rest, true
}

func splitValue(s string) (value, rest string) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, ",")
		b.WriteString(before)
		if !found || !strings.HasPrefix(after, ",") {
			return b.String(), after
		}
		b.WriteByte(',')
		s = after[1:]
	}
}

// wantsHelp tells whether params holds help or ?.
func wantsHelp(params string) bool {
	for params != "" {
		name, _, rest, flag := splitOption(params, "")
		if flag && isHelp(name) {
			return true
		}
		params = rest
	}
	return false
}

func isHelp(name string) bool { return name == "help" || name == "?" }

// joinOptions adds the value of one more -o to those before.
func joinOptions(all *string) func(string) error {
	return func(more string) error {
		commas := len(more) - len(strings.TrimRight(more, ","))
		if more == "" || more[0] == ',' || commas%2 != 0 {
			return failure("Invalid option list: %s", more)
		}
		if *all != "" {
			*all += ","
		}
		*all += more
		return nil
	}
}

// parse adds what params says. warn, if not nil, is told of flags.
func (l *optionList) parse(params, first string, warn func(name, as, value string)) error {
	for params != "" {
		name, value, rest, flag := splitOption(params, first)
		first, params = "", rest
		if flag && warn != nil && (value == "off" || !isHelp(name)) {
			as := name
			if value == "off" {
				as = "no" + name
			}
			warn(name, as, value)
		}
		if name == "id" {
			continue
		}
		if err := l.set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// warnFlag is parse's warn where qemu-img has one.
func (c *call) warnFlag(name, as, value string) {
	c.warn("short-form boolean option '%s' deprecated", as)
	fmt.Fprintf(c.stderr, "Please use %s=%s instead\n", name, value)
}

func (l *optionList) find(name string) (block.Option, bool) {
	for _, o := range l.known {
		if o.Name == name {
			return o, true
		}
	}
	return block.Option{}, false
}

func (l *optionList) set(name, value string) error {
	o, ok := l.find(name)
	if !ok && len(l.known) > 0 {
		return failure("Invalid parameter '%s'", name)
	}
	if ok {
		if _, err := canonical(o, value); err != nil {
			return err
		}
	}
	l.given = append(l.given, block.Field{Name: name, Value: value})
	return nil
}

// get returns the value given last, else the default.
func (l *optionList) get(name string) (string, bool) {
	if v, ok := l.set1(name); ok {
		return v, true
	}
	o, _ := l.find(name)
	return o.Default, o.Default != ""
}

func (l *optionList) set1(name string) (string, bool) {
	for i := len(l.given) - 1; i >= 0; i-- {
		if l.given[i].Name == name {
			return l.given[i].Value.(string), true
		}
	}
	return "", false
}

// values returns what was given, in canonical form.
func (l *optionList) values() block.Values {
	v := block.Values{}
	for _, g := range l.given {
		o, _ := l.find(g.Name)
		if text, err := canonical(o, g.Value.(string)); err == nil {
			v[g.Name] = text
		}
	}
	return v
}

// print writes every option that has a value, with a space before each but the first.
func (l *optionList) print(c *call) {
	sep := ""
	for _, o := range l.known {
		value, given := l.set1(o.Name)
		if !given {
			value = o.Default
		}
		if value == "" && !given {
			continue
		}
		switch {
		case o.Type == block.OptString:
			value = strings.ReplaceAll(value, ",", ",,")
		case (o.Type == block.OptSize || o.Type == block.OptNumber) && given:
			n, _ := canonical(o, value)
			u, _ := strconv.ParseUint(n, 10, 64)
			value = strconv.FormatInt(int64(u), 10)
		}
		c.printf("%s%s=%s", sep, o.Name, value)
		sep = " "
	}
}

// canonical checks a value against the option's type and returns its one form.
func canonical(o block.Option, value string) (string, error) {
	switch o.Type {
	case block.OptBool:
		switch value {
		case "on", "yes", "true", "y":
			return "on", nil
		case "off", "no", "false", "n":
			return "off", nil
		}
		return "", failure("Parameter '%s' expects 'on' or 'off'", o.Name)
	case block.OptNumber:
		return canonicalNumber(o.Name, value)
	case block.OptSize:
		n, _, err := parseSize(value)
		if errors.Is(err, errSizeRange) {
			return "", failure("Value '%s' is out of range for parameter '%s'", value, o.Name)
		}
		if err != nil {
			return "", &message{
				text: fmt.Sprintf("Parameter '%s' expects a non-negative number below 2^64", o.Name),
				hint: "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.\n",
			}
		}
		return strconv.FormatUint(n, 10), nil
	}
	return value, nil
}

// canonicalNumber reads what C's strtoull does with base 0.
func canonicalNumber(name, value string) (string, error) {
	text := strings.TrimLeft(value, " \t\n\v\f\r")
	negative := strings.HasPrefix(text, "-")
	text = strings.TrimPrefix(strings.TrimPrefix(text, "-"), "+")
	base := 10
	switch {
	case strings.HasPrefix(text, "0x"), strings.HasPrefix(text, "0X"):
		text, base = text[2:], 16
	case strings.HasPrefix(text, "0"):
		base = 8
	}
	n, err := strconv.ParseUint(text, base, 64)
	if errors.Is(err, strconv.ErrRange) {
		return "", failure("Value '%s' is too large for parameter '%s'", value, name)
	}
	if err != nil {
		return "", failure("Parameter '%s' expects a number", name)
	}
	if negative {
		n = -n
	}
	return strconv.FormatUint(n, 10), nil
}

// printHelp lists options, sorted as their lines are.
func printHelp(c *call, options []block.Option) {
	types := [...]string{block.OptString: "str", block.OptBool: "bool (on/off)", block.OptNumber: "num", block.OptSize: "size"}
	var lines []string
	for _, o := range options {
		line := fmt.Sprintf("  %s=<%s>", o.Name, types[o.Type])
		if o.Help != "" {
			line = fmt.Sprintf("%-24s - %s", line, o.Help)
		}
		lines = append(lines, line)
	}
	sort.Strings(lines)
	if len(lines) == 0 {
		c.printf("No options available.\n")
	}
	for _, line := range lines {
		c.printf("%s\n", line)
	}
}

// mergeOptions appends those of more that options has not.
func mergeOptions(options, more []block.Option) []block.Option {
	all := append([]block.Option(nil), options...)
	for _, o := range more {
		l := optionList{known: all}
		if _, ok := l.find(o.Name); !ok {
			all = append(all, o)
		}
	}
	return all
}
