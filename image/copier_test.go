package image

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/formats"
	"berth/block/mapped/mappedtest"
)

// faulty is an image of which some sectors cannot be read.
type faulty struct {
	*blocktest.MemFile
	bad map[int64]bool
}

func (f *faulty) Readv(iov [][]byte, off int64) error {
	for _, p := range iov {
		for at := off / sector * sector; at < off+int64(len(p)); at += sector {
			if f.bad[at] {
				return syscall.EIO
			}
		}
	}
	return f.MemFile.Readv(iov, off)
}

// lazy is an image that a write cannot be made to; the first does not come back until the test lets it.
type lazy struct {
	*blocktest.MemFile
	begun, let chan struct{}
	once       sync.Once
}

func (l *lazy) Writev(iov [][]byte, off int64, f block.Flags) error {
	l.once.Do(func() {
		close(l.begun)
		<-l.let
	})
	return l.MemFile.Writev(iov, off, f)
}

func quietCopier(t *testing.T, from block.Image, to block.Image) *copier {
	t.Helper()
	c := &call{ctx: context.Background()}
	p := newProgress(c, false, 1)
	t.Cleanup(p.end)
	return &copier{parts: []part{{chain: chain{{Image: from}}, size: roundUp(from.Size(), sector), align: sector}}, total: roundUp(from.Size(), sector),
		target: to, zeroed: true, backingSize: -1, inOrder: true, sparse: 4096, align: 4096, workers: 4, progress: p}
}

// contents are n bytes, of which half are zeros in runs of any length.
func contents(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for at := 0; at < n; {
		run := min(n-at, 1+r.IntN(1<<r.IntN(20)))
		if r.IntN(2) == 0 {
			for i := range run {
				p[at+i] = byte(1 + r.IntN(255))
			}
		}
		at += run
	}
	return p
}

func TestCopierCopiesEverything(t *testing.T) {
	for seed := range uint64(40) {
		want := contents(seed, int(1000+seed*200_001)/sector*sector)
		to := blocktest.NewMemFile(nil)
		if err := to.Truncate(int64(len(want))); err != nil {
			t.Fatal(err)
		}
		k := quietCopier(t, blocktest.NewMemFile(want), to)
		k.sparse = []int64{0, 512, 4096, 1 << 20, 16 << 20}[seed%5]
		k.inOrder = seed%2 == 0
		if err := k.run(context.Background()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(to.Bytes(), want) {
			t.Fatalf("seed %d: the copy is another", seed)
		}
	}
}

func TestSalvageMakesZerosOfWhatCannotBeRead(t *testing.T) {
	want := contents(3, 1<<20)
	from := &faulty{MemFile: blocktest.NewMemFile(want), bad: map[int64]bool{1024: true, 600 << 10: true}}
	for off := range from.bad {
		clear(want[off : off+sector])
	}
	to := blocktest.NewMemFile(make([]byte, len(want)))
	k := quietCopier(t, from, to)
	err := k.run(context.Background())
	if err == nil || !strings.HasPrefix(err.Error(), "error while reading at byte ") || !strings.HasSuffix(err.Error(), ": Input/output error") {
		t.Errorf("without salvage: error %v", err)
	}
	k = quietCopier(t, from, to)
	k.salvage = true
	var said []string
	var mu sync.Mutex
	k.warn = func(text string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, text)
	}
	if err := k.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(to.Bytes(), want) {
		t.Error("the copy is another")
	}
	if len(said) != 2 || !strings.HasSuffix(said[0], ": Input/output error") {
		t.Errorf("warnings %q", said)
	}
}

func TestCopierStopsWhenItIsTold(t *testing.T) {
	from := blocktest.NewMemFile(contents(5, 8<<20))
	to := &lazy{MemFile: blocktest.NewMemFile(make([]byte, 8<<20)), begun: make(chan struct{}), let: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	k := quietCopier(t, from, to)
	ended := make(chan error)
	go func() { ended <- k.run(ctx) }()
	<-to.begun
	cancel()
	for { // until the copier has heard of it
		k.mu.Lock()
		heard := k.err != nil
		k.mu.Unlock()
		if heard {
			break
		}
	}
	close(to.let)
	if err := <-ended; !errors.Is(err, errInterrupted) {
		t.Errorf("error %v", err)
	}
	if bytes.Equal(to.Bytes(), from.Bytes()) {
		t.Error("everything was copied")
	}
}

// TestDataRun checks every division of a buffer: no data is left out, and zeros
// are divided from it only where there are enough.
func TestDataRun(t *testing.T) {
	for seed := range uint64(200) {
		p := contents(seed, 64<<10)
		r := rand.New(rand.NewPCG(seed, 2))
		least, align := sector<<r.IntN(7), sector<<r.IntN(5)
		off := int64(r.IntN(100)) * sector
		for at := 0; at < len(p); {
			n, data := dataRun(p[at:], off+int64(at), least, align)
			if n <= 0 || n%sector != 0 && at+n != len(p) {
				t.Fatalf("seed %d: %d bytes at %d", seed, n, at)
			}
			if !data && !isZero(p[at:at+n]) {
				t.Fatalf("seed %d: data is left out at %d", seed, at)
			}
			at += n
		}
	}
}

func TestEqualRun(t *testing.T) {
	a := contents(1, 3000)
	b := bytes.Clone(a)
	if n, equal := equalRun(a, b); n != 3000 || !equal {
		t.Errorf("the same: %d, %v", n, equal)
	}
	b[1100]++
	if n, equal := equalRun(a, b); n != 1024 || !equal {
		t.Errorf("another in the third sector: %d, %v", n, equal)
	}
	if n, equal := equalRun(a[1024:], b[1024:]); n != 512 || equal {
		t.Errorf("another in the first sector: %d, %v", n, equal)
	}
}

// What qcow2 has stored as it is read is copied by the kernel out of its file, too.
func TestOffloadOutOfQcow2(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	want := contents(3, 2<<20)
	if err := os.WriteFile(to, want, 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if status := Main(t.Context(), []string{"qemu-img", "convert", "-f", "raw", "-O", "qcow2", to, from}, nil, &said, &said); status != 0 {
		t.Fatal(said.String())
	}
	if err := os.Truncate(to, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(to, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	source, err := formats.Open(formats.Options{Filename: from, Format: "qcow2", ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = source.Close() }()
	target, err := formats.Open(formats.Options{Filename: to, Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	k := quietCopier(t, source.Image, target.Image)
	k.parts[0].chain, k.parts[0].align = chainOf(source), 65536
	k.offload.Store(true)
	if err := errors.Join(k.run(t.Context()), target.Close()); err != nil {
		t.Fatal(err)
	}
	if !k.offload.Load() {
		t.Error("the kernel has not copied everything")
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy differs (%v)", err)
	}
}

// What a truncated image of another monitor has lost is not copied as zeros, by the kernel neither.
func TestOffloadOutOfTruncated(t *testing.T) {
	mappedtest.Need(t)
	for _, o := range []string{"static=off", "static=on"} {
		path := mappedtest.Convert(t, mappedtest.Source(t, 1, 4<<20), "vdi", o)
		st, err := os.Stat(path)
		if err == nil {
			err = os.Truncate(path, st.Size()-1<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range []string{"-q", "-C"} {
			var said bytes.Buffer
			to := filepath.Join(t.TempDir(), "to")
			if status := Main(t.Context(), []string{"qemu-img", "convert", q, "-f", "vdi", "-O", "raw", path, to}, nil, &said, &said); status == 0 {
				t.Errorf("%s %s: a truncated image was converted: %s", o, q, &said)
			}
		}
	}
}
