package virtio

import (
	"testing"

	"berth/guestmem"
)

// bare returns a running queue of 8 entries with one chain of three buffers at head 0, and no worker.
func bare(tb testing.TB) *Queue {
	tb.Helper()
	mem := guestmem.New()
	if _, err := mem.AddRAM(0, 1<<20); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = mem.Close() })
	q := &Queue{mem: mem, max: 8, trigger: func(*Queue) {}, failed: func(_ *Queue, err error) { tb.Fatal(err) }}
	q.clear()
	q.desc, q.avail, q.used, q.enabled, q.eventIdx = 0, 0x1000, 0x2000, true, true
	for i, d := range [][2]uint64{{0x3000, 16 | 1<<32 | 1<<48}, {0x4000, 4096 | 3<<32 | 2<<48}, {0x5000, 1 | 2<<32}} {
		for j, v := range d {
			if err := mem.Store64(uint64(16*i+8*j), v); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := q.checkRings(); err != nil {
		tb.Fatal(err)
	}
	return q
}

func (q *Queue) turn(c *Chain) bool {
	q.store16(q.avail+2, q.nextAvail+1)
	ok := q.Pop(c)
	q.Push(c, 4097)
	q.Notify()
	return ok && !q.listen()
}

func TestPopAndPushCostNoAllocation(t *testing.T) {
	q, c := bare(t), &Chain{}
	if n := testing.AllocsPerRun(100, func() {
		if !q.turn(c) {
			t.Error("no chain, or one too many")
		}
	}); n != 0 {
		t.Errorf("%v allocations a chain", n)
	}
}

// BenchmarkPopPush is the queue's part of one request, suppression included.
func BenchmarkPopPush(b *testing.B) {
	q, c := bare(b), &Chain{}
	for b.Loop() {
		q.turn(c)
	}
}
