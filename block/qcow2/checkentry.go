package qcow2

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"berth/block"
)

// l2Entry is an entry of an L2 table that is being checked.
type l2Entry struct {
	table         int64
	index         int
	entry, bitmap uint64
	active        bool // in the active L1 table
	fix           block.Fix
}

// compressedFaults tells what is wrong with a compressed cluster's entry, and
// whether it is not to be counted.
func (c *checker) compressedFaults(l l2Entry) bool {
	i := c.i
	if l.entry&flagCopied != 0 {
		off, _ := i.compressedPlace(l.entry)
		c.say("ERROR: coffset=0x%x: copied flag must never be set for compressed clusters", off)
		c.res.Corruptions++
	}
	l.entry &^= flagCopied
	switch {
	case i.hdr.external():
		c.say("ERROR compressed cluster %d with data file, entry=0x%x", l.index, l.entry)
	case l.bitmap != 0:
		c.say("ERROR compressed cluster %d with non-zero subcluster allocation bitmap, entry=0x%x", l.index, l.entry)
	default:
		return false
	}
	c.res.Corruptions++
	return true
}

func (c *checker) unallocatedFaults(l l2Entry) {
	if l.bitmap&(1<<32-1) != 0 {
		c.res.Corruptions++
		c.say("ERROR: Unallocated cluster has non-zero subcluster allocation map")
	}
}

// clusterFaults tells what is wrong with an entry with a host cluster, and
// whether it is not to be counted. An error ends the check of the table.
func (c *checker) clusterFaults(l l2Entry, host int64) (skip bool, err error) {
	i := c.i
	if l.bitmap>>32&l.bitmap != 0 {
		c.res.Corruptions++
		c.say("ERROR offset=%x: Allocated cluster has corrupted subcluster allocation bitmap", host)
	}
	if i.inCluster(host) == 0 {
		return false, nil
	}
	c.res.Corruptions++
	holds := l.entry&flagZero == 0
	if i.ext {
		holds = l.bitmap&(1<<32-1) != 0
	}
	if holds {
		c.say("ERROR offset=%x: Data cluster is not properly aligned; L2 entry corrupted.", host)
		return false, nil
	}
	c.say("%s offset=%x: Preallocated cluster is not properly aligned; L2 entry corrupted.", verbOf(l.fix), host)
	if l.fix&block.FixErrors == 0 {
		return false, nil
	}
	return c.zeroEntry(l)
}

// zeroEntry makes an entry one that reads as zeros and refers to nothing.
func (c *checker) zeroEntry(l l2Entry) (done bool, err error) {
	i := c.i
	b := make([]byte, i.entry)
	if i.ext {
		bitmap := (l.bitmap | l.bitmap<<32) &^ (1<<32 - 1)
		be.PutUint64(b[8:], bitmap)
	} else {
		be.PutUint64(b, flagZero)
	}
	at := l.table + int64(l.index)*i.entry
	own := metaKind(0)
	if l.active {
		own = metaL2
	}
	if err := i.overlapBut(own, at, i.entry); err != nil {
		c.say("ERROR: Overlap check failed")
		c.res.CheckErrors++
		return false, err
	}
	if err := writeFull(i.file, b, at); err != nil {
		c.say("ERROR: Failed to overwrite L2 table entry: %s", cError(err))
		c.res.CheckErrors++
		return false, nil
	}
	copy(c.buf[at-l.table:], b)
	i.l2.forget(l.table, i.clusterSize)
	c.res.Corruptions--
	c.res.CorruptionsFixed++
	return true, nil
}

// checkCopied checks the COPIED flags of the active tables against the refcounts.
func (c *checker) checkCopied() error {
	i := c.i
	repair := c.fix&block.FixErrors != 0
	if c.fix == block.FixLeaks {
		repair = c.res.CheckErrors == 0 && c.res.Corruptions == 0 && c.res.Leaks == 0
	}
	verb := "ERROR"
	if repair {
		verb = "Repairing"
	}
	for k, e := range i.l1 {
		table := int64(e & offsetMask)
		if table == 0 {
			continue
		}
		n, err := c.stored(table >> i.clusterBits)
		if err != nil {
			continue // told of before
		}
		if (n == 1) != (e&flagCopied != 0) {
			c.res.Corruptions++
			c.say("%s OFLAG_COPIED L2 cluster: l1_index=%d l1_entry=%x refcount=%d", verb, k, e, n)
			if repair {
				i.l1[k] = e ^ flagCopied
				i.l1Dirty.add(k, k+1)
				if err := i.writeL1(); err != nil {
					c.res.CheckErrors++
					return err
				}
				c.res.Corruptions--
				c.res.CorruptionsFixed++
			}
		}
		if table >= c.end {
			continue // zeros
		}
		if err := c.checkTableCopied(table, verb, repair); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkTableCopied(table int64, verb string, repair bool) error {
	if err := c.spend(c.i.clusterSize); err != nil {
		return err
	}
	if err := readFull(c.i.file, c.buf, table); err != nil {
		c.say("ERROR: Could not read L2 table: %s", cError(err))
		c.res.CheckErrors++
		return err
	}
	wrong := int64(0)
	for at := int64(0); at < c.i.clusterSize; at += c.i.entry {
		e := be.Uint64(c.buf[at:])
		n, ok := c.copiedWrongly(e)
		if !ok {
			continue
		}
		c.res.Corruptions++
		c.say("%s OFLAG_COPIED data cluster: l2_entry=%x refcount=%d", verb, e, n)
		be.PutUint64(c.buf[at:], e^flagCopied)
		wrong++
	}
	if wrong == 0 || !repair {
		return nil
	}
	if err := c.storeTable(table); err != nil {
		return err
	}
	c.res.Corruptions -= wrong
	c.res.CorruptionsFixed += wrong
	return nil
}

// copiedWrongly tells whether an entry's COPIED flag is wrong, and the refcount by which it is.
func (c *checker) copiedWrongly(e uint64) (refs uint64, wrong bool) {
	host, ok := c.i.hostCluster(e)
	if !ok {
		return 0, false
	}
	refs = 1
	if !c.i.hdr.external() {
		var err error
		if refs, err = c.stored(host >> c.i.clusterBits); err != nil {
			return 0, false // told of before
		}
	}
	return refs, (refs == 1) != (e&flagCopied != 0)
}

// storeTable writes an active L2 table that has been corrected.
func (c *checker) storeTable(table int64) error {
	i := c.i
	if err := i.overlapBut(metaL2, table, i.clusterSize); err != nil {
		c.say("ERROR: Could not write L2 table; metadata overlap check failed: %s", cError(err))
		c.res.CheckErrors++
		return err
	}
	if err := writeFull(i.file, c.buf, table); err != nil {
		c.say("ERROR: Could not write L2 table: %s", cError(err))
		c.res.CheckErrors++
		return err
	}
	i.l2.forget(table, i.clusterSize)
	return nil
}

// cError is an error as C words it.
func cError(err error) string {
	var e syscall.Errno
	if errors.As(err, &e) {
		s := e.Error()
		if strings.HasPrefix(s, "input/output") {
			return "Input/output error"
		}
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return strerror(err)
}

// cHex is a number as C's %#x prints it.
func cHex(v uint64) string {
	if v == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", v)
}
