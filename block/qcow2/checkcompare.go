package qcow2

import "berth/block"

// block returns the refcounts in the image from cluster n on: the slice that
// holds them (nil: they are all 0), n's number in it, and how many follow.
func (c *checker) block(n int64) (s *slice, at int, more int64, err error) {
	i, a := c.i, &c.i.alloc
	r := n >> a.blockBits
	left := (r+1)<<a.blockBits - n
	if r >= int64(len(a.table)) {
		return nil, 0, c.refs.n - n, nil
	}
	off := int64(a.table[r] &^ reftableReserved)
	switch {
	case off == 0:
		return nil, 0, left, nil
	case off&(i.clusterSize-1) != 0:
		if !c.marked {
			c.marked = true
			c.sayUnaligned(off, r)
		}
		return nil, 0, left, errCorrupt
	case off < 0 || off >= c.end:
		return nil, 0, left, nil
	}
	per := int64(a.blocks.bytes) * 8 >> a.order
	in := n & (1<<a.blockBits - 1)
	s, err = a.blocks.get(off + in/per*int64(a.blocks.bytes))
	return s, int(in % per), per - in%per, err
}

func (c *checker) sayUnaligned(off, r int64) {
	if c.i.readOnly {
		c.say("qcow2: Image is corrupt: Refblock offset %#x unaligned (reftable index: %s); further non-fatal corruption events will be suppressed", off, cHex(uint64(r)))
		return
	}
	c.say("qcow2: Marking image as corrupt: Refblock offset %#x unaligned (reftable index: %s); further corruption events will be suppressed", off, cHex(uint64(r)))
}

// stored is the refcount of cluster n in the image.
func (c *checker) stored(n int64) (uint64, error) {
	s, at, _, err := c.block(n)
	if s == nil || err != nil {
		return 0, err
	}
	return c.i.alloc.load(s.b, at), nil
}

// compare compares the refcounts in the image with the references, and corrects
// what fix says where there is a refcount to correct.
func (c *checker) compare(fix block.Fix) {
	c.highest = 0
	for n := int64(0); n < c.refs.n; {
		s, at, more, err := c.block(n)
		end := min(n+more, c.refs.n)
		switch {
		case err != nil:
			for ; n < end; n++ {
				c.say("Can't get refcount for cluster %d: %s", n, cError(err))
				c.res.CheckErrors++
			}
		case s == nil:
			n = c.compareNone(n, end, fix)
		default:
			c.compareSlice(s, at, n, end, fix)
			n = end
		}
	}
}

// compareNone compares clusters that no refcount block describes.
func (c *checker) compareNone(n, end int64, fix block.Fix) int64 {
	for n < end {
		if next, is := c.refs.empty(n); is {
			n = next
			continue
		}
		if refs := c.refs.get(n); refs != 0 {
			c.highest = n
			c.differ(n, 0, refs, fix)
		}
		n++
	}
	return min(n, end)
}

func (c *checker) compareSlice(s *slice, at int, n, end int64, fix block.Fix) {
	a := &c.i.alloc
	for ; n < end; n, at = n+1, at+1 {
		has, refs := a.load(s.b, at), c.refs.get(n)
		if has > 0 || refs > 0 {
			c.highest = n
		}
		if has == refs || !c.differ(n, has, refs, fix) {
			continue
		}
		a.store(s.b, at, refs)
		a.blocks.touch(s, at<<a.order>>3, ((at+1)<<a.order+7)>>3)
		if refs == 0 {
			a.next = min(a.next, n)
			c.i.forgetTables(n << c.i.clusterBits)
		}
	}
}

// differ tells of a refcount that is wrong, and whether it is to be corrected.
func (c *checker) differ(n int64, has, refs uint64, fix block.Fix) bool {
	fixes := false
	verb := "Leaked"
	if has < refs {
		verb = "ERROR"
	}
	switch {
	case has == 0:
		c.rebuild = true
	case has > refs && fix&block.FixLeaks != 0:
		fixes = true
		c.res.LeaksFixed++
	case has < refs && fix&block.FixErrors != 0:
		fixes = true
		c.res.CorruptionsFixed++
	}
	if fixes {
		verb = "Repairing"
	}
	c.say("%s cluster %d refcount=%d reference=%d", verb, n, has, refs)
	switch {
	case fixes:
	case has < refs:
		c.res.Corruptions++
	default:
		c.res.Leaks++
	}
	return fixes
}
