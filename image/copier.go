package image

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"berth/block"
)

// What is to be done with a run of a copy.
type runKind uint8

const (
	runData    runKind = iota // read and written
	runZero                   // made zero
	runBacking                // left to the target's backing image
)

const (
	mostCopied = 2 << 20   // bytes that one step of progress is
	pieceSize  = 512 << 10 // bytes read and written at once: what stays in a CPU's cache between the two
	mostSparse = 16 << 20  // bytes: the greatest sparse size and the greatest piece
)

// part is one of the images that are copied one behind the other.
type part struct {
	chain chain
	start int64 // bytes
	size  int64 // bytes, whole sectors
	align int64 // bytes: the cluster size
}

// copier copies images into another. The fields up to workers are set before run.
type copier struct {
	parts  []part
	total  int64 // bytes
	target block.Image

	zeroed      bool  // the target reads as zeros where it is not written
	compress    bool  // whole clusters, compressed
	backed      bool  // the target has a backing image
	backingSize int64 // bytes, of the target's backing image; -1: unknown
	inOrder     bool  // writes one after the other
	salvage     bool  // what cannot be read becomes zeros
	sparse      int64 // bytes of zeros that make a hole; 0: none are looked for
	align       int64 // bytes that data ends at a multiple of
	cluster     int64 // bytes, of the target; 0: none
	workers     int
	limit       *limiter
	progress    *progress
	count       bool              // the data is counted first, for progress
	warn        func(text string) // of what salvage found

	offload atomic.Bool // the kernel is to copy, until it cannot
	mu      sync.Mutex
	next    int64 // bytes: where the next piece begins
	known   int64 // bytes: kind holds up to here
	kind    runKind
	step    int64     // bytes: the step of progress that is being given out ends here
	given   int64     // pieces given out
	turn    int64     // the piece that is to be written next, in order
	ready   []*hand   // pieces that are prepared, and whose turn has not come: by number, modulo its length
	free    []*hand   // not in use
	space   sync.Cond // turn or err has changed
	copied  int64
	toCopy  int64
	err     error
	scratch int64 // bytes of a worker's buffer
	most    int64 // bytes of a step with data
}

func (k *copier) partAt(off int64) *part {
	for i := range k.parts {
		if p := &k.parts[i]; off < p.start+p.size {
			return p
		}
	}
	return &k.parts[len(k.parts)-1]
}

// run copies everything, or stops at the first error, which it words, or when ctx is done.
func (k *copier) run(ctx context.Context) error {
	k.scratch, k.most = mostCopied, mostCopied
	if k.sparse <= pieceSize {
		k.scratch = pieceSize
	}
	if k.compress {
		if k.cluster <= 0 || k.cluster > mostSparse {
			return failure("invalid cluster size")
		}
		k.scratch, k.most = k.cluster, k.cluster
		k.workers = max(k.workers, runtime.NumCPU())
	}
	if err := k.countData(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { k.fail(errInterrupted) })
	defer stop()
	var all sync.WaitGroup
	k.space.L = &k.mu
	k.ready = make([]*hand, 2*k.workers+2)
	for range k.workers {
		all.Go(k.work)
	}
	all.Wait()
	return k.err
}

// countData finds out how much is to be read, which progress is told in.
func (k *copier) countData(ctx context.Context) error {
	k.toCopy = k.total
	if !k.count {
		return nil
	}
	k.toCopy = 0
	for off := int64(0); off < k.total; {
		if ctx.Err() != nil {
			return errInterrupted
		}
		n, kind, err := k.look(off)
		if err != nil {
			return err
		}
		if kind == runData || k.sparse == 0 && kind == runZero {
			k.toCopy += n
		}
		off += n
	}
	k.known = 0
	return nil
}

func (k *copier) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
	k.space.Broadcast()
}

// look returns what is to be done at off, and for how many bytes.
func (k *copier) look(off int64) (int64, runKind, error) {
	n := min(k.total-off, mostBytes)
	past := k.backingSize >= 0 && off >= k.backingSize
	if k.backingSize > off && off+n > k.backingSize {
		n = k.backingSize - off // from there on zeros need not be written
	}
	if k.known <= off {
		var err error
		if n, k.kind, err = k.ask(off, n, past); err != nil {
			return 0, 0, err
		}
		k.known = off + n
	}
	n = min(n, k.known-off)
	if k.kind == runData || k.sparse == 0 && k.kind == runZero {
		n = min(n, k.most)
	}
	if !k.compress {
		return n, k.kind, nil
	}
	if n < k.cluster {
		k.kind = runData // compressed clusters are written whole
		return min(k.cluster, k.total-off), k.kind, nil
	}
	return n / k.cluster * k.cluster, k.kind, nil
}

// ask asks the source how the run at off comes about.
func (k *copier) ask(off, n int64, past bool) (int64, runKind, error) {
	p := k.partAt(off)
	depth := len(p.chain)
	if k.backed {
		depth = 1
	}
	at := off - p.start
	n = min(n, p.size-at)
	e, err := p.chain.statusOf(depth, at, n)
	for err != nil {
		if !k.salvage {
			return 0, 0, failure("error while reading block status at offset %d: %s", at, strerror(errno(err)))
		}
		if n <= sector {
			k.warn(fmt.Sprintf("error while reading block status at offset %d: %s", at, strerror(errno(err))))
			e = block.Extent{Len: sector, Data: true}
			break
		}
		n = (n/sector + 3) / 4 * sector
		e, err = p.chain.statusOf(depth, at, n)
	}
	n = (e.Len + sector - 1) / sector * sector
	if n == 0 {
		n = p.size - at // the last sector's rest, past an end that is not a sector's
	}
	if tail := (at + n) % p.align; n > tail {
		n -= tail
	}
	switch {
	case e.Zero && past:
		return n, runBacking, nil
	case e.Zero:
		return n, runZero, nil
	case !e.Data && k.backed:
		return n, runBacking, nil
	}
	return n, runData, nil
}

// piece is what one worker copies at a time.
type piece struct {
	off, n int64
	kind   runKind
	number int64
}

// take gives out the next piece that there is something to do about; nil: there
// is none. While too many pieces wait for their turn, it waits.
func (k *copier) take() *hand {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.inOrder && k.err == nil && k.given-k.turn >= int64(len(k.ready)) {
		k.space.Wait()
	}
	for k.err == nil && k.next < k.total {
		n, kind, err := k.look(k.next)
		if err != nil {
			k.err = err
			k.space.Broadcast()
			return nil
		}
		copied := kind == runData || k.sparse == 0 && kind == runZero
		k.advance(n, copied)
		n = min(n, k.step-k.next)
		if copied && !k.offload.Load() {
			n = min(n, k.scratch)
		}
		p := piece{off: k.next, n: n, kind: kind, number: k.given}
		k.next += n
		if copied || kind == runZero && !k.zeroed {
			k.given++
			return k.hand(p)
		}
	}
	return nil
}

// hand returns one for p. mu is held.
func (k *copier) hand(p piece) *hand {
	h := &hand{}
	if n := len(k.free); n > 0 {
		h, k.free = k.free[n-1], k.free[:n-1]
	}
	h.piece, h.offload, h.packed = p, false, false
	return h
}

// advance tells progress when a new step begins, which is n bytes.
func (k *copier) advance(n int64, copied bool) {
	if k.next < k.step {
		return
	}
	k.step = k.next + n
	if copied || !k.count {
		k.copied += n
		k.progress.set(float32(100 * float64(k.copied) / float64(max(k.toCopy, 1))))
	}
}

// hand is what a piece is prepared in.
type hand struct {
	piece      piece
	offload    bool // the kernel is to copy the piece
	packed     bool // compressed is the piece
	buf        []byte
	compressed []byte
	iov        [1][]byte
}

func (k *copier) work() {
	for h := k.take(); h != nil; h = k.take() {
		err := k.prepare(h)
		if err == nil {
			err = k.deliver(h)
		}
		if err != nil {
			k.fail(err)
			return
		}
	}
}

// prepare reads and compresses the piece.
func (k *copier) prepare(h *hand) (err error) {
	h.offload = k.offload.Load() && h.piece.kind == runData
	if h.offload {
		return nil
	}
	if err := k.fill(h, &h.piece); err != nil {
		return failure("error while reading at byte %d: %s", h.piece.off, strerror(errno(err)))
	}
	if h.packed, err = k.pack(h, h.piece); err != nil {
		return k.writeError(h.piece, err)
	}
	return nil
}

// deliver gives the target the piece, or, where order counts and its turn has
// not come, leaves it to whoever gives the one before it. It gives those that
// have been left so.
func (k *copier) deliver(h *hand) error {
	if !k.mine(h) {
		return nil
	}
	for h != nil {
		k.limit.take(h.piece.n)
		if err := k.put(h, h.piece, h.offload, h.packed); err != nil {
			return err
		}
		h = k.following(h)
	}
	return nil
}

// mine tells whether h is to be given to the target now; else it is kept for its turn.
func (k *copier) mine(h *hand) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil || !k.inOrder || h.piece.number == k.turn {
		return k.err == nil
	}
	k.ready[h.piece.number%int64(len(k.ready))] = h
	return false
}

// following ends the turn of h and returns the piece whose turn has come, if it is ready.
func (k *copier) following(h *hand) (next *hand) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.free = append(k.free, h)
	if !k.inOrder || k.err != nil {
		return nil
	}
	k.turn++
	at := k.turn % int64(len(k.ready))
	next, k.ready[at] = k.ready[at], nil
	k.space.Broadcast()
	return next
}

func (k *copier) writeError(p piece, err error) error {
	return failure("error while writing at byte %d: %s", p.off, strerror(errno(err)))
}

// fill gets p's bytes into h.buf, if they are needed.
func (k *copier) fill(h *hand, p *piece) error {
	zeros := k.sparse == 0 && p.kind == runZero
	if p.kind != runData && !zeros {
		return nil
	}
	buf := h.room(p.n)
	if zeros {
		p.kind = runData
		clear(buf)
		return nil
	}
	return k.read(h, buf, p.off)
}

// read reads buf at off, out of as many of the parts as it spans.
func (k *copier) read(h *hand, buf []byte, off int64) error {
	for len(buf) > 0 {
		p := k.partAt(off)
		n := min(int64(len(buf)), p.start+p.size-off)
		err := readSome(p.chain.image(), h.iov[:], buf[:n], off-p.start)
		if err != nil && !k.salvage {
			return err
		}
		if err != nil {
			k.readSectors(h, p, buf[:n], off-p.start)
		}
		buf, off = buf[n:], off+n
	}
	return nil
}

// readSectors reads what can be read, a sector at a time.
func (k *copier) readSectors(h *hand, p *part, buf []byte, off int64) {
	for len(buf) > 0 {
		n := min(sector, len(buf))
		if err := readSome(p.chain.image(), h.iov[:], buf[:n], off); err != nil {
			k.warn(fmt.Sprintf("error while reading offset %d: %s", off, strerror(errno(err))))
			clear(buf[:n])
		}
		buf, off = buf[n:], off+int64(n)
	}
}

// pack compresses p's bytes, where that can be done apart from storing them.
func (k *copier) pack(h *hand, p piece) (packed bool, err error) {
	c, ok := k.target.(block.Compressor)
	if !ok || !k.compress || p.kind != runData || k.sparse != 0 && isZero(h.buf[:p.n]) {
		return false, nil
	}
	h.compressed, err = c.Compress(h.compressed[:0], h.buf[:p.n])
	return err == nil, err
}

// put gives the target what p is.
func (k *copier) put(h *hand, p piece, offload, packed bool) error {
	if offload {
		if k.copyRange(p) == nil {
			return nil
		}
		k.offload.Store(false)
		if err := k.fill(h, &p); err != nil {
			return failure("error while reading at byte %d: %s", p.off, strerror(errno(err)))
		}
	}
	var err error
	switch {
	case p.kind == runBacking:
	case p.kind == runZero:
		err = k.zero(p.off, p.n)
	case packed:
		err = k.target.(block.Compressor).PlaceCompressed(h.compressed, h.buf[:p.n], p.off)
	case k.compress:
		err = k.putCompressed(h, p)
	default:
		err = k.putData(h, h.buf[:p.n], p.off)
	}
	if err != nil {
		return k.writeError(p, err)
	}
	return nil
}

func (k *copier) zero(off, n int64) error {
	if k.zeroed {
		return nil
	}
	return writeZeros(k.target, off, n, block.FlagUnmap)
}

func (k *copier) putCompressed(h *hand, p piece) error {
	if k.sparse != 0 && isZero(h.buf[:p.n]) {
		return k.zero(p.off, p.n)
	}
	w, ok := k.target.(block.CompressedWriter)
	if !ok {
		return block.ErrUnsupported
	}
	return w.WriteCompressed(h.buf[:p.n], p.off)
}

// putData writes what of buf is not zero, and makes the rest zero.
func (k *copier) putData(h *hand, buf []byte, off int64) error {
	for len(buf) > 0 {
		n, data := len(buf), true
		if k.sparse != 0 {
			n, data = dataRun(buf, off, int(k.sparse), int(k.align))
		}
		var err error
		if data {
			h.iov[0] = buf[:n]
			err = k.target.Writev(h.iov[:], off, 0)
		} else {
			err = k.zero(off, int64(n))
		}
		if err != nil {
			return err
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}

// copyRange has the kernel copy p.
func (k *copier) copyRange(p piece) error {
	c, ok := k.target.(block.RangeCopier)
	if !ok {
		return block.ErrUnsupported
	}
	for p.n > 0 {
		s := k.partAt(p.off)
		file, at, n, ok := s.chain.stored(p.off-s.start, min(p.n, s.start+s.size-p.off))
		if !ok {
			return block.ErrUnsupported
		}
		if err := c.CopyRange(file, at, p.off, n); err != nil {
			return err
		}
		p.off, p.n = p.off+n, p.n-n
	}
	return nil
}

// writeZeros makes a range zero by the cheapest means there is.
func writeZeros(image block.Image, off, n int64, f block.Flags) error {
	if z, ok := image.(block.ZeroWriter); ok {
		err := z.WriteZeroes(off, n, f)
		if !errors.Is(err, block.ErrUnsupported) {
			return err
		}
	}
	zeros := make([]byte, min(n, mostCopied))
	iov := [][]byte{nil}
	for n > 0 {
		m := min(n, int64(len(zeros)))
		iov[0] = zeros[:m]
		if err := image.Writev(iov, off, 0); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}
