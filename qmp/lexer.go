package qmp

// token is a lexical element of JSON as QEMU reads it: RFC 8259 with strings that
// may stand in apostrophes.
type token struct {
	kind tokenKind
	text string // of numbers, words and strings with their quotes
}

type tokenKind uint8

const (
	tokNone  tokenKind = iota
	tokError           // text is what cannot begin or go on so
	tokMark            // one of { } [ ] , :
	tokInteger
	tokFloat
	tokWord
	tokString
)

// lexState is what the lexer is in the middle of.
type lexState uint8

const (
	lexStart lexState = iota
	lexRecovery
	lexString
	lexEscape
	lexSign
	lexZero
	lexDigits
	lexPoint
	lexFraction
	lexE
	lexESign
	lexExponent
	lexWord
)

// lexer splits a stream of bytes into tokens.
type lexer struct {
	state lexState
	quote byte
	text  []byte
}

// feed takes one byte and calls emit for each token that ends with it or before it.
func (l *lexer) feed(c byte, emit func(token)) {
	for !l.take(c, emit) {
	}
}

// take reports that c was consumed; if not it is to be given again.
func (l *lexer) take(c byte, emit func(token)) (consumed bool) {
	if l.state == lexRecovery {
		// After an error all is skipped up to what may begin anew: see QEMU's
		// docs/interop/qmp-spec, "Forcing the JSON parser into known-good state".
		if resumes(c) {
			l.state = lexStart
			return false
		}
		return true
	}
	next, kind, consumed := l.step(c)
	if consumed {
		l.text = append(l.text, c)
	}
	switch {
	case kind == tokError:
		l.end(kind, emit)
		l.state = lexRecovery
	case kind != tokNone:
		l.end(kind, emit)
		l.state = lexStart
	default:
		if next == lexStart {
			l.text = l.text[:0]
		}
		l.state = next
		if len(l.text) > maxSize {
			l.end(kind, emit)
			l.state = lexStart
		}
	}
	return consumed
}

func (l *lexer) end(kind tokenKind, emit func(token)) {
	text := string(l.text)
	l.text = l.text[:0]
	emit(token{kind, text})
}

// resumes reports that the lexer can begin anew at c after an error.
func resumes(c byte) bool {
	switch c {
	case '[', ']', '{', '}', ':', ',':
		return true
	case '\t':
		return false
	}
	return c < 0x20 || c >= 0xfe
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

// step is the transition on c: to a state, or to the end of a token, with c or
// without it.
func (l *lexer) step(c byte) (next lexState, kind tokenKind, consumed bool) {
	switch l.state {
	case lexString:
		switch {
		case c == l.quote:
			return lexStart, tokString, true
		case c == '\\':
			return lexEscape, tokNone, true
		}
		return within(c >= 0x20 && c < 0xfe, lexString)
	case lexEscape:
		return within(c >= 0x20 && c < 0xfe, lexString)
	case lexWord:
		return orEnd(isLower(c), lexWord, tokWord)
	case lexStart:
		return l.begin(c)
	}
	return l.number(c)
}

// within stays in a token that c must belong to.
func within(ok bool, s lexState) (lexState, tokenKind, bool) {
	if !ok {
		return lexStart, tokError, true
	}
	return s, tokNone, true
}

// orEnd stays in a token that ends before what does not belong to it.
func orEnd(ok bool, s lexState, kind tokenKind) (lexState, tokenKind, bool) {
	if !ok {
		return lexStart, kind, false
	}
	return s, tokNone, true
}

func (l *lexer) begin(c byte) (lexState, tokenKind, bool) {
	switch {
	case c == '"' || c == '\'':
		l.quote = c
		return lexString, tokNone, true
	case c == '0':
		return lexZero, tokNone, true
	case isDigit(c):
		return lexDigits, tokNone, true
	case c == '-':
		return lexSign, tokNone, true
	case isLower(c):
		return lexWord, tokNone, true
	}
	switch c {
	case ' ', '\t', '\r', '\n':
		return lexStart, tokNone, true
	case '{', '}', '[', ']', ',', ':':
		return lexStart, tokMark, true
	}
	return lexStart, tokError, true
}

func (l *lexer) number(c byte) (lexState, tokenKind, bool) {
	e := c == 'e' || c == 'E'
	switch l.state {
	case lexSign:
		if c == '0' {
			return lexZero, tokNone, true
		}
		return within(isDigit(c), lexDigits)
	case lexZero, lexDigits:
		switch {
		case c == '.':
			return lexPoint, tokNone, true
		case l.state == lexZero && isDigit(c):
			return lexStart, tokError, true
		case l.state == lexDigits && e:
			return lexE, tokNone, true
		}
		return orEnd(isDigit(c), lexDigits, tokInteger)
	case lexPoint:
		return within(isDigit(c), lexFraction)
	case lexFraction:
		if e {
			return lexE, tokNone, true
		}
		return orEnd(isDigit(c), lexFraction, tokFloat)
	case lexE:
		if c == '-' || c == '+' {
			return lexESign, tokNone, true
		}
		return within(isDigit(c), lexExponent)
	case lexESign:
		return within(isDigit(c), lexExponent)
	}
	return orEnd(isDigit(c), lexExponent, tokFloat)
}
