package main

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"berth/tests/guest"
)

// product is what matmul says of n products.
func product(n int) (sum int) {
	for grown := 1; grown <= n; grown++ {
		for i := range 64 {
			for j := range 64 {
				for k := range 64 {
					a := (3*i + 7*k) % 16
					if i == 0 && k == 0 {
						a += grown
					}
					sum += a * ((5*k + j) % 16)
				}
			}
		}
	}
	return sum
}

func TestProgramsAnswerRight(t *testing.T) {
	guest.Need(t)
	dir := t.TempDir()
	if err := makePrograms(here(), dir); err != nil {
		t.Fatal(err)
	}
	const noText = "the programs' text differs: other answers follow from that"
	text := run(t, dir, "./busybox sha256sum <text")
	if want := "8b1461ccdc393033d454e879afcc987e0f964680455e8ae171adc7ce447afd10 -"; text != want {
		t.Errorf("%s: %s", noText, text)
	}
	pages := 0
	for i := range 10 {
		for page := range 32 {
			pages += i + page
		}
	}
	for _, c := range []struct{ command, want string }{
		{"./fork 5", "15"},
		{"./syscalls 600", fmt.Sprint(511*512/2 + 86*87/2)},
		{"./mmap 10", fmt.Sprint(pages)},
		{"./pipe 10", "30"},
		{"./x87 1000000", "3141591654"}, // pi less a millionth
		{"./matmul-sse2 3", fmt.Sprint(product(3))},
		{"./work integer 9", "61"}, // 0+1+7+2+5+8+16+3+19
		{"./work sha256 2", fmt.Sprintf("%x", sha256.Sum256(make([]byte, 2<<20)))},
		{"./work signals 10", fmt.Sprint(45 * 4095)},
		{"./gzip -c text | ./busybox gunzip -c | ./busybox sha256sum", text},
		{"./xz -1 -c text | ./busybox unxz -c | ./busybox sha256sum", text},
		{"./busybox gzip -c text | ./gzip -dc | ./busybox sha256sum", text},
		{"./work states 100000", "523833186728745059"},
		{"./work sort 1000", "841308067423706453"},
		{"./work hash 100000", "138327"},
		{"./work chase 1000", "1156852"},
		{"./work histogram 1", "167520373858"},
		{"./work386 states 100000", "523833186728745059"},
		{"./work386 hash 100000", "138327"},
		{"./work386 sha256 2", fmt.Sprintf("%x", sha256.Sum256(make([]byte, 2<<20)))},
		{"./perl script.pl 3", "80729152"},
	} {
		if got := run(t, dir, c.command); got != c.want {
			t.Errorf("%s: %q, not %q", c.command, got, c.want)
		}
	}
	if got := run(t, dir, "./matmul-avx2 3"); got != fmt.Sprint(product(3)) && got != "skipped: the CPU has no AVX2" {
		t.Errorf("./matmul-avx2 3: %q", got)
	}
}

func run(t *testing.T, dir, command string) string {
	t.Helper()
	s, err := native(dir, command, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return s.answer
}
