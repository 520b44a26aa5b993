package backend

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
	"berth/block/throttle"
)

func TestConformance(t *testing.T) {
	for name, o := range map[string]Options{
		"plain":         {},
		"detect zeroes": {DetectZeroes: DetectUnmap},
		"limits":        {Limits: throttle.Limits{Operations: throttle.Pair{Total: throttle.Limit{Rate: 1e15}}}},
	} {
		t.Run(name, func(t *testing.T) {
			blocktest.Run(t, func(*testing.T) block.Disk { return New(Root{"node0", blocktest.NewMem(blocktest.Size)}, o) })
		})
	}
}

// watched notes the operations that reach the disk.
type watched struct {
	block.Disk
	mu  sync.Mutex
	ops []block.Request
}

func (w *watched) Submit(r *block.Request) {
	w.mu.Lock()
	w.ops = append(w.ops, *r)
	w.mu.Unlock()
	w.Disk.Submit(r)
}

func TestDetectZeroes(t *testing.T) {
	zeros, ones := [][]byte{make([]byte, 512), {}, make([]byte, 4096)}, [][]byte{make([]byte, 512), append(make([]byte, 4095), 1)}
	first := [][]byte{append([]byte{1}, make([]byte, 4607)...)}
	for _, c := range []struct {
		name  string
		mode  DetectZeroes
		iov   [][]byte
		flags block.Flags
		want  block.Op
		with  block.Flags
	}{
		{"off", DetectOff, zeros, 0, block.OpWrite, 0},
		{"on", DetectOn, zeros, 0, block.OpWriteZeroes, 0},
		{"unmap", DetectUnmap, zeros, block.FlagFUA, block.OpWriteZeroes, block.FlagFUA | block.FlagUnmap},
		{"the last byte is not zero", DetectOn, ones, 0, block.OpWrite, 0},
		{"the first byte is not zero", DetectOn, first, 0, block.OpWrite, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &watched{Disk: blocktest.NewMem(1 << 20)}
			b := New(Root{"n", w}, Options{DetectZeroes: c.mode})
			if err := blocktest.Do(t, b, block.Request{Op: block.OpWrite, Flags: c.flags, Len: 4608, IOV: c.iov}); err != nil {
				t.Fatal(err)
			}
			if r := w.ops[0]; r.Op != c.want || r.Flags != c.with || r.Len != 4608 {
				t.Errorf("operation %d, flags %d, %d bytes", r.Op, r.Flags, r.Len)
			}
			if s := b.Stats(); s.Write.Operations != 1 || s.Write.Bytes != 4608 || s.HighestWrite != 4608 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestZeroesThatCannotBeWritten: a disk that knows no write-zeroes gets the write,
// and is not asked again.
func TestZeroesThatCannotBeWritten(t *testing.T) {
	w := &watched{Disk: &blocktest.Faulty{Disk: blocktest.NewMem(1 << 20), Fail: func(r *block.Request) error {
		if r.Op == block.OpWriteZeroes {
			return block.ErrUnsupported
		}
		return nil
	}}}
	b := New(Root{"n", w}, Options{DetectZeroes: DetectOn})
	for range 2 {
		if _, err := block.WriteAt(b, make([]byte, 512), 0); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.ops) != 3 || w.ops[1].Op != block.OpWrite || w.ops[2].Op != block.OpWrite {
		t.Errorf("%v", w.ops)
	}
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := &blocktest.Stalled{Disk: &blocktest.Faulty{Disk: blocktest.NewMem(1 << 20), Fail: func(r *block.Request) error {
			if r.Off == 1<<19 {
				return errors.New("broken")
			}
			return nil
		}}}
		b := New(Root{"n", stalled}, Options{})
		if s := b.Stats(); s.Idle >= 0 {
			t.Errorf("idle since %v although nothing ever happened", s.Idle)
		}
		for _, r := range []block.Request{
			{Op: block.OpRead, Len: 512, IOV: [][]byte{make([]byte, 512)}},
			{Op: block.OpWrite, Off: 4096, Len: 1024, IOV: [][]byte{make([]byte, 1024)}},
			{Op: block.OpWrite, Off: 1 << 19, Len: 512, IOV: [][]byte{make([]byte, 512)}},
			{Op: block.OpWriteZeroes, Off: 512, Len: 512},
			{Op: block.OpDiscard, Len: 2048},
			{Op: block.OpFlush},
		} {
			r.Done = func(error) {}
			b.Submit(&r)
		}
		time.Sleep(time.Second)
		stalled.Release()
		b.Invalid(block.OpWrite)
		time.Sleep(time.Minute)
		want := Stats{
			Read:         Kind{Operations: 1, Bytes: 512, Time: time.Second},
			Write:        Kind{Operations: 2, Bytes: 1536, Failed: 1, Invalid: 1, Time: 3 * time.Second},
			Unmap:        Kind{Operations: 1, Bytes: 2048, Time: time.Second},
			Flush:        Kind{Operations: 1, Time: time.Second},
			HighestWrite: 5120,
			Idle:         time.Minute,
		}
		if got := b.Stats(); got != want {
			t.Errorf("%+v\nwant %+v", got, want)
		}
	})
}

// TestReplace copies a disk under requests that go on: none fails, none is lost.
func TestReplace(t *testing.T) {
	const size = 1 << 16
	b := New(Root{"first", blocktest.NewMem(size)}, Options{Limits: throttle.Limits{Operations: throttle.Pair{Write: throttle.Limit{Rate: 1e6}}}})
	var stop atomic.Bool
	var written [8]byte
	var writers sync.WaitGroup
	for i := range written {
		writers.Go(func() {
			for !stop.Load() {
				written[i]++
				p := [512]byte{written[i]}
				if _, err := block.WriteAt(b, p[:], int64(i)*4096); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 50 {
		next := blocktest.NewMem(size)
		b.Drain()
		p := make([]byte, size)
		if _, err := block.ReadAt(b.current().Disk, p, 0); err != nil {
			t.Error(err)
		}
		if _, err := block.WriteAt(next, p, 0); err != nil {
			t.Error(err)
		}
		old, err := b.Replace(Root{"next", next})
		if err != nil {
			t.Error(err)
		}
		if err := old.Disk.Close(); err != nil {
			t.Error(err)
		}
		b.Resume()
	}
	stop.Store(true)
	writers.Wait()
	var p [1]byte
	for i, want := range written {
		if _, err := block.ReadAt(b, p[:], int64(i)*4096); err != nil || p[0] != want {
			t.Errorf("writer %d: %d, want %d: %v", i, p[0], want, err)
		}
	}
	if b.Node() != "next" {
		t.Errorf("node %q", b.Node())
	}
}

func TestReplaceRefuses(t *testing.T) {
	b := New(Root{"first", blocktest.NewMem(4096)}, Options{})
	if _, err := b.Replace(Root{"next", blocktest.NewMem(4096)}); err == nil {
		t.Error("a root is replaced under way")
	}
	b.Drain()
	if _, err := b.Replace(Root{"next", blocktest.NewMem(8192)}); err == nil || !strings.Contains(err.Error(), `node "next" has 8192 bytes`) {
		t.Errorf("another size: %v", err)
	}
	b.Resume()
}

// TestDrain: it waits for what is under way, lets no limit hold that up, keeps
// what comes, and Submit does not wait for it.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := &blocktest.Stalled{Disk: blocktest.NewMem(1 << 20)}
		b := New(Root{"n", stalled}, Options{Limits: throttle.Limits{Operations: throttle.Pair{Total: throttle.Limit{Rate: 1}}}})
		done := 0
		submit := func() {
			b.Submit(&block.Request{Op: block.OpDiscard, Len: 512, Done: func(error) { done++ }})
		}
		for range 5 {
			submit()
		}
		drained := false
		go func() { b.Drain(); drained = true }()
		synctest.Wait()
		if stalled.Held() != 5 || drained {
			t.Errorf("%d have reached the disk; drained: %v", stalled.Held(), drained)
		}
		submit()
		stalled.Release()
		synctest.Wait()
		if !drained || done != 5 || stalled.Held() != 0 {
			t.Errorf("drained: %v, %d done, %d held", drained, done, stalled.Held())
		}
		b.Resume()
		time.Sleep(time.Hour)
		stalled.Release()
		if done != 6 {
			t.Errorf("%d done", done)
		}
	})
}

func TestAbandon(t *testing.T) {
	b := New(Root{"n", blocktest.NewMem(1 << 20)}, Options{})
	b.Drain()
	var got error
	b.Submit(&block.Request{Op: block.OpFlush, Done: func(err error) { got = err }})
	b.Abandon()
	if !errors.Is(got, block.ErrClosed) {
		t.Errorf("what waited: %v", got)
	}
	if err := block.Flush(b); !errors.Is(err, block.ErrClosed) {
		t.Errorf("what comes: %v", err)
	}
}

func TestNoRequestAllocates(t *testing.T) {
	b := New(Root{"n", blocktest.NewMem(1 << 20)}, Options{DetectZeroes: DetectOn})
	r := &block.Request{Op: block.OpRead, Len: 512, IOV: [][]byte{make([]byte, 512)}, Done: func(error) {}}
	if n := testing.AllocsPerRun(100, func() { b.Submit(r) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestFirstFailureIsTold: the host hears of it once, the guest each time.
func TestFirstFailureIsTold(t *testing.T) {
	full := &blocktest.Faulty{Disk: blocktest.NewMem(1 << 20), Fail: func(r *block.Request) error {
		switch r.Op {
		case block.OpWrite:
			return unix.ENOSPC
		case block.OpDiscard:
			return block.ErrUnsupported
		}
		return nil
	}}
	var told []string
	b := New(Root{"n", full}, Options{Failed: func(op block.Op, err error, first bool) { told = append(told, fmt.Sprint(op, " ", err, " ", first)) }})
	for _, op := range []block.Op{block.OpDiscard, block.OpRead, block.OpWrite, block.OpWrite} {
		err := blocktest.Do(t, b, block.Request{Op: op, Len: 512, IOV: [][]byte{make([]byte, 512)}})
		if op == block.OpWrite && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("a write to a full disk: %v", err)
		}
	}
	if want := []string{"write no space left on device true", "write no space left on device false"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// TestSetLimits: limits come and go while requests wait for them.
func TestSetLimits(t *testing.T) {
	b := New(Root{"n", blocktest.NewMem(1 << 20)}, Options{})
	defer b.Close()
	one := throttle.Limits{Operations: throttle.Pair{Total: throttle.Limit{Rate: 1}}}
	b.SetLimits(one)
	if got := b.Limits(); got != one {
		t.Errorf("limits %+v", got)
	}
	done := make(chan error, 3)
	for range 3 { // a tenth of a second's may come at once: less than one, and it
		b.Submit(&block.Request{Op: block.OpRead, Len: 512, IOV: [][]byte{make([]byte, 512)}, Done: func(err error) { done <- err }})
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the first waits")
	}
	select {
	case <-done:
		t.Fatal("the second does not wait")
	case <-time.After(50 * time.Millisecond):
	}
	b.SetLimits(throttle.Limits{})
	for range 2 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(500 * time.Millisecond):
			t.Fatal("it waits without limits")
		}
	}
}

// TestResize: parked requests are held against the new length, and who wants to know is told.
func TestResize(t *testing.T) {
	f := blocktest.NewMemFile(nil)
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	b := New(Root{"n", pool.New(f, pool.Options{})}, Options{Limits: throttle.Limits{Operations: throttle.Pair{Total: throttle.Limit{Rate: 1e15}}}})
	defer b.Close()
	var sizes []int64
	b.OnResize(func() { sizes = append(sizes, b.Size()) })
	read := func(off int64) block.Request {
		return block.Request{Op: block.OpRead, Off: off, Len: 512, IOV: [][]byte{make([]byte, 512)}}
	}
	for _, c := range []struct {
		size int64
		ok   bool // a read of what lies at 1 MiB
	}{{2 << 20, true}, {512 << 10, false}, {512 << 10, false}} {
		if err := b.Resize(c.size); err != nil {
			t.Fatal(err)
		}
		if err := blocktest.Do(t, b, read(1<<20)); (err == nil) != c.ok {
			t.Errorf("%d bytes: %v", c.size, err)
		}
	}
	for _, size := range []int64{0, -512, 1000} {
		if err := b.Resize(size); err == nil {
			t.Errorf("%d bytes are a disk", size)
		}
	}
	if len(sizes) != 2 || sizes[0] != 2<<20 || sizes[1] != 512<<10 {
		t.Errorf("told of %v", sizes)
	}
	if err := New(Root{"n", blocktest.NewMem(512)}, Options{}).Resize(1024); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("a disk that has but one size: %v", err)
	}
}
