package main

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// random is Marsaglia's xorshift64, so that every host works on the same numbers.
type random uint64

func (r *random) next() uint64 {
	x := *r
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*r = x
	return uint64(x)
}

// integer is how many steps all numbers up to n take to 1 by Collatz's rule.
func integer(n int) (steps uint64) {
	for i := 1; i <= n; i++ {
		for x := uint64(i); x != 1; steps++ {
			if x&1 == 0 {
				x >>= 1
			} else {
				x = 3*x + 1
			}
		}
	}
	return steps
}

// states counts the words, numbers, strings and comments of n pseudo-random
// characters, by a machine that looks at one after the other.
func states(n int) uint64 {
	const alphabet = "aZ_09.\"\\#\n \t+-(xE"
	r := random(1)
	text := make([]byte, 1<<16)
	for i := range text {
		text[i] = alphabet[r.next()%uint64(len(alphabet))]
	}
	var m machine
	for i := range n {
		m.step(text[i&(len(text)-1)])
	}
	return m.words + m.numbers<<16 + m.strings<<32 + m.comments<<48
}

type machine struct {
	state                             int
	words, numbers, strings, comments uint64
}

const (
	between = iota
	inWord
	inNumber
	inString
	escaped
	inComment
)

func (m *machine) step(c byte) {
	switch m.state {
	case inWord:
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' {
			return
		}
	case inNumber:
		if c >= '0' && c <= '9' || c == '.' || c == 'E' || c == 'x' {
			return
		}
	case inString:
		switch c {
		case '"':
			m.state = between
		case '\\':
			m.state = escaped
		}
		return
	case escaped:
		m.state = inString
		return
	case inComment:
		if c == '\n' {
			m.state = between
		}
		return
	}
	m.begin(c)
}

// begin is a step from between.
func (m *machine) begin(c byte) {
	m.state = between
	switch {
	case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_':
		m.state = inWord
		m.words++
	case c >= '0' && c <= '9':
		m.state = inNumber
		m.numbers++
	case c == '"':
		m.state = inString
		m.strings++
	case c == '#':
		m.state = inComment
		m.comments++
	}
}

// sorted sorts n pseudo-random numbers and returns their sum, each times its place; 0: they are in no order.
func sorted(n int) (sum uint64) {
	r := random(2)
	v := make([]uint64, n)
	for i := range v {
		v[i] = r.next()
	}
	slices.Sort(v)
	if !slices.IsSorted(v) {
		return 0
	}
	for i, x := range v {
		sum += uint64(i) * x
	}
	return sum
}

// hash puts n pseudo-random keys into an open table of 2^18 places and counts
// them, and returns the sum of counts seen.
func hash(n int) (sum uint64) {
	const bits = 18
	type place struct{ key, count uint64 }
	table := make([]place, 1<<bits)
	r := random(3)
	for range n {
		key := r.next()%(1<<(bits-1)) + 1
		at := key * 0x9e3779b97f4a7c15 >> (64 - bits)
		for table[at].key != 0 && table[at].key != key {
			at = (at + 1) & (1<<bits - 1)
		}
		table[at].key = key
		table[at].count++
		sum += table[at].count
	}
	return sum
}

// sum256 is the SHA-256 of n MiB of zeros.
func sum256(n int) string {
	h := sha256.New()
	zeros := make([]byte, 1<<20)
	for range n {
		h.Write(zeros)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// chase follows n pointers through 8 MiB in one pseudo-random cycle and returns where it ends.
func chase(n int) uint32 {
	const size = 1 << 21
	next := make([]uint32, size)
	for i := range next {
		next[i] = uint32(i)
	}
	r := random(4) // Sattolo's shuffle has one cycle
	for i := size - 1; i > 0; i-- {
		j := r.next() % uint64(i)
		next[i], next[j] = next[j], next[i]
	}
	at := uint32(0)
	for range n {
		at = next[at]
	}
	return at
}

// histogram counts the bytes of n passes over a MiB of pseudo-random bytes and
// returns the sum of the counts' squares.
func histogram(n int) (sum uint64) {
	r := random(5)
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(r.next() >> 20 & r.next() >> 40)
	}
	var counts [256]uint64
	for range n {
		for _, b := range data {
			counts[b]++
		}
	}
	for _, c := range counts {
		sum += c * c
	}
	return sum
}

// text is n KiB of lines of words of a small language, with numbers in between.
func text(n int) string {
	r := random(6)
	syllables := strings.Fields("ba ce di fo gu ka le mi no pu ra se ti vo zu an el is or um")
	var b strings.Builder
	for column := 0; b.Len() < n<<10; {
		word := ""
		if r.next()%16 == 0 {
			word = fmt.Sprint(r.next() % 10000)
		} else {
			for k := r.next()%3 + 1; k > 0; k-- {
				word += syllables[min(r.next()%20, r.next()%20)] // the first are more frequent
			}
		}
		b.WriteString(word)
		if column += len(word) + 1; column > 70 {
			b.WriteByte('\n')
			column = 0
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()[:n<<10]
}
