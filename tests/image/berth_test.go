package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"berth/block"
	"berth/block/formats"
	"berth/image"
)

// berth is what is tested, in this process.
type berth struct{}

func (berth) name() string { return "berth" }

func (berth) img(args []string) (int, string) {
	forking.RLock()
	defer forking.RUnlock()
	var out locked
	code := image.Main(context.Background(), append([]string{"qemu-img"}, args...), strings.NewReader(""), &out, &out)
	return code, out.buf.String()
}

// locked is where standard output and error come together.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (berth) io(path, format, _ string, t task) (_ []bool, err error) {
	forking.RLock()
	defer forking.RUnlock()
	n, err := formats.Open(formats.Options{Filename: path, Format: format})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	ok := make([]bool, len(t.requests))
	var wg sync.WaitGroup
	for i, q := range t.requests {
		if t.parallel {
			wg.Go(func() { ok[i] = serve(n.Image, q) == nil })
		} else {
			ok[i] = serve(n.Image, q) == nil
		}
	}
	wg.Wait()
	return ok, nil
}

func serve(i block.Image, q request) error {
	var f block.Flags
	if q.fua {
		f |= block.FlagFUA
	}
	if q.unmap {
		f |= block.FlagUnmap
	}
	switch q.kind {
	case ioWrite:
		p := contents(q.src, q.n)
		half := len(p) / 2
		return i.Writev([][]byte{p[:half], p[half:]}, q.off, f&block.FlagFUA)
	case ioZero:
		if z, ok := i.(block.ZeroWriter); ok {
			return z.WriteZeroes(q.off, q.n, f)
		}
	case ioDiscard:
		if d, ok := i.(block.Discarder); ok {
			return d.Discard(q.off, q.n)
		}
	case ioCompressed:
		if c, ok := i.(block.CompressedWriter); ok {
			return c.WriteCompressed(contents(q.src, q.n), q.off)
		}
	case ioFlush:
		return i.Flush()
	}
	return errors.ErrUnsupported
}

func (berth) read(path, format, snapshot string) (p []byte, err error) {
	forking.RLock()
	defer forking.RUnlock()
	n, err := formats.Open(formats.Options{Filename: path, Format: format, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if snapshot != "" {
		if err := n.Image.(block.Snapshotter).LoadSnapshot(snapshot); err != nil {
			return nil, err
		}
	}
	p = make([]byte, n.Image.Size())
	return p, n.Image.Readv([][]byte{p}, 0)
}

// bitmaps describes an image's bitmaps with what is dirty in each.
func (b berth) bitmaps(path string) (s string, err error) {
	forking.RLock()
	defer forking.RUnlock()
	n, err := formats.Open(formats.Options{Filename: path, Format: "qcow2", ReadOnly: true})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	m, ok := n.Image.(block.Bitmapper)
	if !ok {
		return "", nil
	}
	for _, i := range m.Bitmaps() {
		d := ranges{}
		if err := m.DirtyRanges(i.Name, func(off, n int64) bool { d.add(off, n); return true }); err != nil {
			return "", err
		}
		s += fmt.Sprintf("%+v: %v; ", i, d)
	}
	return s, nil
}

func (b berth) dirty(path, bitmap string) (s string, err error) {
	forking.RLock()
	defer forking.RUnlock()
	n, err := formats.Open(formats.Options{Filename: path, Format: "qcow2", ReadOnly: true})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	m, ok := n.Image.(block.Bitmapper)
	if !ok {
		return "", errors.ErrUnsupported
	}
	d := ranges{}
	err = m.DirtyRanges(bitmap, func(off, n int64) bool { d.add(off, n); return true })
	return d.String(), err
}
