package hmp

import (
	"math"
	"strconv"
	"strings"
)

const spaces = " \t\n\v\f\r"

// parser takes a command line apart from left to right.
type parser struct {
	text     string
	at       int
	cpu      int
	register func(cpu int, name string) (uint64, bool)
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(spaces, p.text[p.at]) >= 0 {
		p.at++
	}
}

// peek is the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) done() bool { return p.at >= len(p.text) }

// until takes what comes before one of the bytes of stop.
func (p *parser) until(stop string) string {
	from := p.at
	for !p.done() && strings.IndexByte(stop, p.text[p.at]) < 0 {
		p.at++
	}
	return p.text[from:p.at]
}

// command finds the command that the line names. nil: there is none, and c has why.
func (p *parser) command(c *Call, list []Command) *Command {
	p.space()
	if p.done() {
		return nil
	}
	name := p.until(spaces + "/")
	for i := range list {
		command := &list[i]
		if !command.is(name) {
			continue
		}
		p.space()
		if command.Sub != nil && !p.done() {
			return p.command(c, command.Sub)
		}
		return command
	}
	c.Printf("unknown command: '%s'\n", p.text[:p.at])
	return nil
}

// arguments fills c; not ok: they are wrong, and c has why.
func (p *parser) arguments(c *Call, command *Command) bool {
	for i, a := range command.Args {
		p.space()
		if !p.argument(c, command, a, command.Args[i:]) {
			return false
		}
	}
	p.space()
	if !p.done() {
		c.Printf("%s: extraneous characters at the end of line\n", command.Name)
		return false
	}
	return true
}

func (p *parser) argument(c *Call, command *Command, a Arg, rest []Arg) bool {
	switch a.Kind {
	case Flag:
		return p.flag(c, command, a, rest)
	case Format:
		return p.format(c)
	}
	if a.AfterDot {
		if p.peek() != '.' {
			return true
		}
		p.at++
		p.space()
	} else if a.Optional && p.done() {
		return true
	}
	switch a.Kind {
	case Number, Index, Mega:
		return p.number(c, command, a)
	case Size:
		return p.size(c, a)
	case Switch:
		word := p.until(spaces)
		if word != "on" && word != "off" {
			c.Printf("Expected 'on' or 'off'\n")
			return false
		}
		c.flags[a.Name] = word == "on"
		c.texts[a.Name] = word
	case Rest:
		if p.done() {
			c.Printf("%s: string expected\n", command.Name)
			return false
		}
		c.texts[a.Name] = p.text[p.at:]
		p.at = len(p.text)
	default:
		return p.word(c, command, a)
	}
	return true
}

func (p *parser) word(c *Call, command *Command, a Arg) bool {
	word, why := p.quoted()
	if why != "" {
		c.Printf("%s\n", why)
	}
	if word == nil {
		what := map[Kind]string{File: "filename", Block: "block device name", Word: "string"}[a.Kind]
		c.Printf("%s: %s expected\n", command.Name, what)
		return false
	}
	c.texts[a.Name] = *word
	return true
}

// quoted takes a word, or text in double quotes; nil: there is none.
func (p *parser) quoted() (word *string, why string) {
	p.space()
	if p.done() {
		return nil, ""
	}
	if p.peek() != '"' {
		w := p.until(spaces)
		return &w, ""
	}
	var b strings.Builder
	for p.at++; !p.done() && p.peek() != '"'; p.at++ {
		ch := p.peek()
		if ch == '\\' {
			p.at++
			switch ch = p.peek(); ch {
			case 'n':
				ch = '\n'
			case 'r':
				ch = '\r'
			case '\\', '\'', '"':
			default:
				return nil, "unsupported escape code: '\\" + string(rune(ch)) + "'"
			}
		}
		b.WriteByte(ch)
	}
	if p.done() {
		return nil, "unterminated string"
	}
	p.at++
	w := b.String()
	return &w, ""
}

// flag takes a flag if it is the next.
func (p *parser) flag(c *Call, command *Command, a Arg, rest []Arg) bool {
	if p.peek() != '-' || p.at+1 >= len(p.text) {
		return true
	}
	letter := p.text[p.at+1 : p.at+2]
	if letter == a.Name {
		c.flags[a.Name] = true
		p.at += 2
		return true
	}
	for _, other := range rest {
		if other.Kind == Flag && other.Name == letter {
			return true
		}
	}
	p.at++
	c.Printf("%s: unsupported option -%s\n", command.Name, letter)
	return false
}

// maxCount is as many values as one command prints at most.
const maxCount = math.MaxInt32

// format takes /FORMAT if it is the next; what it does not say is as it was last.
func (p *parser) format(c *Call) bool {
	l := c.State.last
	l.Count = 1
	if p.peek() != '/' {
		c.layout = l
		return true
	}
	p.at++
	if digits := p.digits(); digits != "" {
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil {
			n = maxCount
		}
		l.Count = int(n)
	}
	for {
		switch b := p.peek(); b {
		case 'o', 'd', 'u', 'x', 'i', 'c':
			l.Format = b
		case 'b':
			l.Size = 1
		case 'h':
			l.Size = 2
		case 'w':
			l.Size = 4
		case 'g', 'L':
			l.Size = 8
		default:
			if !p.done() && strings.IndexByte(spaces, b) < 0 {
				c.Printf("invalid char in format: '%c'\n", b)
				return false
			}
			c.State.last, c.layout = l, l
			return true
		}
		p.at++
	}
}

func (p *parser) digits() string {
	from := p.at
	for b := p.peek(); b >= '0' && b <= '9'; b = p.peek() {
		p.at++
	}
	return p.text[from:p.at]
}

func (p *parser) number(c *Call, command *Command, a Arg) bool {
	v, err := p.expression()
	switch {
	case err != nil:
		c.Printf("%s\n", err)
		return false
	case a.Kind == Index && uint64(v)>>32 != 0:
		c.Printf("'%s' has failed: integer is for 32-bit values\n", command.Name)
		return false
	case a.Kind == Mega && v < 0:
		c.Printf("enter a positive value\n")
		return false
	case a.Kind == Mega && v > math.MaxInt64>>20:
		c.Printf("number too large\n")
		return false
	case a.Kind == Mega:
		v <<= 20
	}
	c.numbers[a.Name] = v
	return true
}

// size takes a number with a unit.
func (p *parser) size(c *Call, a Arg) bool {
	text := p.until(spaces)
	unit := uint64(1 << 20)
	if n := len(text); n > 0 {
		if i := strings.IndexByte("BKMGTPE", text[n-1]&^0x20); i >= 0 && (text[n-1] < '0' || text[n-1] > '9') {
			unit, text = 1<<(10*i), text[:n-1]
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < 0 || v*float64(unit) >= math.MaxInt64 || text == "" || text[0] == '+' {
		c.Printf("invalid size\n")
		return false
	}
	c.numbers[a.Name] = int64(v * float64(unit))
	return true
}
