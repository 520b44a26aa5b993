package gdb

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
)

// maxPacket is how many bytes a packet may have between $ and #, in either direction.
const maxPacket = 16 << 10

// message is what a debugger sends.
type message struct {
	kind messageKind
	// text is a packet's, with what was escaped as it was meant: gdb only escapes
	// binary data.
	text []byte
}

type messageKind uint8

const (
	packet    messageKind = iota // $text#checksum
	interrupt                    // Ctrl-C
	again                        // -: the last answer came damaged
	damaged                      // a packet whose checksum is another
	long                         // a packet beyond maxPacket
)

// readMessage reads the next message. Acknowledgements and bytes between messages are
// skipped. The error is r's.
func readMessage(r *bufio.Reader) (message, error) {
	for {
		b, err := r.ReadByte()
		switch {
		case err != nil:
			return message{}, err
		case b == '$':
			return readPacket(r)
		case b == 3:
			return message{kind: interrupt}, nil
		case b == '-':
			return message{kind: again}, nil
		}
	}
}

func readPacket(r *bufio.Reader) (message, error) {
	var text []byte
	m := message{kind: packet}
	sum, escaped := byte(0), false
	for {
		b, err := r.ReadByte()
		if err != nil {
			return message{}, err
		}
		if b == '#' {
			break
		}
		sum += b
		switch {
		case len(text) == maxPacket:
			m.kind = long
		case b == '}' && !escaped:
			escaped = true
		case escaped:
			text, escaped = append(text, b^0x20), false
		default:
			text = append(text, b)
		}
	}
	var digits, want [2]byte
	if _, err := io.ReadFull(r, digits[:]); err != nil {
		return message{}, err
	}
	if _, err := hex.Decode(want[:], digits[:]); err != nil || want[0] != sum {
		m.kind = damaged
	}
	m.text = text
	return m, nil
}

// frame makes a packet of text, in which what a packet cannot hold is escaped.
func frame(text []byte) []byte {
	out := append(make([]byte, 0, len(text)+4), '$')
	sum := byte(0)
	for _, b := range text {
		if bytes.IndexByte([]byte("#$}*"), b) >= 0 {
			out = append(out, '}')
			sum += '}'
			b ^= 0x20
		}
		out = append(out, b)
		sum += b
	}
	return fmt.Appendf(out, "#%02x", sum)
}
