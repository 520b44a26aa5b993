package image

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"berth/block"
	"berth/block/formats"
)

// bench is the command that measures how fast an image is read or written.
type bench struct {
	source                          source
	cache                           string
	count, depth, interval, pattern int
	offset, size, step              int64 // bytes
	quiet, native, write, undrained bool
}

func (b *bench) options(c *call) []option {
	b.cache, b.count, b.depth, b.size = "writeback", 75000, 64, 4096
	number := func(short byte, long, what string, most uint64, p *int) option {
		return option{short: short, long: long, set: func(v string) error {
			n, ok := unsigned(v)
			if !ok || n > most {
				return failure("Invalid %s specified", what)
			}
			*p = int(n)
			return nil
		}}
	}
	size := func(short byte, what string, most int64, p *int64) option {
		return option{short: short, set: func(v string) (err error) {
			*p, err = c.number(what, v, 0, most)
			return err
		}}
	}
	return append([]option{mark(0, "image-opts", &b.source.imageOpts)},
		b.source.formatOption(""), mark('U', "force-share", &b.source.share), mark('q', "", &b.quiet), mark('n', "", &b.native),
		mark('w', "", &b.write), mark(0, "no-drain", &b.undrained),
		number('c', "", "request count", math.MaxInt32, &b.count), number('d', "", "queue depth", math.MaxInt32, &b.depth),
		number(0, "pattern", "pattern byte", 0xff, &b.pattern), number(0, "flush-interval", "flush interval", math.MaxInt32, &b.interval),
		size('o', "offset", math.MaxInt64, &b.offset), size('s', "buffer size", math.MaxInt32, &b.size),
		size('S', "step_size", math.MaxInt32, &b.step),
		option{short: 'i', set: b.setAIO}, option{short: 't', set: b.setCache})
}

// unsigned reads what C's strtoul does with base 0.
func unsigned(v string) (uint64, bool) {
	text, err := canonicalNumber("", v)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

func (b *bench) setAIO(v string) error {
	switch v {
	case "threads", "io_uring":
	case "native":
		b.native = true
	default:
		return failure("Invalid aio option: %s", v)
	}
	return nil
}

func (b *bench) setCache(v string) error {
	mode, err := cacheMode(v, "")
	if err != nil {
		return failure("Invalid cache mode")
	}
	b.cache = mode
	return nil
}

func (b *bench) run(c *call, operands []string) error {
	name, err := oneImage(operands)
	if err != nil {
		return err
	}
	b.source.file = name
	switch {
	case !b.write && b.interval != 0:
		return failure("--flush-interval is only available in write tests")
	case b.interval != 0 && b.interval < b.depth:
		return failure("Flush interval can't be smaller than depth")
	}
	n, err := c.open(b.source, formats.Options{ReadOnly: !b.write, Cache: b.cache})
	if err != nil {
		return err
	}
	if b.native && b.cache != "none" && b.cache != "directsync" {
		err = failure("Could not open '%s': aio=native was specified, but it requires cache.direct=on, which was not specified.", name)
	} else {
		err = b.measure(c, n.Image, n.WriteThrough)
	}
	if e := n.Close(); err == nil && e != nil {
		err = failure("Failed request: %s", strerror(errno(e)))
	}
	return err
}

func (b *bench) measure(c *call, image block.Image, through bool) error {
	if b.step == 0 {
		b.step = b.size
	}
	kind := "read"
	if b.write {
		kind = "write"
	}
	c.printf("Sending %d %s requests, %d bytes each, %d in parallel (starting at offset %d, step size %d)\n",
		b.count, kind, b.size, b.depth, b.offset, b.step)
	if b.interval != 0 {
		c.printf("Sending flush every %d requests\n", b.interval)
	}
	l := newLoad(b, image)
	if through {
		l.flags = block.FlagFUA
	}
	begun := time.Now()
	if err := l.run(); err != nil {
		return err
	}
	c.printf("Run completed in %3.3f seconds.\n", time.Since(begun).Seconds())
	return nil
}

// load is the requests of one run of bench. Its workers take turns at taking
// the next request, and each has one in flight.
type load struct {
	bench   *bench
	image   block.Image
	size    int64 // bytes, of the image
	flags   block.Flags
	buffers [][][]byte
	taken   atomic.Int64
	failed  atomic.Pointer[message]
	flushes sync.WaitGroup
}

func newLoad(b *bench, image block.Image) *load {
	l := &load{bench: b, image: image, size: (image.Size() + sector - 1) / sector * sector}
	all := alignedBuffer(b.depth * int(b.size))
	for i := range all {
		all[i] = byte(b.pattern)
	}
	for i := range b.depth {
		l.buffers = append(l.buffers, [][]byte{all[i*int(b.size) : (i+1)*int(b.size)]})
	}
	return l
}

// run sends every request, in batches with a flush behind each if that was asked for.
func (l *load) run() error {
	b := l.bench
	for left := b.count; left > 0; {
		n := left
		drained := b.interval != 0 && !b.undrained
		if drained && left > b.depth {
			n = left - (left-b.depth)/b.interval*b.interval
		}
		l.batch(int64(b.count-left), int64(b.count-left+n))
		left -= n
		if drained {
			l.flush()
		}
		if m := l.failed.Load(); m != nil {
			return m
		}
	}
	return nil
}

// batch sends the requests from first up to end.
func (l *load) batch(first, end int64) {
	l.taken.Store(first)
	var all sync.WaitGroup
	for i := range min(int64(l.bench.depth), end-first) {
		all.Go(func() { l.work(l.buffers[i], end) })
	}
	all.Wait()
	l.flushes.Wait()
}

func (l *load) work(iov [][]byte, end int64) {
	b := l.bench
	for l.failed.Load() == nil {
		i := l.taken.Add(1) - 1
		if i >= end {
			return
		}
		if b.interval != 0 && b.undrained && i != 0 && i%int64(b.interval) == 0 {
			l.flushes.Go(l.flush)
		}
		if err := l.request(iov, l.offset(i)); err != nil {
			l.fail("Failed request: %s", err)
			return
		}
	}
}

// offset is where the i'th request goes.
func (l *load) offset(i int64) int64 {
	if i == 0 || l.size == 0 {
		return l.bench.offset
	}
	return (l.bench.offset%l.size + i*(l.bench.step%l.size)%l.size) % l.size
}

func (l *load) request(iov [][]byte, off int64) error {
	if off+l.bench.size > l.size {
		return block.ErrRange
	}
	if !l.bench.write {
		return l.image.Readv(iov, off)
	}
	return l.image.Writev(iov, off, l.flags)
}

func (l *load) flush() {
	if err := l.image.Flush(); err != nil {
		l.fail("Failed flush request: %s", err)
	}
}

func (l *load) fail(format string, err error) {
	l.failed.CompareAndSwap(nil, &message{text: fmt.Sprintf(format, strerror(errno(err)))})
}
