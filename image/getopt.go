package image

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// option is one flag of a command. Exactly one of on and set is there.
type option struct {
	short byte   // 0: none
	long  string // "": none
	on    func() error
	set   func(value string) error
}

func (o option) takesValue() bool { return o.set != nil }

// word makes the option that stores its value in p.
func word(short byte, long string, p *string) option {
	return option{short: short, long: long, set: func(v string) error { *p = v; return nil }}
}

// given is word for an option of which it matters whether it was given.
func given(short byte, p **string) option {
	return option{short: short, set: func(v string) error { *p = &v; return nil }}
}

// mark makes the option that sets p.
func mark(short byte, long string, p *bool) option {
	return option{short: short, long: long, on: func() error { *p = true; return nil }}
}

// scanner reads a command line as glibc's getopt_long does: it moves the
// operands behind the options (unless told not to), splits bundles of short
// options and completes abbreviated long ones.
type scanner struct {
	argv    []string // argv[0] is no argument; reordered as the scan goes on
	options []option
	inOrder bool      // stop at the first operand
	noise   io.Writer // where complaints go, in glibc's words; nil: nowhere

	optind      int
	first, last int    // the operands skipped so far lie in argv[first:last]
	rest        string // what is left of a bundle
	bundled     bool   // rest is not empty
	value       string
}

// What next found, when it is no option.
const (
	foundEnd = -1 - iota
	foundUnknown
	foundNoValue
)

func newScanner(argv []string, options []option) *scanner {
	_, posix := os.LookupEnv("POSIXLY_CORRECT")
	return &scanner{argv: argv, options: options, inOrder: posix, optind: 1, first: 1, last: 1}
}

// operands is what is left once next has answered foundEnd.
func (s *scanner) operands() []string { return s.argv[s.optind:] }

// previous is the argument that messages name: the one before the next to be read.
func (s *scanner) previous() string { return s.argv[s.optind-1] }

// next returns the index of the next option, whose value is then s.value, or one of the found constants.
func (s *scanner) next() int {
	s.value = ""
	if s.bundled {
		return s.short()
	}
	if s.first > s.optind {
		s.first = s.optind
	}
	if s.last > s.optind {
		s.last = s.optind
	}
	s.skipOperands()
	if s.optind < len(s.argv) && s.argv[s.optind] == "--" {
		s.optind++
		s.exchangeSkipped()
		s.last = len(s.argv)
		s.optind = len(s.argv)
	}
	if s.optind >= len(s.argv) {
		if s.first != s.last {
			s.optind = s.first
		}
		return foundEnd
	}
	arg := s.argv[s.optind]
	if isOperand(arg) {
		return foundEnd // in order
	}
	if strings.HasPrefix(arg, "--") {
		return s.long(arg[2:])
	}
	s.rest, s.bundled = arg[1:], true
	return s.short()
}

func isOperand(arg string) bool { return len(arg) < 2 || arg[0] != '-' }

func (s *scanner) skipOperands() {
	if s.inOrder {
		return
	}
	s.exchangeSkipped()
	for s.optind < len(s.argv) && isOperand(s.argv[s.optind]) {
		s.optind++
	}
	s.last = s.optind
}

// exchangeSkipped moves the skipped operands behind the options that were read after them.
func (s *scanner) exchangeSkipped() {
	switch {
	case s.first != s.last && s.last != s.optind:
		operands := append([]string(nil), s.argv[s.first:s.last]...)
		n := copy(s.argv[s.first:], s.argv[s.last:s.optind])
		copy(s.argv[s.first+n:], operands)
		s.first += n
		s.last = s.optind
	case s.last != s.optind:
		s.first = s.optind
	}
}

func (s *scanner) complain(format string, a ...any) {
	if s.noise != nil {
		fmt.Fprintf(s.noise, "%s: %s\n", s.argv[0], fmt.Sprintf(format, a...))
	}
}

func (s *scanner) short() int {
	c := s.rest[0]
	s.rest = s.rest[1:]
	s.bundled = s.rest != ""
	if !s.bundled {
		s.optind++
	}
	for i, o := range s.options {
		if o.short != c || c == 0 {
			continue
		}
		if !o.takesValue() {
			return i
		}
		return s.shortValue(i, c)
	}
	s.complain("invalid option -- '%c'", c)
	return foundUnknown
}

func (s *scanner) shortValue(i int, c byte) int {
	if s.bundled {
		s.value = s.rest
		s.optind++
	} else if s.optind == len(s.argv) {
		s.complain("option requires an argument -- '%c'", c)
		return foundNoValue
	} else {
		s.value = s.argv[s.optind]
		s.optind++
	}
	s.rest, s.bundled = "", false
	return i
}

func (s *scanner) long(arg string) int {
	name, value, has := strings.Cut(arg, "=")
	s.optind++
	i := s.match(name, arg)
	if i < 0 {
		return foundUnknown
	}
	o := s.options[i]
	switch {
	case has && !o.takesValue():
		s.complain("option '--%s' doesn't allow an argument", o.long)
		return foundUnknown
	case has:
		s.value = value
	case o.takesValue() && s.optind == len(s.argv):
		s.complain("option '--%s' requires an argument", o.long)
		return foundNoValue
	case o.takesValue():
		s.value = s.argv[s.optind]
		s.optind++
	}
	return i
}

// match returns the index of the long option of that name or with that only beginning, or -1.
func (s *scanner) match(name, arg string) int {
	found := -1
	var all []string
	for i, o := range s.options {
		switch {
		case o.long == "":
		case o.long == name:
			return i
		case strings.HasPrefix(o.long, name):
			if found < 0 {
				found = i
			}
			all = append(all, "'--"+o.long+"'")
		}
	}
	if len(all) > 1 {
		s.complain("option '--%s' is ambiguous; possibilities: %s", arg, strings.Join(all, " "))
		return -1
	}
	if found < 0 {
		s.complain("unrecognized option '--%s'", name)
	}
	return found
}
