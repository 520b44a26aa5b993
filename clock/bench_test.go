package clock

import "testing"

func BenchmarkHostNow(b *testing.B) {
	h, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	for b.Loop() {
		h.Now()
	}
}

func BenchmarkHostTimerSet(b *testing.B) {
	h, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	timer := h.NewTimer(func() {})
	for b.Loop() {
		timer.Set(h.Now() + 4_000_000)
	}
}
