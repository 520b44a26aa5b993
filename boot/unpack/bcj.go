package unpack

import (
	"encoding/binary"
	"io"
)

// bcj undoes xz's x86 branch filter: the encoder replaced the relative operand
// of each CALL and JMP (opcodes 0xe8 and 0xe9) by an absolute address, so that
// calls of one function look alike. Only operands whose top byte is 0x00 or
// 0xff were converted, and near other opcode bytes only by the rule in undo.
type bcj struct {
	src io.Reader
	buf []byte
	r   int // buf[r:done] is undone and not read yet
	// buf[done:n] waits for the bytes after it, as an instruction may cross.
	done, n int
	err     error // of src

	pos  uint32 // of buf[0] in the stream
	last int    // index in buf of the latest opcode byte; may lie before buf
	// mask has a bit for each of the three bytes before buf[last+1] that looked
	// like an opcode and was not converted; bit 0 is the nearest.
	mask uint32
}

const (
	bcjBuffer = 64 << 10
	bcjInst   = 5 // opcode and operand
)

func newBCJ(src io.Reader) *bcj {
	return &bcj{src: src, buf: make([]byte, bcjBuffer), last: -bcjInst}
}

func (b *bcj) Read(p []byte) (int, error) {
	for b.r == b.done {
		if b.err != nil {
			if b.done == b.n {
				return 0, b.err
			}
			b.done = b.n // the last bytes cannot hold an instruction
			break
		}
		copy(b.buf, b.buf[b.done:b.n])
		b.pos += uint32(b.done)
		b.last -= b.done
		b.n -= b.done
		b.r, b.done = 0, 0
		var n int
		n, b.err = b.src.Read(b.buf[b.n:])
		b.n += n
		b.done = b.undo(b.buf[:b.n])
	}
	n := copy(p, b.buf[b.r:b.done])
	b.r += n
	return n, nil
}

func topByte(v byte) bool { return v == 0 || v == 0xff }

// undo converts the operands in buf and returns how many bytes are final.
func (b *bcj) undo(buf []byte) int {
	i := 0
	for ; i+bcjInst <= len(buf); i++ {
		if buf[i]&0xfe != 0xe8 {
			continue
		}
		if gap := i - b.last; gap > 3 {
			b.mask = 0
		} else {
			b.mask = b.mask << (gap - 1) & 7
		}
		b.last = i
		if b.mask != 0 && !b.mayConvert(buf[i:]) || !topByte(buf[i+4]) {
			b.mask = b.mask<<1 | 1
			continue
		}
		operand := buf[i+1 : i+bcjInst]
		v := b.relative(binary.LittleEndian.Uint32(operand), b.pos+uint32(i)+bcjInst)
		binary.LittleEndian.PutUint32(operand, v)
		i += bcjInst - 1
	}
	return i
}

// maskShift is how many bytes before an operand's top byte the nearest earlier
// opcode's top byte lies.
var maskShift = [8]uint32{0, 1, 2, 2, 3, 3, 3, 3}

// mayConvert tells whether the instruction at p, which others overlap, was
// converted by the encoder.
func (b *bcj) mayConvert(p []byte) bool {
	one := b.mask == 1 || b.mask == 2 || b.mask == 4
	return one && !topByte(p[4-maskShift[b.mask]])
}

// relative converts an absolute operand for an instruction that ends at next.
func (b *bcj) relative(v, next uint32) uint32 {
	for {
		v -= next
		if b.mask == 0 {
			break
		}
		shift := maskShift[b.mask] * 8
		if !topByte(byte(v >> (24 - shift))) {
			break
		}
		v ^= 1<<(32-shift) - 1
	}
	// Addresses have 25 bits, sign-extended.
	return uint32(int32(v<<7) >> 7)
}
