package hmp

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// An expression is, the tightest first:
//
//	number | 'c' | $register | ( sum ) | + unary | - unary | ~ unary
//	* / %     & | ^     + -
//
// with 64-bit integers throughout, and no operator of two characters.

// maxNesting is how deep parentheses and signs may nest.
const maxNesting = 200

type expression struct {
	*parser
	depth int
}

// expression takes one.
func (p *parser) expression() (int64, error) {
	e := expression{parser: p}
	p.space()
	return e.sum()
}

func (e *expression) sum() (int64, error) {
	return e.chain("+-", e.logic, func(op byte, a, b int64) (int64, error) {
		if op == '-' {
			return a - b, nil
		}
		return a + b, nil
	})
}

func (e *expression) logic() (int64, error) {
	return e.chain("&|^", e.product, func(op byte, a, b int64) (int64, error) {
		switch op {
		case '&':
			return a & b, nil
		case '|':
			return a | b, nil
		}
		return a ^ b, nil
	})
}

func (e *expression) product() (int64, error) {
	return e.chain("*/%", e.unary, func(op byte, a, b int64) (int64, error) {
		switch {
		case op == '*':
			return a * b, nil
		case b == 0:
			return 0, errors.New("division by zero")
		case op == '/':
			return a / b, nil
		}
		return a % b, nil
	})
}

// chain takes operands with operators of ops between them, from the left.
func (e *expression) chain(ops string, operand func() (int64, error), apply func(op byte, a, b int64) (int64, error)) (int64, error) {
	v, err := operand()
	for err == nil && !e.done() && strings.IndexByte(ops, e.peek()) >= 0 {
		op := e.peek()
		e.next()
		var w int64
		if w, err = operand(); err == nil {
			v, err = apply(op, v, w)
		}
	}
	return v, err
}

// next goes past one byte and the space after it.
func (e *expression) next() {
	e.at++
	e.space()
}

func (e *expression) unary() (int64, error) {
	if e.depth++; e.depth > maxNesting {
		return 0, errors.New("expression too deep")
	}
	defer func() { e.depth-- }()
	if e.done() {
		return 0, errors.New("unexpected end of expression")
	}
	switch e.peek() {
	case '+':
		e.next()
		return e.unary()
	case '-':
		e.next()
		v, err := e.unary()
		return -v, err
	case '~':
		e.next()
		v, err := e.unary()
		return ^v, err
	case '(':
		e.next()
		v, err := e.sum()
		if err == nil && e.peek() != ')' {
			return 0, errors.New("')' expected")
		}
		e.next()
		return v, err
	case '\'':
		return e.character()
	case '$':
		return e.named()
	}
	return e.literal()
}

func (e *expression) character() (int64, error) {
	e.at++
	if e.done() {
		return 0, errors.New("character constant expected")
	}
	v := int64(int8(e.peek()))
	e.at++
	if e.peek() != '\'' {
		return 0, errors.New("missing terminating ' character")
	}
	e.next()
	return v, nil
}

func (e *expression) named() (int64, error) {
	e.at++
	from := e.at
	for !e.done() && (isAlphanumeric(e.peek()) || e.peek() == '_' || e.peek() == '.') {
		e.at++
	}
	name := e.text[from:e.at]
	e.space()
	if e.register != nil {
		if v, ok := e.register(e.cpu, name); ok {
			return int64(v), nil
		}
	}
	return 0, errors.New("unknown register")
}

func isAlphanumeric(b byte) bool {
	return b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z'
}

// literal takes a number as C writes them: decimal, 0x hexadecimal, 0 octal.
func (e *expression) literal() (int64, error) {
	from := e.at
	base, digits := 10, "0123456789"
	switch rest := e.text[e.at:]; {
	case len(rest) > 2 && rest[0] == '0' && rest[1]|0x20 == 'x' && strings.IndexByte("0123456789abcdef", rest[2]|0x20) >= 0:
		base, digits, from = 16, "0123456789abcdefABCDEF", from+2
	case rest[0] == '0':
		base, digits = 8, "01234567"
	}
	e.at = from
	for !e.done() && strings.IndexByte(digits, e.peek()) >= 0 {
		e.at++
	}
	if e.at == from {
		return 0, fmt.Errorf("invalid char '%c' in expression", e.peek())
	}
	v, err := strconv.ParseUint(e.text[from:e.at], base, 64)
	e.space()
	if err != nil {
		return math.MaxInt64, errors.New("number too large")
	}
	return int64(v), nil
}
