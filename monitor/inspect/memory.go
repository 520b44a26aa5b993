package inspect

import (
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/arch/x86/x86asm"
)

// ReadFunc fills p from an address, or fails without having it all.
type ReadFunc func(addr uint64, p []byte) error

// Dump prints count values of size bytes in QEMU's layout. format is one of its
// letters: o d u x, or c, whose values have one byte. The error is w's.
func Dump(w io.Writer, count int, format byte, size int, addr uint64, read ReadFunc) error {
	line := 16
	switch {
	case format == 'c':
		size = 1
	case size == 1:
		line = 8
	}
	for left := count * size; left > 0; left -= line {
		p := make([]byte, min(line, left))
		if _, err := fmt.Fprintf(w, "%016x:", addr); err != nil {
			return err
		}
		if read(addr, p) != nil {
			_, err := fmt.Fprintln(w, " Cannot access memory")
			return err
		}
		for len(p) > 0 {
			fmt.Fprint(w, " ", value(format, size, little(p[:size])))
			p = p[size:]
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		addr += uint64(line)
	}
	return nil
}

// little is the value of up to 8 bytes.
func little(p []byte) uint64 {
	var b [8]byte
	copy(b[:], p)
	return binary.LittleEndian.Uint64(b[:])
}

// value is one in a column of its own.
func value(format byte, size int, v uint64) string {
	decimal := (size*8*10 + 32) / 33
	switch format {
	case 'o':
		return fmt.Sprintf("%#*o", (size*8+2)/3, v)
	case 'u', 'd':
		if size == 8 && format == 'd' {
			return fmt.Sprintf("%*d", decimal, int64(v))
		}
		return fmt.Sprintf("%*d", decimal, v)
	case 'c':
		return Character(v)
	}
	return fmt.Sprintf("0x%0*x", size*2, v)
}

// Character is a value as C writes a character.
func Character(v uint64) string {
	switch v {
	case '\'':
		return `'\''`
	case '\\':
		return `'\\'`
	case '\n':
		return `'\n'`
	case '\r':
		return `'\r'`
	}
	if v >= ' ' && v <= '~' {
		return "'" + string(rune(v)) + "'"
	}
	return fmt.Sprintf(`'\x%02x'`, uint32(v))
}

// Value is one as "print" shows it.
func Value(format byte, v int64) string {
	switch format {
	case 'o':
		return cPrefix("0", fmt.Sprintf("%o", uint64(v)))
	case 'x':
		return cPrefix("0x", fmt.Sprintf("%x", uint64(v)))
	case 'u':
		return fmt.Sprint(uint64(v))
	case 'c':
		return Character(uint64(uint32(v)))
	}
	return fmt.Sprint(v)
}

// cPrefix is C's alternate form, which zero has not.
func cPrefix(prefix, digits string) string {
	if digits == "0" {
		return digits
	}
	return prefix + digits
}

// maxInstruction is as long as one gets.
const maxInstruction = 15

// Disassemble prints count instructions of a mode of 16, 32 or 64 bits from an
// address on, in AT&T's syntax. The error is w's.
func Disassemble(w io.Writer, mode, count int, addr uint64, read ReadFunc) error {
	for range count {
		code := readUpTo(addr, maxInstruction, read)
		if len(code) == 0 {
			_, err := fmt.Fprintf(w, "0x%08x: unable to read memory\n", addr)
			return err
		}
		inst, err := x86asm.Decode(code, mode)
		text := fmt.Sprintf("%-8s 0x%02x", ".byte", code[0])
		n := 1
		if err == nil && inst.Op != 0 && inst.Len > 0 && inst.Len <= len(code) {
			n, text = inst.Len, columns(x86asm.GNUSyntax(inst, addr, nil))
		}
		for at := 0; at < n; at += 8 {
			bytes := fmt.Sprintf("% x", code[at:min(at+8, n)])
			if at == 0 {
				_, err = fmt.Fprintf(w, "0x%08x:  %-24s %s\n", addr, bytes, text)
			} else {
				_, err = fmt.Fprintf(w, "0x%08x:  %s\n", addr+uint64(at), bytes)
			}
			if err != nil {
				return err
			}
		}
		addr += uint64(n)
	}
	return nil
}

// columns sets the mnemonic apart from its operands.
func columns(text string) string {
	for i := range len(text) {
		if text[i] == ' ' {
			return fmt.Sprintf("%-8s %s", text[:i], text[i+1:])
		}
	}
	return fmt.Sprintf("%-9s", text)
}

// readUpTo reads as many of n bytes as there are.
func readUpTo(addr uint64, n int, read ReadFunc) []byte {
	p := make([]byte, n)
	for ; n > 0; n-- {
		if read(addr, p[:n]) == nil {
			break
		}
	}
	return p[:n]
}
