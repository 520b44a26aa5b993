package main

import "testing"

func TestEscapes(t *testing.T) {
	for _, c := range []struct {
		in          []string
		out         string
		left, helps int
	}{
		{[]string{"ab\x01cde\x01Cf"}, "[ab][de]f", 0, 0},
		{[]string{"hello"}, "hello", 0, 0},
		{[]string{"a\x01xb"}, "ab", 1, 0},
		{[]string{"\x01", "X"}, "", 1, 0},
		{[]string{"\x01h\x01H"}, "", 0, 2},
		{[]string{"\x01\x01"}, "\x01", 0, 0},
		{[]string{"\x01q!"}, "!", 0, 0},
		{[]string{"\x01!x"}, "x", 0, 0},
	} {
		left, helps, out := 0, 0, ""
		e := escapes{leave: func() { left++ }, help: func() { helps++ }, turn: func(before []byte) { out += "[" + string(before) + "]" }}
		for _, s := range c.in {
			out += string(e.filter([]byte(s)))
		}
		if out != c.out || left != c.left || helps != c.helps {
			t.Errorf("%q: %q, left %d, help %d", c.in, out, left, helps)
		}
	}
}
