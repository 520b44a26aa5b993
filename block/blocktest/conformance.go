package blocktest

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"berth/block"
)

// Size is the length of the disks that Run asks for.
const Size = 1 << 20

// Run checks the contract of block.Disk. open returns a new disk of Size bytes
// that reads as zeros; Run closes it.
func Run(t *testing.T, open func(t *testing.T) block.Disk) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, block.Disk)
	}{
		{"size", size}, {"zeros at first", zerosAtFirst}, {"read back", readBack},
		{"scatter-gather", scatterGather}, {"many buffers", manyBuffers}, {"empty requests", emptyRequests},
		{"bounds", bounds}, {"flush and FUA", flushFUA}, {"write zeroes", writeZeroes}, {"discard", discard},
		{"zeroes beside writes", zeroesBesideWrites}, {"topology", topology},
		{"unknown operation", unknownOp}, {"concurrent", concurrent}, {"random model", randomModel},
		{"done submits", doneSubmits}, {"end of disk", endOfDisk},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t)
			c.f(t, d)
			if err := d.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	t.Run("close", func(t *testing.T) { closing(t, open(t)) })
}

// Do submits a request and waits for it. It fails the test if Done is called twice.
func Do(t testing.TB, d block.Disk, r block.Request) error {
	t.Helper()
	c := make(chan error, 1)
	var calls atomic.Int32
	r.Done = func(err error) {
		if calls.Add(1) != 1 {
			t.Error("Done called twice")
			return
		}
		c <- err
	}
	d.Submit(&r)
	return <-c
}

func pattern(seed, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(seed + i*7 + i>>8)
	}
	return p
}

func write(t *testing.T, d block.Disk, p []byte, off int64) {
	t.Helper()
	if _, err := block.WriteAt(d, p, off); err != nil {
		t.Fatalf("write of %d at %d: %v", len(p), off, err)
	}
}

func expect(t *testing.T, d block.Disk, want []byte, off int64) {
	t.Helper()
	got := bytes.Repeat([]byte{0xa5}, len(want))
	if _, err := block.ReadAt(d, got, off); err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read of %d at %d: %v", len(got), off, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("read of %d at %d differs from what was written", len(got), off)
	}
}

func size(t *testing.T, d block.Disk) {
	if d.Size() != Size {
		t.Errorf("Size() = %d, want %d", d.Size(), Size)
	}
}

func zerosAtFirst(t *testing.T, d block.Disk) { expect(t, d, make([]byte, Size), 0) }

func readBack(t *testing.T, d block.Disk) {
	for i, off := range []int64{0, 512, 4096, 65536 - 512, Size - 1024} {
		p := pattern(i, 1024)
		write(t, d, p, off)
		expect(t, d, p, off)
	}
	p := pattern(9, Size)
	write(t, d, p, 0)
	expect(t, d, p, 0)
}

func scatterGather(t *testing.T, d block.Disk) {
	p := pattern(3, 4096)
	out := [][]byte{p[:1], p[1:1], p[1:513], p[513:2048], p[2048:]}
	if err := Do(t, d, block.Request{Op: block.OpWrite, Off: 1536, Len: 4096, IOV: out}); err != nil {
		t.Fatal(err)
	}
	q := make([]byte, 4096)
	in := [][]byte{q[:700], q[700:701], q[701:4000], q[4000:]}
	if err := Do(t, d, block.Request{Op: block.OpRead, Off: 1536, Len: 4096, IOV: in}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, q) {
		t.Error("gathered data differs from what was scattered")
	}
}

// manyBuffers is more than one preadv or pwritev takes.
func manyBuffers(t *testing.T, d block.Disk) {
	p, q := pattern(5, 64<<10), make([]byte, 64<<10)
	var out, in [][]byte
	for i := 0; i < len(p); i += 16 {
		out, in = append(out, p[i:i+16]), append(in, q[i:i+16])
	}
	if err := Do(t, d, block.Request{Op: block.OpWrite, Off: 512, Len: int64(len(p)), IOV: out}); err != nil {
		t.Fatal(err)
	}
	if err := Do(t, d, block.Request{Op: block.OpRead, Off: 512, Len: int64(len(q)), IOV: in}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, q) {
		t.Error("data differs")
	}
}

func emptyRequests(t *testing.T, d block.Disk) {
	for _, op := range []block.Op{block.OpRead, block.OpWrite, block.OpDiscard, block.OpWriteZeroes} {
		if err := Do(t, d, block.Request{Op: op, Off: Size}); err != nil && !errors.Is(err, block.ErrUnsupported) {
			t.Errorf("op %d of no bytes: %v", op, err)
		}
	}
}

func bounds(t *testing.T, d block.Disk) {
	write(t, d, pattern(1, 512), Size-512)
	for _, op := range []block.Op{block.OpRead, block.OpWrite, block.OpDiscard, block.OpWriteZeroes} {
		for _, r := range [][2]int64{{Size, 512}, {Size - 512, 1024}, {-512, 512}, {1<<63 - 512, 512}, {1 << 62, 1 << 10}} {
			err := Do(t, d, block.Request{Op: op, Off: r[0], Len: r[1], IOV: [][]byte{make([]byte, r[1])}})
			if !errors.Is(err, block.ErrRange) && (op < block.OpDiscard || !errors.Is(err, block.ErrUnsupported)) {
				t.Errorf("op %d at %d+%d: %v, want ErrRange", op, r[0], r[1], err)
			}
		}
	}
	if err := Do(t, d, block.Request{Op: block.OpRead, Len: 1024, IOV: [][]byte{make([]byte, 512)}}); err == nil {
		t.Error("a read longer than its buffers was accepted")
	}
	expect(t, d, pattern(1, 512), Size-512)
}

func flushFUA(t *testing.T, d block.Disk) {
	p := pattern(2, 2048)
	if err := Do(t, d, block.Request{Op: block.OpWrite, Flags: block.FlagFUA, Off: 512, Len: 2048, IOV: [][]byte{p}}); err != nil {
		t.Errorf("FUA write: %v", err)
	}
	expect(t, d, p, 512)
	if err := block.Flush(d); err != nil {
		t.Errorf("flush: %v", err)
	}
	expect(t, d, p, 512)
}

func unknownOp(t *testing.T, d block.Disk) {
	if err := Do(t, d, block.Request{Op: 200}); !errors.Is(err, block.ErrUnsupported) {
		t.Errorf("unknown operation: %v, want ErrUnsupported", err)
	}
}

func concurrent(t *testing.T, d block.Disk) {
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			off := int64(g) * (Size / 16)
			for i := range 20 {
				p, q := pattern(g*31+i, 8192), make([]byte, 8192)
				if _, err := block.WriteAt(d, p, off+int64(i)*512); err != nil {
					t.Error(err)
				}
				if i%7 == 0 {
					if err := block.Flush(d); err != nil {
						t.Error(err)
					}
				}
				if _, err := block.ReadAt(d, q, off+int64(i)*512); err != nil || !bytes.Equal(p, q) {
					t.Errorf("goroutine %d lost its write (%v)", g, err)
				}
			}
		}()
	}
	wg.Wait()
}

// doneSubmits submits the next request from Done, as a chain of dependent writes does.
func doneSubmits(t *testing.T, d block.Disk) {
	end := make(chan error, 1)
	p := pattern(8, 512)
	r := block.Request{Op: block.OpWrite, Len: 512, IOV: [][]byte{p}}
	left := 50
	r.Done = func(err error) {
		if left--; err != nil || left == 0 {
			end <- err
			return
		}
		r.Off += 512
		d.Submit(&r)
	}
	d.Submit(&r)
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	expect(t, d, p, 49*512)
}

func endOfDisk(t *testing.T, d block.Disk) {
	p := make([]byte, 1024)
	if n, err := block.ReadAt(d, p, Size-512); n != 512 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt across the end = %d, %v", n, err)
	}
	if n, err := block.ReadAt(d, p, Size); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt at the end = %d, %v", n, err)
	}
}

// closing checks that Close completes what is in flight and that nothing works after it.
func closing(t *testing.T, d block.Disk) {
	var done atomic.Int32
	for i := range 64 {
		p := pattern(i, 4096)
		d.Submit(&block.Request{Op: block.OpWrite, Off: int64(i) * 4096, Len: 4096, IOV: [][]byte{p}, Done: func(err error) {
			if err != nil {
				t.Error(err)
			}
			done.Add(1)
		}})
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if done.Load() != 64 {
		t.Errorf("%d of 64 requests had completed when Close returned", done.Load())
	}
	for op := block.OpRead; op <= block.OpWriteZeroes; op++ {
		if err := Do(t, d, block.Request{Op: op}); !errors.Is(err, block.ErrClosed) {
			t.Errorf("op %d after Close: %v, want ErrClosed", op, err)
		}
	}
	if err := d.Close(); !errors.Is(err, block.ErrClosed) {
		t.Errorf("second Close: %v, want ErrClosed", err)
	}
}
