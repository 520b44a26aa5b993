package uring

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
	"berth/block/raw"
)

// open returns a disk over a new file of size bytes, all of whose requests that
// fit go through the ring if depth is 0.
func open(t testing.TB, size int64, depth int, o raw.FileOptions) *Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return over(t, path, size, depth, o)
}

func over(t testing.TB, path string, size int64, depth int, o raw.FileOptions) *Disk {
	t.Helper()
	f, err := raw.OpenFile(path, o)
	if err != nil {
		t.Fatal(err)
	}
	p := pool.New(f, pool.Options{ReadOnly: o.ReadOnly, Discard: true})
	d, err := New(p, int(f.OSFile().Fd()), size, depth)
	if err != nil {
		t.Skip(err)
	}
	return d
}

// memory returns n pages of memory that begin at a page's start.
func memory(t testing.TB, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n*unit, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

func TestConformance(t *testing.T) {
	for _, depth := range []int{0, DefaultDepth} {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			blocktest.Run(t, func(t *testing.T) block.Disk { return open(t, blocktest.Size, depth, raw.FileOptions{}) })
		})
	}
}

// TestDeepQueue writes and reads pages from many sides at once, past the page
// cache, more than the ring has entries.
func TestDeepQueue(t *testing.T) {
	const pages = 1024
	d := open(t, pages*unit, 0, raw.FileOptions{Direct: true})
	out, in := memory(t, pages), memory(t, pages)
	for i := range out {
		out[i] = byte(i*7 + i>>12)
	}
	for _, c := range []struct {
		op block.Op
		p  []byte
	}{{block.OpWrite, out}, {block.OpRead, in}} {
		var wait sync.WaitGroup
		for _, i := range rand.Perm(pages) {
			wait.Add(1)
			d.Submit(&block.Request{Op: c.op, Off: int64(i) * unit, Len: unit, IOV: [][]byte{c.p[i*unit : (i+1)*unit]}, Done: func(err error) {
				if err != nil {
					t.Error(err)
				}
				wait.Done()
			}})
		}
		wait.Wait()
	}
	if !bytes.Equal(in, out) {
		t.Error("what was written is not read back")
	}
	if d.passed == 0 {
		t.Error("the ring has served nothing")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestWhatTheRingCannotDo: the disk below has the last word.
func TestWhatTheRingCannotDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, 2*unit), 0o600); err != nil {
		t.Fatal(err)
	}
	d := over(t, path, 2*unit, 0, raw.FileOptions{ReadOnly: true})
	p := memory(t, 2)
	if err := blocktest.Do(t, d, block.Request{Op: block.OpWrite, Len: unit, IOV: [][]byte{p[:unit]}}); !errors.Is(err, block.ErrReadOnly) {
		t.Errorf("a write to what is only read: %v", err)
	}
	p[unit] = 0xff
	if err := os.Truncate(path, unit); err != nil {
		t.Fatal(err)
	}
	// The file has become shorter: what the kernel reads is short, and the rest is zeros.
	if err := blocktest.Do(t, d, block.Request{Op: block.OpRead, Len: 2 * unit, IOV: [][]byte{p}}); err != nil || p[unit] != 0 {
		t.Errorf("a short read: %v, %#x", err, p[unit])
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// BenchmarkRandom4K is the pool's and the ring's time for a random page, at
// depths of 1 to 64, in the page cache and past it.
func BenchmarkRandom4K(b *testing.B) {
	const size = 256 << 20
	path := filepath.Join(b.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	for range size >> 20 {
		if _, err := f.Write(bytes.Repeat([]byte{0xa5}, 1<<20)); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		b.Fatal(err)
	}
	for _, direct := range []bool{false, true} {
		for op, name := range map[block.Op]string{block.OpRead: "read", block.OpWrite: "write"} {
			for _, depth := range []int{1, 4, 16, 64} {
				for from, engine := range map[int]string{1 << 30: "pool", DefaultDepth: "both", 0: "ring"} {
					b.Run(fmt.Sprintf("direct=%v/%s/depth=%d/%s", direct, name, depth, engine), func(b *testing.B) {
						d := over(b, path, size, from, raw.FileOptions{Direct: direct})
						random(b, d, op, depth, size)
						if err := d.Close(); err != nil {
							b.Fatal(err)
						}
					})
				}
			}
		}
	}
}

// random keeps depth requests under way, which one goroutine submits as a
// virtqueue's worker does.
func random(b *testing.B, d block.Disk, op block.Op, depth int, size int64) {
	p := memory(b, depth)
	next := make(chan *block.Request, depth)
	for i := range depth {
		r := &block.Request{Op: op, Len: unit, IOV: [][]byte{p[i*unit : (i+1)*unit]}}
		r.Done = func(err error) {
			if err != nil {
				b.Error(err)
			}
			next <- r
		}
		next <- r
	}
	b.SetBytes(unit)
	b.ResetTimer()
	for range b.N {
		r := <-next
		r.Off = rand.Int64N(size/unit) * unit
		d.Submit(r)
	}
	for range depth {
		<-next
	}
	b.StopTimer()
}

// TestWhatTheKernelRefusesGoesBelow has io_uring_enter fail, now and then and
// always: every request completes all the same, and so does Close.
func TestWhatTheKernelRefusesGoesBelow(t *testing.T) {
	const pages = 64
	for name, fails := range map[string]func(call int) error{
		"always": func(int) error { return unix.EPERM },
		"often":  func(call int) error { return []error{unix.EAGAIN, nil, unix.EBUSY, unix.EINTR}[call%4] },
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, pages*unit, 0, raw.FileOptions{Direct: true})
			take, call := d.take, 0
			d.take = func(n int) (int, error) {
				call++
				if err := fails(call); err != nil {
					return 0, err
				}
				return take(n)
			}
			out, in := memory(t, pages), memory(t, pages)
			for i := range out {
				out[i] = byte(i*5 + i>>12)
			}
			for _, p := range []struct {
				op block.Op
				b  []byte
			}{{block.OpWrite, out}, {block.OpRead, in}} {
				var wg sync.WaitGroup
				for i := range pages {
					wg.Add(1)
					d.Submit(&block.Request{Op: p.op, Off: int64(i) * unit, Len: unit, IOV: [][]byte{p.b[i*unit : (i+1)*unit]}, Done: func(err error) {
						if err != nil {
							t.Error(err)
						}
						wg.Done()
					}})
				}
				wg.Wait()
			}
			if !bytes.Equal(in, out) {
				t.Error("what is read is not what was written")
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
