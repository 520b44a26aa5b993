package image

import (
	"errors"
	"testing"
)

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		text string
		n    uint64
		err  error
	}{
		{"0", 0, nil}, {" 12", 12, nil}, {"+12", 12, nil}, {"1k", 1024, nil}, {"1.5k", 1536, nil}, {"1.k", 1024, nil},
		{"0x10", 16, nil}, {"1.0", 1, nil}, {"16383P", 16383 << 50, nil}, {"0.3k", 307, nil}, {"15.9999999999999999999E", 0, errSizeRange},
		{"18446744073709551615", 1<<64 - 1, nil}, {"18446744073709551616", 0, errSizeRange}, {"16E", 0, errSizeRange},
		{"18446744073709551616x", 0, errNotSize}, {"16Ex", 0, errNotSize}, {"-1", 0, errNotSize}, {"1.5", 0, errNotSize},
		{"1.5e1k", 0, errNotSize}, {"0x1.8k", 0, errNotSize}, {"0x", 0, errNotSize}, {"", 0, errNotSize}, {"k", 0, errNotSize}, {".5k", 0, errNotSize},
	} {
		n, _, err := parseSize(c.text)
		if !errors.Is(err, c.err) || err == nil && n != c.n {
			t.Errorf("%q: %d, %v; want %d, %v", c.text, n, err, c.n, c.err)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 512: "512 B", 999: "999 B", 1000: "0.977 KiB", 1024: "1 KiB", 200704: "196 KiB",
		1023 << 10: "0.999 MiB", 1000 << 10: "0.977 MiB", 5 << 30: "5 GiB", 1<<63 - 1: "8 EiB",
	} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// FuzzOptions: no list of options, and no size in one, makes the reader fail or go on for ever.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"a=b,c", "size=1.5G,help", "x=,,y,,,z", "nofoo,", "=", ",", "0x1k", "size=18446744073709551616"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_ = wantsHelp(s)
		l := optionList{known: fileOptions()}
		if l.parse(s, "", nil) == nil {
			_ = l.values()
		}
		_, _, _ = parseSize(s)
	})
}
