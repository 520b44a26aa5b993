package pool

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/block"
	"berth/block/blocktest"
)

// plain is an image with nothing but the methods of block.Image.
type plain struct{ block.Image }

func memory(t testing.TB) *blocktest.MemFile {
	t.Helper()
	m := blocktest.NewMemFile(nil)
	if err := m.Truncate(blocktest.Size); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConformance(t *testing.T) {
	for _, o := range []Options{{}, {Workers: 1}, {Discard: true, WriteThrough: true}} {
		blocktest.Run(t, func(t *testing.T) block.Disk { return New(memory(t), o) })
		blocktest.Run(t, func(t *testing.T) block.Disk { return New(plain{memory(t)}, o) })
	}
}

// flagged notes the flags of what reaches the image.
type flagged struct {
	*blocktest.MemFile
	mu       sync.Mutex
	flags    []block.Flags
	discards int
}

func (f *flagged) note(x block.Flags) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flags = append(f.flags, x)
}

func (f *flagged) Writev(iov [][]byte, off int64, x block.Flags) error {
	f.note(x)
	return f.MemFile.Writev(iov, off, x)
}

func (f *flagged) WriteZeroes(off, n int64, x block.Flags) error {
	f.note(x)
	return f.MemFile.WriteZeroes(off, n, x)
}

func (f *flagged) Discard(off, n int64) error {
	f.discards++
	return f.MemFile.Discard(off, n)
}

func TestOptionsChangeWhatReachesTheImage(t *testing.T) {
	for _, c := range []struct {
		o        Options
		write    block.Flags
		zero     block.Flags
		discards int
	}{
		{Options{}, 0, 0, 0},
		{Options{WriteThrough: true}, block.FlagFUA, block.FlagFUA, 0},
		{Options{Discard: true}, 0, block.FlagUnmap, 1},
	} {
		f := &flagged{MemFile: memory(t)}
		d := New(f, c.o)
		for _, r := range []block.Request{
			{Op: block.OpWrite, Len: 512, IOV: [][]byte{make([]byte, 512)}},
			{Op: block.OpWriteZeroes, Len: 512, Flags: block.FlagUnmap},
			{Op: block.OpDiscard, Len: 512},
		} {
			if err := blocktest.Do(t, d, r); err != nil {
				t.Errorf("%+v: op %d: %v", c.o, r.Op, err)
			}
		}
		if f.flags[0] != c.write || f.flags[1] != c.zero || f.discards != c.discards {
			t.Errorf("%+v: flags %v, %d discards", c.o, f.flags, f.discards)
		}
		d.Close()
	}
}

func TestZeroesWithoutFallbackOnAnImageThatKnowsNone(t *testing.T) {
	d := New(plain{memory(t)}, Options{})
	defer d.Close()
	if err := blocktest.Do(t, d, block.Request{Op: block.OpWriteZeroes, Len: 512, Flags: block.FlagNoFallback}); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// stuck is an image whose reads wait until it is abandoned.
type stuck struct {
	block.Image
	gone chan struct{}
}

func (s *stuck) Readv([][]byte, int64) error { <-s.gone; return block.ErrClosed }
func (s *stuck) Abandon()                    { close(s.gone) }

func TestAbandonReachesTheImageAndWhatIsQueued(t *testing.T) {
	d := New(&stuck{memory(t), make(chan struct{})}, Options{Workers: 2})
	const n = 64
	errs := make(chan error, n)
	for range n {
		d.Submit(&block.Request{Op: block.OpRead, Len: 512, IOV: [][]byte{make([]byte, 512)}, Done: func(err error) { errs <- err }})
	}
	d.Abandon()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := <-errs; !errors.Is(err, block.ErrClosed) {
			t.Errorf("%v", err)
		}
	}
}

func TestRequestsCostNoAllocation(t *testing.T) {
	d := New(memory(t), Options{Workers: 1})
	defer d.Close()
	done := make(chan error, 1)
	r := block.Request{Op: block.OpWrite, Len: 4096, IOV: [][]byte{bytes.Repeat([]byte{1}, 4096)}, Done: func(err error) { done <- err }}
	submit := func() {
		d.Submit(&r)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	submit()
	if n := testing.AllocsPerRun(200, submit); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// slow is an image whose reads take their time.
type slow struct {
	block.Image
	takes time.Duration
}

func (s *slow) Readv(iov [][]byte, off int64) error {
	time.Sleep(s.takes)
	return s.Image.Readv(iov, off)
}

// TestQuickRequestsAreDoneInSubmit, as long as their submitter has the patience.
func TestQuickRequestsAreDoneInSubmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &slow{Image: memory(t)}
		d := New(i, Options{})
		const patience = time.Millisecond
		inSubmit := func(p time.Duration) bool {
			var returned, within atomic.Bool
			d.Submit(&block.Request{Patience: p, Len: 512, IOV: [][]byte{make([]byte, 512)}, Done: func(err error) {
				if err != nil {
					t.Error(err)
				}
				within.Store(!returned.Load())
			}})
			returned.Store(true)
			time.Sleep(time.Second)
			return within.Load()
		}
		for range 3 {
			i.takes = patience / 2
			if !inSubmit(patience) {
				t.Fatal("a worker did it")
			}
		}
		i.takes = 2 * patience
		if inSubmit(0) || inSubmit(patience) || inSubmit(patience) {
			t.Error("what takes long was done in Submit")
		}
		if !inSubmit(3 * patience) {
			t.Error("a patient one did not get it done")
		}
		i.takes = 0
		if inSubmit(patience) {
			t.Error("one that was quick is taken for the rule")
		}
		for range 50 {
			inSubmit(patience)
		}
		if !inSubmit(patience) {
			t.Error("it is never done in Submit again")
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestWhatMayTakeLongIsAWorkers, however patient its submitter is.
func TestWhatMayTakeLongIsAWorkers(t *testing.T) {
	d := New(memory(t), Options{})
	defer d.Close()
	for _, r := range []block.Request{{Op: block.OpFlush}, {Op: block.OpWrite, Flags: block.FlagFUA}, {Op: block.OpDiscard}, {Op: block.OpWriteZeroes}, {Op: block.OpRead, Len: 1 << 20}} {
		if d.isQuick(&r) {
			t.Errorf("%s, flags %d: done in Submit", r.Op, r.Flags)
		}
	}
	d.options.WriteThrough = true
	if d.isQuick(&block.Request{Op: block.OpWrite}) {
		t.Error("a write that is written through is done in Submit")
	}
}
