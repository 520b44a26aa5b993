package qcow2

import (
	"bytes"
	"cmp"
	"io"
	"runtime"
	"sync"
	"syscall"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"berth/block"
	"berth/block/inflate"
)

// inflateCache is the clusters that were uncompressed last: a guest reads them by parts.
type inflateCache struct {
	mu   sync.Mutex
	keep []inflated // newest last
}

type inflated struct {
	entry uint64
	b     []byte
}

const inflateKeep = 4

func (c *inflateCache) get(entry uint64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.keep {
		if k.entry == entry {
			return k.b
		}
	}
	return nil
}

func (c *inflateCache) put(entry uint64, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.keep) == inflateKeep {
		c.keep = append(c.keep[:0], c.keep[1:]...)
	}
	c.keep = append(c.keep, inflated{entry, b})
}

// clear forgets everything: the places that entries name are to be used anew.
func (c *inflateCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep = nil
}

// readCompressed fills iov from the compressed cluster that entry describes,
// beginning at its byte in.
func (i *Image) readCompressed(entry uint64, iov [][]byte, in int64) error {
	if b := i.inflated.get(entry); b != nil {
		copyTo(iov, b[in:])
		return nil
	}
	off, n := i.compressedPlace(entry)
	packed := i.codecs.room(n)
	defer i.codecs.packed.Put(packed)
	if err := readFull(i.file, (*packed)[:n], off); err != nil {
		return err
	}
	if in == 0 && len(iov) == 1 && int64(len(iov[0])) == i.clusterSize {
		if err := i.decompress(iov[0], (*packed)[:n]); err != nil {
			return errCorrupt
		}
		return nil
	}
	b := make([]byte, i.clusterSize)
	if err := i.decompress(b, (*packed)[:n]); err != nil {
		return errCorrupt
	}
	copyTo(iov, b[in:])
	if length(iov) < i.clusterSize {
		i.inflated.put(entry, b)
	}
	return nil
}

// codecs are what compresses and uncompresses, kept for the next time.
type codecs struct {
	deflate, inflate sync.Pool // *flate.Writer, *inflate.Decoder
	packed           sync.Pool // *[]byte: what was read to be uncompressed
	once             sync.Once
	encoder          *zstd.Encoder
	decoder          *zstd.Decoder
	err              error
}

// room returns a buffer of at least n bytes, for c.packed to get back.
func (c *codecs) room(n int64) *[]byte {
	b, ok := c.packed.Get().(*[]byte)
	if !ok || int64(len(*b)) < n {
		p := make([]byte, n)
		b = &p
	}
	return b
}

// zstdMemory is the most that a cluster's uncompressing may take.
const zstdMemory = 64 << 20

// zstd makes the coders, whose window need not be larger than a cluster.
func (c *codecs) zstd(window int) error {
	c.once.Do(func() {
		n := runtime.GOMAXPROCS(0)
		var e error
		c.encoder, e = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(n), zstd.WithEncoderCRC(false),
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithAllLitEntropyCompression(true), zstd.WithWindowSize(max(window, zstd.MinWindowSize)))
		c.decoder, c.err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(n), zstd.WithDecoderMaxMemory(zstdMemory), zstd.WithDecodeAllCapLimit(true))
		c.err = cmp.Or(e, c.err)
	})
	return c.err
}

func (c *codecs) close() {
	if c.decoder != nil {
		c.decoder.Close()
	}
}

// decompress fills dst, a cluster, from src, after which there may be other bytes.
func (i *Image) decompress(dst, src []byte) error {
	if i.zstd {
		if err := i.codecs.zstd(int(i.clusterSize)); err != nil {
			return err
		}
		n, err := zstdFrame(src)
		if err != nil {
			return err
		}
		b, err := i.codecs.decoder.DecodeAll(src[:n], dst[:0:len(dst)]) // it writes up to the capacity, behind which may be the guest's memory
		if err == nil && len(b) != len(dst) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	d, ok := i.codecs.inflate.Get().(*inflate.Decoder)
	if !ok {
		d = new(inflate.Decoder)
	}
	defer i.codecs.inflate.Put(d)
	return d.Decode(dst, src)
}

// zstdFrame is how long the frame is that src begins with (RFC 8878, section 3.1.1).
func zstdFrame(src []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return 0, err
	}
	n := h.HeaderSize
	for {
		if n+3 > len(src) {
			return 0, io.ErrUnexpectedEOF
		}
		block := int(src[n]) | int(src[n+1])<<8 | int(src[n+2])<<16
		n += 3
		if block>>1&3 == 1 { // one byte, repeated
			n++
		} else {
			n += block >> 3
		}
		if block&1 != 0 {
			break
		}
	}
	if h.HasCheckSum {
		n += 4
	}
	if n > len(src) {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// Compress appends p, a cluster or what is left of the image, compressed to
// dst; nil: that would be no shorter. Many may call it at once.
func (i *Image) Compress(dst, p []byte) ([]byte, error) {
	if int64(len(p)) > i.clusterSize {
		return nil, syscall.EINVAL
	}
	if int64(len(p)) < i.clusterSize {
		whole := make([]byte, i.clusterSize)
		copy(whole, p)
		p = whole
	}
	c, err := i.compress(dst, p)
	if err != nil || int64(len(c)-len(dst)) >= i.clusterSize {
		return nil, err
	}
	return c, nil
}

func (i *Image) compress(dst, p []byte) ([]byte, error) {
	if i.zstd {
		if err := i.codecs.zstd(int(i.clusterSize)); err != nil {
			return nil, err
		}
		return i.codecs.encoder.EncodeAll(p, dst), nil
	}
	b := bytes.NewBuffer(dst)
	z, _ := i.codecs.deflate.Get().(*flate.Writer)
	if z == nil {
		var err error
		if z, err = flate.NewWriterWindow(b, deflateWindow); err != nil {
			return nil, err
		}
	} else {
		z.Reset(b)
	}
	defer i.codecs.deflate.Put(z)
	if _, err := z.Write(p); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// deflateWindow is the farthest that a compressed cluster may refer back, in bytes.
const deflateWindow = 4096

// WriteCompressed stores p, one cluster, compressed; as it is if that is no
// shorter. Errors are those of PlaceCompressed.
func (i *Image) WriteCompressed(p []byte, off int64) error {
	c, err := i.Compress(nil, p)
	if err != nil {
		return err
	}
	return i.PlaceCompressed(c, p, off)
}

// PlaceCompressed stores c, what Compress made of p, or p itself if c is nil. The
// error is EIO, as in QEMU, if c is to lie where something is allocated.
func (i *Image) PlaceCompressed(c, p []byte, off int64) error {
	n := int64(len(p))
	return i.shared(off, n, func() error {
		if i.owned { // the data lies in a file of its own
			return block.ErrUnsupported
		}
		if i.inCluster(off) != 0 || n > i.clusterSize || n < i.clusterSize && off+n != i.Size() {
			return syscall.EINVAL
		}
		if c == nil {
			return i.write([][]byte{p}, off, n)
		}
		if err := i.writePacked(c, off); err != nil {
			return err
		}
		return i.noteDirty(off, n)
	})
}

// writePacked stores the compressed cluster c for the guest's cluster at off.
func (i *Image) writePacked(c []byte, off int64) error {
	a := &allocation{off, off + i.clusterSize}
	i.mu.Lock()
	if err := i.awaitAll(off, i.clusterSize); err != nil {
		i.mu.Unlock()
		return err
	}
	host, first, clusters, err := i.placePacked(off, int64(len(c)))
	if err != nil {
		i.mu.Unlock()
		return err
	}
	i.inFlight = append(i.inFlight, a)
	i.mu.Unlock()
	err = writeFull(i.file, c, host)
	i.mu.Lock()
	defer i.mu.Unlock()
	defer i.settle(a)
	if err == nil {
		err = i.linkPacked(off, host, int64(len(c)))
	}
	if err != nil {
		i.packAt = 0
		if e := i.addRefcounts(first, clusters, -1); e != nil {
			i.say("qcow2_free_clusters failed: " + strerror(e))
		}
	}
	return err
}

// placePacked makes ready the L2 table for the guest's cluster at off, where
// nothing may be allocated, and finds room for n bytes. mu is held.
func (i *Image) placePacked(off, n int64) (host, first, clusters int64, err error) {
	if err := i.prepareLink(); err != nil {
		return 0, 0, 0, err
	}
	s, at, err := i.l2ForWrite(off)
	if err != nil {
		return 0, 0, 0, err
	}
	if e, _ := i.entryAt(s, at); e&offsetMask != 0 {
		return 0, 0, 0, syscall.EIO // as QEMU answers
	}
	return i.pack(n)
}

// awaitAll is await for a range that cannot be divided.
func (i *Image) awaitAll(off, n int64) error {
	for {
		k, err := i.await(off, n)
		if err != nil || k == n {
			return err
		}
		i.settled.Wait()
	}
}

// pack finds room for n bytes, less than a cluster, behind what was stored
// compressed last, and counts the reference to the clusters that they lie in. mu is held.
func (i *Image) pack(n int64) (host, first, clusters int64, err error) {
	if i.packAt != 0 {
		count, err := i.refcount(i.packAt >> i.clusterBits)
		if err != nil {
			return 0, 0, 0, err
		}
		if count == i.alloc.max() || count == 0 {
			i.packAt = 0
		}
	}
	host = i.packAt
	if host == 0 || i.clusterSize-i.inCluster(host) < n {
		r, err := i.findFree(1, true)
		if err != nil {
			return 0, 0, 0, err
		}
		if r.off == 0 {
			return 0, 0, 0, i.signalCorruption("Preventing invalid allocation of compressed cluster at offset 0")
		}
		if err := i.overlap(r.off, i.clusterSize); err != nil {
			return 0, 0, 0, err
		}
		if host == 0 || i.roundUp(host) != r.off {
			host = r.off
		}
	}
	if host+n > 1<<i.packedShift() {
		return 0, 0, 0, errTooBig // for the entry to tell
	}
	first = i.clusterOf(host)
	clusters = (i.clusterOf(host+n-1)-first)>>i.clusterBits + 1
	if err := i.addRefcounts(first, clusters, 1); err != nil {
		return 0, 0, 0, err
	}
	i.raise(first, clusters)
	i.packAt = host + n
	if i.inCluster(i.packAt) == 0 {
		i.packAt = 0
	}
	return host, first, clusters, nil
}

// linkPacked has the guest's cluster at off be the n compressed bytes at host. mu is held.
func (i *Image) linkPacked(off, host, n int64) error {
	if err := i.prepareLink(); err != nil {
		return err
	}
	s, at, err := i.l2ForWrite(off)
	if err != nil {
		return err
	}
	i.unsynced = true
	sectors := (host+n-1)>>9 - host>>9
	i.setEntry(s, at, flagCompressed|uint64(host)|uint64(sectors)<<i.packedShift(), 0)
	return nil
}
