package qmp

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// Limits of one message, as QEMU's.
const (
	maxSize   = 64 << 20 // bytes of its tokens
	maxTokens = 2 << 20
	maxDepth  = 1024
)

// Number is a JSON number: an int64, a uint64 beyond that, else a float64.
type Number = any

// parser makes values of a stream of bytes. A value is nil, a bool, a Number, a
// string, a []any or a map[string]any.
type parser struct {
	lexer            lexer
	tokens           []token
	size             int // of the tokens' text
	braces, brackets int
	emit             func(v any, err error)
}

// newParser calls emit for each complete value, and with an error for what is none.
func newParser(emit func(v any, err error)) *parser { return &parser{emit: emit} }

func (p *parser) feed(data []byte) {
	for _, c := range data {
		p.lexer.feed(c, p.token)
	}
}

// token adds t to the value at hand and ends that where its brackets close.
func (p *parser) token(t token) {
	if t.kind == tokError {
		p.done(nil, fmt.Errorf("JSON parse error, stray '%s'", t.text))
		return
	}
	if t.kind == tokMark {
		p.nest(t.text[0])
	}
	switch {
	case p.size+len(t.text)+1 > maxSize:
		p.done(nil, errors.New("JSON token size limit exceeded"))
		return
	case len(p.tokens)+1 > maxTokens:
		p.done(nil, errors.New("JSON token count limit exceeded"))
		return
	case p.braces+p.brackets > maxDepth:
		p.done(nil, errors.New("JSON nesting depth limit exceeded"))
		return
	}
	p.size += len(t.text)
	p.tokens = append(p.tokens, t)
	if (p.braces > 0 || p.brackets > 0) && p.braces >= 0 && p.brackets >= 0 {
		return
	}
	r := reader{tokens: p.tokens}
	v, ok := r.value()
	if !ok && r.err == nil {
		r.fail("expecting value")
	}
	p.done(v, r.err)
}

func (p *parser) nest(c byte) {
	switch c {
	case '{':
		p.braces++
	case '}':
		p.braces--
	case '[':
		p.brackets++
	case ']':
		p.brackets--
	}
}

func (p *parser) done(v any, err error) {
	p.braces, p.brackets, p.size, p.tokens = 0, 0, 0, nil
	if err != nil {
		v = nil
	}
	p.emit(v, err)
}

// reader parses the tokens of one value.
type reader struct {
	tokens []token
	at     int
	err    error // the first
}

func (r *reader) fail(format string, args ...any) (any, bool) {
	if r.err == nil {
		r.err = fmt.Errorf("JSON parse error, "+format, args...)
	}
	return nil, false
}

func (r *reader) peek() (token, bool) {
	if r.at == len(r.tokens) {
		r.fail("premature EOI")
		return token{}, false
	}
	return r.tokens[r.at], true
}

func (r *reader) pop() (token, bool) {
	t, ok := r.peek()
	if ok {
		r.at++
	}
	return t, ok
}

// mark takes the next token if it is c.
func (r *reader) mark(c string) bool {
	if r.at < len(r.tokens) && r.tokens[r.at] == (token{tokMark, c}) {
		r.at++
		return true
	}
	return false
}

func (r *reader) value() (any, bool) {
	if r.mark("{") {
		return r.object()
	}
	if r.mark("[") {
		return r.array()
	}
	t, ok := r.peek()
	if !ok {
		return nil, false
	}
	if t.kind == tokMark {
		return r.fail("expecting value")
	}
	r.at++
	switch t.kind {
	case tokString:
		return r.str(t.text)
	case tokWord:
		switch t.text {
		case "true", "false":
			return t.text == "true", true
		case "null":
			return nil, true
		}
		return r.fail("invalid keyword '%s'", t.text)
	}
	return number(t), true
}

// number is QEMU's: what no integer of 64 bits holds is a float.
func number(t token) Number {
	if t.kind == tokInteger {
		if v, err := strconv.ParseInt(t.text, 10, 64); err == nil {
			return v
		}
		if v, err := strconv.ParseUint(t.text, 10, 64); err == nil {
			return v
		}
	}
	v, _ := strconv.ParseFloat(t.text, 64)
	return min(max(v, -math.MaxFloat64), math.MaxFloat64) // JSON has no infinity to echo in an id
}

func (r *reader) object() (any, bool) {
	m := map[string]any{}
	if r.mark("}") {
		return m, true
	}
	for {
		if !r.pair(m) {
			return nil, false
		}
		if r.mark("}") {
			return m, true
		}
		if _, ok := r.pop(); !ok {
			return nil, false
		}
		if r.tokens[r.at-1] != (token{tokMark, ","}) {
			return r.fail("expected separator in dict")
		}
	}
}

func (r *reader) pair(m map[string]any) bool {
	k, _ := r.value()
	key, ok := k.(string)
	if !ok {
		r.fail("key is not a string in object")
		return false
	}
	if t, ok := r.pop(); !ok || t != (token{tokMark, ":"}) {
		r.fail("missing : in object pair")
		return false
	}
	v, ok := r.value()
	if !ok {
		r.fail("Missing value in dict")
		return false
	}
	if _, ok := m[key]; ok {
		r.fail("duplicate key")
		return false
	}
	m[key] = v
	return true
}

func (r *reader) array() (any, bool) {
	list := []any{}
	if r.mark("]") {
		return list, true
	}
	for {
		v, ok := r.value()
		if !ok {
			return r.fail("expecting value")
		}
		list = append(list, v)
		if r.mark("]") {
			return list, true
		}
		if _, ok := r.pop(); !ok {
			return nil, false
		}
		if r.tokens[r.at-1] != (token{tokMark, ","}) {
			return r.fail("expected separator in list")
		}
	}
}

// str is the meaning of a string with its quotes.
func (r *reader) str(text string) (any, bool) {
	s := text[1 : len(text)-1]
	out := make([]byte, 0, len(s))
	for len(s) > 0 {
		if s[0] == '\\' {
			c, n, why := escape(s)
			if why != "" {
				return r.fail("%s", why)
			}
			out = utf8.AppendRune(out, c)
			s = s[n:]
			continue
		}
		c, n := utf8.DecodeRuneInString(s)
		switch {
		case len(s) > 1 && s[0] == 0xc0 && s[1] == 0x80: // modified UTF-8's NUL
			c, n = 0, 2
		case c == utf8.RuneError && n == 1, !character(c):
			return r.fail("invalid UTF-8 sequence in string")
		}
		out = utf8.AppendRune(out, c)
		s = s[n:]
	}
	return string(out), true
}

// character reports that c may stand in a string: no surrogate, no non-character.
func character(c rune) bool {
	return c >= 0 && c <= utf8.MaxRune && (c < 0xd800 || c > 0xdfff) && (c < 0xfdd0 || c > 0xfdef) && c&0xfffe != 0xfffe
}

// escape reads the escape sequence that s begins with, n bytes of it.
func escape(s string) (c rune, n int, why string) {
	switch s[1] {
	case '"', '\'', '\\', '/':
		return rune(s[1]), 2, ""
	case 'b':
		return '\b', 2, ""
	case 'f':
		return '\f', 2, ""
	case 'n':
		return '\n', 2, ""
	case 'r':
		return '\r', 2, ""
	case 't':
		return '\t', 2, ""
	case 'u':
	default:
		return 0, 0, "invalid escape sequence in string"
	}
	c, n = hex4(s[2:]), min(6, len(s))
	if c >= 0xd800 && c <= 0xdbff && len(s) > 7 && s[6:8] == `\u` {
		if low := hex4(s[8:]); low >= 0xdc00 && low <= 0xdfff {
			return 0x10000 + c&0x3ff<<10 | low&0x3ff, 12, ""
		}
		c = -1
	}
	if !character(c) {
		return 0, 0, s[:n] + " is not a valid Unicode character"
	}
	return c, n, ""
}

// hex4 is the value of four hexadecimal digits, or -1.
func hex4(s string) rune {
	if len(s) < 4 {
		return -1
	}
	v, err := strconv.ParseUint(s[:4], 16, 16)
	if err != nil || s[0] == '+' {
		return -1
	}
	return rune(v)
}
