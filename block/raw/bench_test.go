package raw

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"berth/block"
	"berth/block/pool"
)

// filled is a file of n bytes that are not zeros, in the page cache.
func filled(b *testing.B, n int) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "disk.img")
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i)
	}
	if err := os.WriteFile(path, p, 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// Beside what package os does with the same bytes.
func BenchmarkFile(b *testing.B) {
	path := filled(b, 64<<20)
	f, err := OpenFile(path, FileOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		iov := [][]byte{make([]byte, size)}
		at := func() int64 { return rand.Int64N(64<<20/int64(size)) * int64(size) }
		for _, c := range []struct {
			name string
			do   func(off int64) error
		}{
			{"read/berth", func(off int64) error { return f.Readv(iov, off) }},
			{"read/os", func(off int64) error { _, err := f.file.ReadAt(iov[0], off); return err }},
			{"write/berth", func(off int64) error { return f.Writev(iov, off, 0) }},
			{"write/os", func(off int64) error { _, err := f.file.WriteAt(iov[0], off); return err }},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, size), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					if err := c.do(at()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// How many workers serve 32 requests in flight best.
func BenchmarkWorkers(b *testing.B) {
	path := filled(b, 256<<20)
	for _, direct := range []bool{false, true} {
		for _, workers := range []int{1, 2, 4, 8, 16, 32} {
			b.Run(fmt.Sprintf("direct=%v/workers=%d", direct, workers), func(b *testing.B) {
				f, err := OpenFile(path, FileOptions{Direct: direct})
				if err != nil {
					b.Skip(err)
				}
				d := pool.New(f, pool.Options{Workers: workers})
				defer d.Close()
				inFlight(b, d, 32, 4<<10)
			})
		}
	}
}

// inFlight reads size bytes at random b.N times, deep requests at once.
func inFlight(b *testing.B, d block.Disk, deep, size int) {
	b.SetBytes(int64(size))
	var wg sync.WaitGroup
	left := make(chan struct{}, b.N)
	for range b.N {
		left <- struct{}{}
	}
	close(left)
	b.ResetTimer()
	for range deep {
		wg.Add(1)
		r := &block.Request{Op: block.OpRead, Len: int64(size), IOV: [][]byte{alignedBuffer(size, 4096)}}
		next := func() {
			if _, ok := <-left; !ok {
				wg.Done()
				return
			}
			r.Off = rand.Int64N(d.Size()/int64(size)) * int64(size)
			d.Submit(r)
		}
		r.Done = func(err error) {
			if err != nil {
				b.Error(err)
			}
			next()
		}
		next()
	}
	wg.Wait()
}
