package qcow2

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"berth/block"
)

func measureFunc() func(block.Values, block.Image) (block.Measurement, error) { return measure }

// measure tells how large the file of an image with the options v would be, with
// src's contents if there is one: by QEMU's formula, which counts the metadata
// of a full image.
func measure(v block.Values, src block.Image) (block.Measurement, error) {
	m := block.Measurement{Bitmaps: -1}
	h, width, err := measuredHeader(v)
	if err != nil {
		return m, err
	}
	size := v.Int("size", 0)
	if src != nil {
		size = src.Size()
	}
	cluster := h.clusterSize()
	if size < 0 || size > math.MaxInt64-cluster || h.sizeToL1(uint64(size)) > maxL1Bytes/8 {
		return m, errors.New("The image size is too large (try using a larger cluster size)")
	}
	virtual := (size + cluster - 1) &^ (cluster - 1)
	required := int64(0)
	switch p := v["preallocation"]; {
	case p == "full" || p == "falloc", src != nil && v["backing_file"] != "":
		required = virtual
	case src != nil:
		if required, err = requiredBytes(src, cluster); err != nil {
			return m, fmt.Errorf("Unable to get block status: %w", err)
		}
	}
	m.FullyAllocated = fullSize(virtual, cluster, h.extL2(), width)
	m.Required = m.FullyAllocated - virtual + required
	if i, ok := src.(*Image); ok && h.version >= 3 && i.hdr.version >= 3 {
		m.Bitmaps = i.bitmapBytes(cluster)
	}
	return m, nil
}

// measuredHeader checks the options that count, in QEMU's order and words.
func measuredHeader(v block.Values) (h *header, width int64, err error) {
	h = &header{version: 3}
	size := v.Int("cluster_size", 65536)
	ext := v.On("extended_l2", false)
	if size < 1<<minClusterBits || size > 1<<maxClusterBits || size&(size-1) != 0 {
		return nil, 0, fmt.Errorf("Cluster size must be a power of two between %d and %dk", 1<<minClusterBits, 1<<(maxClusterBits-10))
	}
	if ext && size < 32<<minClusterBits {
		return nil, 0, fmt.Errorf("Extended L2 entries are only supported with cluster sizes of at least %d bytes", 32<<minClusterBits)
	}
	h.clusterBits = uint32(log2(size))
	if ext {
		h.incompat |= incompatExtL2
	}
	switch c := v["compat"]; c {
	case "0.10":
		h.version = 2
	case "", "1.1":
	default:
		return nil, 0, fmt.Errorf("Invalid compatibility level: '%s'", c)
	}
	width = v.Int("refcount_bits", 16)
	switch {
	case width < 1 || width > 64 || width&(width-1) != 0:
		return nil, 0, errors.New("Refcount width must be a power of two and may not exceed 64 bits")
	case h.version < 3 && width != 16:
		return nil, 0, errors.New("Different refcount widths than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)")
	}
	switch p := v["preallocation"]; p {
	case "", "off", "metadata", "falloc", "full":
	default:
		return nil, 0, fmt.Errorf("invalid parameter value: %s", p)
	}
	if v["encrypt.format"] == "luks" {
		return nil, 0, errors.New("Encryption with LUKS is not supported")
	}
	return h, width, nil
}

// requiredBytes counts the bytes of src's clusters that hold data.
func requiredBytes(src block.Image, cluster int64) (int64, error) {
	required, size := int64(0), src.Size()
	for off := int64(0); off < size; {
		n, data, err := holds(src, off, size-off)
		if err != nil {
			return 0, err
		}
		if data {
			n = (off+n+cluster-1)&^(cluster-1) - off
			required += off&(cluster-1) + n
		}
		off += n
	}
	return required, nil
}

// holds tells whether the range that begins at off is stored, in src or below it, and its length.
func holds(src block.Image, off, n int64) (int64, bool, error) {
	if off >= src.Size() {
		return n, false, nil
	}
	n = min(n, src.Size()-off)
	x, ok := src.(block.Extenter)
	if !ok {
		return n, true, nil
	}
	e, err := x.Extent(off, n)
	if err != nil {
		return 0, false, err
	}
	if e.Len <= 0 {
		return 0, false, errCorrupt
	}
	i, isQcow2 := src.(*Image)
	switch {
	case e.Zero:
		return e.Len, false, nil
	case !e.Allocated && isQcow2 && i.backing != nil:
		return holds(i.backing, off, e.Len)
	case !e.Allocated:
		return e.Len, false, nil
	case e.Deeper && e.HasOffset && isQcow2:
		d, err := i.data.Extent(e.Off, e.Len)
		if err == nil && d.Len > 0 {
			return min(d.Len, e.Len), e.Data && !d.Zero, nil
		}
	}
	return e.Len, e.Data, nil
}

// fullSize is the size of a file that has storage for size bytes and the metadata for them.
func fullSize(size, cluster int64, ext bool, width int64) int64 {
	entry := int64(8)
	if ext {
		entry = 16
	}
	up := func(n, to int64) int64 { return (n + to - 1) / to * to }
	l2 := up(size/cluster, cluster/entry)
	l1 := up(l2*entry/cluster, cluster/8)
	meta := cluster + l2*entry + l1*8
	blocks, table := refcountClusters((meta+size)/cluster, cluster, bits.TrailingZeros64(uint64(width)))
	return meta + size + (blocks+table)*cluster
}

// refcountClusters is how many blocks, and clusters of the refcount table, describe clusters and themselves,
// with refcounts of 1<<order bits.
func refcountClusters(clusters, cluster int64, order int) (blocks, table int64) {
	perBlock, perTable := cluster*8>>order, cluster/8
	for n, last := int64(0), int64(-1); n != last; {
		last = n
		blocks = (clusters + table + blocks + perBlock - 1) / perBlock
		table = (blocks + perTable - 1) / perTable
		n = clusters + blocks + table
	}
	return blocks, table
}

// bitmapBytes is what the image's bitmaps take in an image with clusters of that size.
func (i *Image) bitmapBytes(cluster int64) int64 {
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	up := func(n int64) int64 { return (n + cluster - 1) &^ (cluster - 1) }
	total, dir := int64(0), int64(0)
	for _, b := range i.bits.list {
		data := up(((i.Size()+1<<b.bits-1)>>b.bits + 7) / 8)
		total += data + up(data/cluster*8)
		dir += int64(bitmapDirFixed+len(b.name)+7) &^ 7
	}
	return total + up(dir)
}
