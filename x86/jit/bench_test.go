package jit

import (
	"debug/elf"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"berth/x86/decode"
)

// BenchmarkTranslate translates this program's own code, block after block, and says
// how many bytes a guest instruction becomes.
func BenchmarkTranslate(b *testing.B) {
	if !Available() {
		b.Skip("the host runs no translated code")
	}
	text := ownText(b)
	c, err := New(32<<20, Layout{V3: AVX()})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	runtime.LockOSThread() // whose CPU time counts
	defer runtime.UnlockOSThread()
	instructions, bytes, at, began := 0, 0, 0, threadTime(b)
	for b.Loop() {
		if c.Full() {
			c.Clear()
		}
		if at >= len(text) {
			at = 0
		}
		before := c.Used()
		off := at % pageSize
		u, ok := c.Translate(text[at:at-off+pageSize], uint16(off), 0, decode.Mode64, false, false)
		if !ok { // the rest of the page
			at += pageSize - off
			continue
		}
		instructions += u.Count
		bytes += c.Used() - before
		at += int(u.End) - off
	}
	b.ReportMetric(float64(threadTime(b)-began)/float64(instructions), "CPU-ns/instruction")
	b.ReportMetric(float64(bytes)/float64(instructions), "bytes/instruction")
	b.ReportMetric(float64(instructions)/float64(b.N), "instructions/block")
}

func threadTime(b *testing.B) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return t.Nano()
}

// ownText is whole pages of the test's own code.
func ownText(b *testing.B) []byte {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	text, err := f.Section(".text").Data()
	if err != nil {
		b.Fatal(err)
	}
	return text[:len(text)&^(pageSize-1)]
}
