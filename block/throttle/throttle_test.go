package throttle

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/block"
	"berth/block/blocktest"
)

func TestConformance(t *testing.T) {
	blocktest.Run(t, func(*testing.T) block.Disk {
		return New(blocktest.NewMem(blocktest.Size), Limits{Bytes: Pair{Total: Limit{Rate: maxRate}}, Operations: Pair{Read: Limit{Rate: maxRate}}})
	})
}

// rig submits requests to a throttled disk and notes when each was done, in
// the time of synctest's bubble.
type rig struct {
	d     *Disk
	start time.Time

	mu    sync.Mutex
	ended []moment
}

type moment struct {
	op block.Op
	at time.Duration
}

func newRig(l Limits) *rig { return &rig{d: New(blocktest.NewMem(1<<30), l), start: time.Now()} }

func (r *rig) submit(op block.Op, n int64) {
	q := &block.Request{Op: op, Len: n}
	if op == block.OpRead || op == block.OpWrite {
		q.IOV = [][]byte{make([]byte, n)}
	}
	q.Done = func(error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended = append(r.ended, moment{op, time.Since(r.start)})
	}
	r.d.Submit(q)
}

// done returns what has been done so far.
func (r *rig) done() []moment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ended)
}

func (r *rig) last() time.Duration { return r.done()[len(r.done())-1].at }

// near allows for the nanosecond by which waits are rounded up, at each request.
func near(got, want time.Duration) bool { return got >= want && got < want+time.Millisecond }

func TestRates(t *testing.T) {
	for _, c := range []struct {
		name string
		l    Limits
		op   block.Op
		n    int
		size int64
		want time.Duration
	}{
		// A tenth of a second's worth goes at once, and one more: it finds the bucket full, not overfull.
		{"operations", Limits{Operations: Pair{Total: Limit{Rate: 100}}}, block.OpRead, 111, 512, time.Second},
		{"operations of reads", Limits{Operations: Pair{Read: Limit{Rate: 100}}}, block.OpRead, 111, 512, time.Second},
		{"operations of reads, a write", Limits{Operations: Pair{Read: Limit{Rate: 100}}}, block.OpWrite, 111, 512, 0},
		{"bytes", Limits{Bytes: Pair{Total: Limit{Rate: 10 << 20}}}, block.OpWrite, 12, 1 << 20, time.Second},
		{"bytes of writes", Limits{Bytes: Pair{Write: Limit{Rate: 10 << 20}}}, block.OpWriteZeroes, 12, 1 << 20, time.Second},
		{"discards have no bytes", Limits{Bytes: Pair{Write: Limit{Rate: 1}}}, block.OpDiscard, 12, 1 << 20, 0},
		{"discards are operations", Limits{Operations: Pair{Write: Limit{Rate: 10}}}, block.OpDiscard, 12, 1 << 20, time.Second},
		{"flushes are free", Limits{Operations: Pair{Total: Limit{Rate: 1}}}, block.OpFlush, 100, 0, 0},
		{"large requests count more", Limits{Operations: Pair{Total: Limit{Rate: 100}}, OperationSize: 4096}, block.OpRead, 12, 40960, time.Second},
		{"a burst of one second", Limits{Operations: Pair{Total: Limit{Rate: 100, Burst: 1000}}}, block.OpRead, 1001, 512, 0},
		{"after a burst of one second", Limits{Operations: Pair{Total: Limit{Rate: 100, Burst: 1000}}}, block.OpRead, 1101, 512, time.Second},
		// Of 4000 in the burst 100 go at once, the rest at 1000 a second; meanwhile 390 have leaked.
		{"a long burst keeps to its rate", Limits{Operations: Pair{Total: Limit{Rate: 100, Burst: 1000, BurstFor: 4}}}, block.OpRead, 4001, 512, 3900 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.l.Check(); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				r := newRig(c.l)
				for range c.n {
					r.submit(c.op, c.size)
				}
				if at := time.Since(r.start); at != 0 {
					t.Fatalf("submitting took %v", at)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if len(r.done()) != c.n || !near(r.last(), c.want) {
					t.Errorf("%d done, the last after %v; want %d after %v", len(r.done()), r.last(), c.n, c.want)
				}
			})
		})
	}
}

// TestLongRun holds the rate after a burst: what is above it is paid back.
func TestLongRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(Limits{Operations: Pair{Total: Limit{Rate: 100, Burst: 1000, BurstFor: 4}}})
		for range 10000 {
			r.submit(block.OpWrite, 512)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		// All but the burst's 4000 have waited for the bucket to leak at 100 a second.
		if want := 59990 * time.Millisecond; len(r.done()) != 10000 || !near(r.last(), want) {
			t.Errorf("%d done, the last after %v, want after %v", len(r.done()), r.last(), want)
		}
	})
}

func TestReadsAndWritesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(Limits{Operations: Pair{Total: Limit{Rate: 10}}})
		for range 40 {
			r.submit(block.OpRead, 512)
		}
		for range 40 {
			r.submit(block.OpWrite, 512)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(r.done()) != 80 {
			t.Fatalf("%d done", len(r.done()))
		}
		for i, m := range r.done()[2:60] {
			if want := []block.Op{block.OpRead, block.OpWrite}[i%2]; m.op != want {
				t.Errorf("the %d. was operation %d", i+2, m.op)
			}
		}
	})
}

// TestLateWriteWaitsItsTurn: a request does not overtake those of the other kind
// that wait for the same limit.
func TestLateWriteWaitsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(Limits{Operations: Pair{Total: Limit{Rate: 10}}})
		for range 3 {
			r.submit(block.OpRead, 512)
		}
		time.Sleep(50 * time.Millisecond)
		r.submit(block.OpWrite, 512)
		time.Sleep(time.Hour)
		synctest.Wait()
		for i, want := range []moment{{block.OpRead, 0}, {block.OpRead, 0}, {block.OpRead, 100 * time.Millisecond}, {block.OpWrite, 200 * time.Millisecond}} {
			if r.done()[i].op != want.op || !near(r.done()[i].at, want.at) {
				t.Errorf("the %d. was %v, want %v", i, r.done()[i], want)
			}
		}
	})
}

func TestSeparateLimitsDoNotMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(Limits{Operations: Pair{Read: Limit{Rate: 1}}})
		for range 10 {
			r.submit(block.OpRead, 512)
		}
		r.submit(block.OpWrite, 512)
		if r.done()[len(r.done())-1].op != block.OpWrite {
			t.Error("a write waited for the limit of reads")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
	})
}

func TestHastenLetsAllThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(Limits{Operations: Pair{Total: Limit{Rate: 1}}})
		for range 10 {
			r.submit(block.OpWrite, 512)
		}
		if len(r.done()) != 1 {
			t.Fatalf("%d done at once", len(r.done()))
		}
		r.d.Hasten(true)
		r.submit(block.OpWrite, 512)
		if len(r.done()) != 11 || r.last() != 0 {
			t.Fatalf("%d done", len(r.done()))
		}
		r.d.Hasten(false)
		r.submit(block.OpWrite, 512)
		if len(r.done()) != 11 {
			t.Error("nothing waits any more")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(r.done()) != 12 {
			t.Errorf("%d done", len(r.done()))
		}
	})
}

func TestCloseCompletesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := blocktest.NewMem(4096)
		d := New(mem, Limits{Operations: Pair{Total: Limit{Rate: 1}}})
		failed := 0
		for i := range 8 {
			d.Submit(&block.Request{Op: block.OpWrite, Off: int64(i) * 512, Len: 512, IOV: [][]byte{{511: 1}}, Done: func(err error) {
				if err != nil {
					failed++
				}
			}})
		}
		if err := d.Close(); err != nil || failed > 0 || mem.Bytes()[4095] != 1 {
			t.Errorf("%v, %d failed", err, failed)
		}
		if err := d.Close(); !errors.Is(err, block.ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
	})
}

func TestAbandonFailsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(blocktest.NewMem(4096), Limits{Bytes: Pair{Total: Limit{Rate: 1}}})
		var errs []error
		for range 3 {
			d.Submit(&block.Request{Op: block.OpRead, Len: 512, IOV: [][]byte{make([]byte, 512)}, Done: func(err error) { errs = append(errs, err) }})
		}
		d.Abandon()
		if len(errs) != 3 || errs[0] != nil || !errors.Is(errs[1], block.ErrClosed) || !errors.Is(errs[2], block.ErrClosed) {
			t.Errorf("%v", errs)
		}
	})
}

func TestLimitsThatMakeNoSense(t *testing.T) {
	ops := func(p Pair) Limits { return Limits{Operations: p} }
	for _, c := range []struct {
		l    Limits
		want string
	}{
		{ops(Pair{Total: Limit{Rate: 1}, Read: Limit{Rate: 1}}), "bps/iops/max total values and read/write values cannot be used at the same time"},
		{Limits{OperationSize: 4096, Bytes: Pair{Total: Limit{Rate: 1}}}, "iops size requires an iops value to be set"},
		{ops(Pair{Total: Limit{Burst: 5}}), "bps_max/iops_max require corresponding bps/iops values"},
		{ops(Pair{Total: Limit{Rate: 6, Burst: 5}}), "bps_max/iops_max cannot be lower than bps/iops"},
		{ops(Pair{Total: Limit{Rate: 6, BurstFor: 5}}), "burst length set without burst rate"},
		{ops(Pair{Total: Limit{Rate: 6, Burst: maxRate, BurstFor: 5}}), "burst length too high for this burst rate"},
		{ops(Pair{Total: Limit{Rate: -6}}), "bps/iops/max values must be within [0, 1000000000000000]"},
		{ops(Pair{Total: Limit{Rate: maxRate + 1}}), "bps/iops/max values must be within [0, 1000000000000000]"},
	} {
		if err := c.l.Check(); err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v, want %s", c.l, err, c.want)
		}
	}
	if err := (Limits{}).Check(); err != nil || (Limits{}).Any() {
		t.Error("no limits are limits")
	}
}

// gated holds Submit up, and notes when it is closed.
type gated struct {
	block.Disk
	open   chan struct{}
	closed atomic.Bool
}

func (g *gated) Submit(r *block.Request) {
	<-g.open
	g.Disk.Submit(r)
}

func (g *gated) Close() error {
	g.closed.Store(true)
	return g.Disk.Close()
}

// What Hasten is just passing on reaches the disk below before that is closed.
func TestCloseWaitsForHasten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{Disk: blocktest.NewMem(4096), open: make(chan struct{})}
		d := New(g, Limits{Operations: Pair{Total: Limit{Rate: 1}}})
		errs := make(chan error, 2)
		submit := func() {
			d.Submit(&block.Request{Op: block.OpRead, Len: 512, IOV: [][]byte{make([]byte, 512)}, Done: func(err error) { errs <- err }})
		}
		go submit()
		synctest.Wait()
		submit() // waits for the limit
		go d.Hasten(true)
		synctest.Wait()
		go d.Close()
		synctest.Wait()
		if g.closed.Load() {
			t.Error("the disk below was closed first")
		}
		close(g.open)
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// What waited is passed on by the timer, which must not stay with it.
func TestWhatWaitedHasNoPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(blocktest.NewMem(4096), Limits{Operations: Pair{Total: Limit{Rate: 1}}})
		for _, want := range []time.Duration{time.Second, 0} {
			r := block.Request{Op: block.OpRead, Len: 512, IOV: [][]byte{make([]byte, 512)}, Patience: time.Second}
			r.Done = func(error) {
				if r.Patience != want {
					t.Errorf("patience %v, want %v", r.Patience, want)
				}
			}
			d.Submit(&r)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}
