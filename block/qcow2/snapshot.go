package qcow2

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"

	"berth/block"
)

type snapshotState struct {
	list  []snapshotEntry
	bytes int64 // that the table takes in the file
}

// loadSnapshots reads the snapshot table.
func (i *Image) loadSnapshots() error {
	t, err := readSnapshotTable(i.file, int64(i.hdr.snapshotsOffset), i.hdr.snapshots, uint64(i.Size()), false)
	if err != nil {
		return err
	}
	i.snap = snapshotState{t.list, t.bytes}
	i.noteSnapshots()
	return nil
}

// noteSnapshots records where the metadata of snapshots lies.
func (i *Image) noteSnapshots() {
	i.extra = nil
	if i.snap.bytes > 0 {
		i.extra = append(i.extra, metaRange{int64(i.hdr.snapshotsOffset), i.snap.bytes, "snapshot table"})
	}
	for k := range i.snap.list {
		if e := &i.snap.list[k]; e.l1Size > 0 && e.l1Offset <= math.MaxInt64-maxL1Bytes {
			i.extra = append(i.extra, metaRange{int64(e.l1Offset), int64(e.l1Size) * 8, "inactive L1 table"})
		}
	}
}

// Snapshots lists the internal snapshots in the order of the table.
func (i *Image) Snapshots() []block.Snapshot {
	i.mu.Lock()
	defer i.mu.Unlock()
	var s []block.Snapshot
	for k := range i.snap.list {
		s = append(s, i.snap.list[k].describe())
	}
	return s
}

// change runs f alone on the image, with nothing held in memory that is not in
// the file. While f runs the image is marked dirty, if its version knows that:
// refcounts and COPIED flags cannot change in one step.
func (i *Image) change(f func() error) error {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.writable(); err != nil {
		return err
	}
	if i.hdr.external() {
		return block.ErrUnsupported
	}
	if err := i.quiesce(); err != nil {
		return err
	}
	return i.whileDirty(f)
}

func (i *Image) whileDirty(f func() error) error {
	mark := i.hdr.version >= 3 && i.hdr.incompat&incompatDirty == 0
	if mark {
		if err := i.markDirty(); err != nil {
			return err
		}
		i.unsynced, i.l2Wrote = false, false // by the flush of the mark
	}
	if err := f(); err != nil {
		if i.corrupt.Load() {
			return err
		}
		// Flags that were cleared for it are set again, and those of what it has freed.
		if undo := errors.Join(i.markCopied(), i.storeTables(), i.quiesce()); undo != nil || !mark {
			return err // what is left of it is repaired when the image is next opened, if it is marked
		}
		return errors.Join(err, i.markClean())
	}
	if err := i.quiesce(); err != nil {
		return err
	}
	if mark {
		return i.markClean()
	}
	return i.sync()
}

// storeTables has all refcounts, L2 tables and the L1 table on stable storage.
// In an image that is marked dirty they may come there in any order, but for
// data, which is there before what refers to it.
func (i *Image) storeTables() error {
	dirty, data := i.hdr.incompat&incompatDirty != 0, i.unsynced
	if err := i.flushRefcounts(); err != nil {
		return err
	}
	if dirty {
		i.unsynced = data
	}
	if err := i.flushL2(); err != nil {
		return err
	}
	if i.l1Dirty.to != 0 {
		if !dirty {
			if err := i.sync(); err != nil {
				return err
			}
		}
		if err := i.writeL1(); err != nil {
			return err
		}
	}
	if err := i.sync(); err != nil {
		return err
	}
	i.unsynced, i.l2Wrote = false, false
	return nil
}

// CreateSnapshot makes a snapshot of the image as it is now. An ID that is not
// given is the next free number. Images with an external data file have none.
func (i *Image) CreateSnapshot(s block.Snapshot) error {
	return i.change(func() error {
		if len(i.snap.list) >= maxSnapshots {
			return errTooBig
		}
		if s.ID == "" {
			s.ID = nextSnapshotID(i.snap.list)
		}
		if slices.ContainsFunc(i.snap.list, func(e snapshotEntry) bool { return e.id == s.ID }) {
			return syscall.EEXIST
		}
		if len(s.ID) > math.MaxUint16 || len(s.Name) > math.MaxUint16 || s.VMStateSize < 0 {
			return syscall.EINVAL
		}
		e := snapshotEntry{
			id: s.ID, name: s.Name, l1Size: uint32(len(i.l1)), extraSize: knownExtra,
			dateSec: uint32(s.Date.Unix()), dateNsec: uint32(s.Date.Nanosecond()), vmClock: uint64(s.VMClock),
			vmStateSize: uint64(s.VMStateSize), diskSize: uint64(i.Size()), icount: uint64(s.ICount),
		}
		return i.addSnapshot(e)
	})
}

// addSnapshot has e's L1 table share all clusters, and enters e in the table.
func (i *Image) addSnapshot(e snapshotEntry) error {
	if err := i.unmark(i.l1, true); err != nil {
		return err
	}
	if err := i.shareTree(&e); err != nil {
		return err
	}
	return i.dropVMState(int64(e.vmStateSize))
}

// shareTree gives e a copy of the active L1 table, and the table of snapshots e.
// On an error all refcounts are as they were.
func (i *Image) shareTree(e *snapshotEntry) error {
	r, err := i.storeL1(i.l1)
	if err != nil {
		return err
	}
	e.l1Offset = uint64(r.off)
	if err = i.raiseTree(i.l1); err == nil {
		if err = i.storeSnapshots(append(i.snap.list[:len(i.snap.list):len(i.snap.list)], *e)); err == nil {
			return nil
		}
		if !i.corrupt.Load() {
			err = errors.Join(err, i.lowerTree(i.l1))
		}
	}
	return errors.Join(err, i.unallocate(r))
}

// storeL1 writes an L1 table to free clusters.
func (i *Image) storeL1(l1 []uint64) (r run, err error) {
	n := i.roundUp(int64(len(l1))*8) >> i.clusterBits
	if n == 0 {
		return run{}, nil
	}
	if r, _, err = i.allocate(n, true, "L1 table"); err != nil {
		return run{}, err
	}
	if err = writeFull(i.file, encodeTable(l1), r.off); err != nil {
		return run{}, errors.Join(err, i.unallocate(r))
	}
	return r, nil
}

// unallocate gives back what was allocated in vain: nothing in the file refers to it.
// An image that is unusable keeps it, since what the file says is not known then.
func (i *Image) unallocate(r run) error {
	if r.n == 0 || i.corrupt.Load() {
		return nil
	}
	return i.addRefcounts(r.off, r.n, -1)
}

// drop gives back what the file referred to until now. If that fails it is leaked.
func (i *Image) drop(off, n int64) {
	if n == 0 {
		return
	}
	if err := i.addRefcounts(off, n, -1); err != nil {
		i.say("qcow2_free_clusters failed: " + strerror(err))
	}
}

// dropVMState discards the VM state behind the disk: it belongs to the snapshot now.
func (i *Image) dropVMState(n int64) error {
	if n <= 0 {
		return nil
	}
	span := i.l1EntrySpan()
	off := (i.Size() + span - 1) &^ (span - 1)
	for end := min(off+i.roundUp(n), int64(len(i.l1))*span); off < end; {
		k, err := i.discardSlice(off, end-off, false)
		if err != nil {
			return err
		}
		off += k
	}
	return nil
}

// storeSnapshots puts a new snapshot table in the place of the old: all that it
// refers to is on stable storage first. On an error the old one is in force, or
// the image is unusable.
func (i *Image) storeSnapshots(list []snapshotEntry) error {
	b, err := encodeSnapshots(list)
	if err != nil {
		return err
	}
	var r run
	if len(b) > 0 {
		if r, _, err = i.allocate(i.roundUp(int64(len(b)))>>i.clusterBits, true, "snapshot table"); err != nil {
			return err
		}
		err = writeFull(i.file, b, r.off)
	}
	if err == nil {
		err = i.storeTables()
	}
	was, h := i.hdr, i.hdr
	h.snapshots, h.snapshotsOffset = uint32(len(list)), uint64(r.off)
	if err == nil {
		err = i.switchHeader(h, i.writeSnapshotPlace)
	}
	if err != nil {
		return errors.Join(err, i.unallocate(r))
	}
	n := i.roundUp(i.snap.bytes) >> i.clusterBits
	i.snap = snapshotState{list, int64(len(b))}
	i.noteSnapshots()
	i.drop(int64(was.snapshotsOffset), n)
	return nil
}

// writeSnapshotPlace has the header say where h has the snapshot table.
func (i *Image) writeSnapshotPlace(h header) error {
	b := be.AppendUint32(nil, h.snapshots)
	return writeFull(i.file, be.AppendUint64(b, h.snapshotsOffset), 60)
}

// writeActive has the header say what size h has, and where the active L1 table is.
func (i *Image) writeActive(h header) error {
	b := be.AppendUint64(nil, h.size)
	b = be.AppendUint32(b, h.crypt)
	b = be.AppendUint32(b, h.l1Size)
	return writeFull(i.file, be.AppendUint64(b, h.l1Offset), 24)
}

// writeReftablePlace has the header say where h has the refcount table.
func (i *Image) writeReftablePlace(h header) error {
	b := be.AppendUint64(nil, h.reftableOffset)
	return writeFull(i.file, be.AppendUint32(b, h.reftableClus), 48)
}

// switchHeader makes h the header by write, on stable storage. On an error the
// header is what it was; or, if that cannot be written either, the image is
// unusable until it is opened again: it is not known then which of the two is in
// force, so that nothing may be freed or written that either refers to.
func (i *Image) switchHeader(h header, write func(header) error) error {
	was := i.hdr
	store := func(h header) error {
		err := write(h)
		i.hdr = h
		if err == nil {
			err = i.sync()
		}
		return err
	}
	err := store(h)
	if err == nil {
		return nil
	}
	if again := store(was); again != nil {
		i.corrupt.Store(true)
		i.say("qcow2: The header could not be written, and the image is not used any more: " + strerror(again))
	}
	return err
}

// snapshotL1 reads the L1 table of e.
func (i *Image) snapshotL1(e *snapshotEntry) ([]uint64, error) {
	if err := i.hdr.validTable(e.l1Offset, uint64(e.l1Size), 8, maxL1Bytes, "Snapshot L1 table"); err != nil {
		return nil, err
	}
	b := make([]byte, int64(e.l1Size)*8)
	if err := readFull(i.file, b, int64(e.l1Offset)); err != nil {
		return nil, fmt.Errorf("Failed to read l1 table for snapshot: %w", err)
	}
	return decodeTable(b), nil
}

// ApplySnapshot makes the image's contents and size those of the snapshot.
func (i *Image) ApplySnapshot(name string) error {
	return i.change(func() error {
		k := findSnapshot(i.snap.list, name)
		if k < 0 {
			return syscall.ENOENT
		}
		e := i.snap.list[k]
		l1, err := i.snapshotL1(&e)
		if err != nil {
			return err
		}
		if err := i.mayBecome(e.diskSize); err != nil {
			return err
		}
		n := max(uint64(e.l1Size), i.hdr.sizeToL1(e.diskSize))
		return i.switchTo(append(l1, make([]uint64, n-uint64(len(l1)))...), int64(e.diskSize))
	})
}

// mayBecome tells why the image cannot have the size of a snapshot.
func (i *Image) mayBecome(size uint64) error {
	switch {
	case size == uint64(i.Size()):
		return nil
	case size > math.MaxInt64 || size&511 != 0:
		return errors.New("The new size must be a multiple of 512")
	case i.hdr.version < 3:
		return errors.New("Can't resize a v2 image which has snapshots")
	case i.hdr.sizeToL1(size) > maxL1Bytes/8:
		return errTooBig
	}
	return i.resizableBitmaps()
}

// switchTo puts l1 in the place of the active L1 table, and the size with it,
// by one write in the header's first sector. What the new table refers to has
// its refcounts raised before, what the old one referred to has them lowered after.
func (i *Image) switchTo(l1 []uint64, size int64) error {
	if err := i.unmark(l1, false); err != nil {
		return err
	}
	if err := i.raiseTree(l1); err != nil {
		return err
	}
	r, err := i.storeL1(l1)
	if err == nil {
		err = i.storeTables()
	}
	was, h := i.hdr, i.hdr
	h.size, h.l1Size, h.l1Offset = uint64(size), uint32(len(l1)), uint64(r.off)
	if err == nil {
		err = i.switchHeader(h, i.writeActive)
	}
	if err == nil {
		return i.switched(l1, int64(was.l1Offset))
	}
	if i.corrupt.Load() {
		return err
	}
	return errors.Join(err, i.unallocate(r), i.lowerTree(l1))
}

// switched notes that l1 is the active table, as the header says, and frees the old one.
// No COPIED flag is to be set: all that is active is the snapshot's, too.
func (i *Image) switched(l1 []uint64, oldOff int64) error {
	old := i.l1
	i.l1, i.l1Dirty = l1, dirtySpan{}
	i.size.Store(int64(i.hdr.size))
	i.l2.max = max(i.l2Slices(), 4)
	i.inflated.clear()
	i.noteTables()
	i.fitBitmaps()
	i.allDirty()
	if err := i.lowerTree(old); err != nil {
		return err
	}
	i.drop(oldOff, i.roundUp(int64(len(old))*8)>>i.clusterBits)
	return nil
}

// DeleteSnapshot removes a snapshot and frees what only it refers to.
func (i *Image) DeleteSnapshot(name string) error {
	return i.change(func() error {
		k := findSnapshot(i.snap.list, name)
		if k < 0 {
			return &notFound{"Can't find the snapshot"}
		}
		e := i.snap.list[k]
		l1, err := i.snapshotL1(&e)
		if err != nil {
			return err
		}
		rest := append(i.snap.list[:k:k], i.snap.list[k+1:]...)
		if err := i.storeSnapshots(rest); err != nil {
			return fmt.Errorf("Failed to remove snapshot from snapshot list: %w", err)
		}
		if err := i.lowerTree(l1); err != nil {
			return fmt.Errorf("Failed to free the cluster and L1 table: %w", err)
		}
		i.drop(int64(e.l1Offset), i.roundUp(int64(e.l1Size)*8)>>i.clusterBits)
		if err := i.markCopied(); err != nil {
			return fmt.Errorf("Failed to update snapshot status in disk: %w", err)
		}
		return nil
	})
}

// notFound is ENOENT in QEMU's words.
type notFound struct{ text string }

func (e *notFound) Error() string { return e.text }
func (e *notFound) Unwrap() error { return syscall.ENOENT }

// LoadSnapshot makes the image, which is open read-only, read as the snapshot.
func (i *Image) LoadSnapshot(name string) error {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return block.ErrClosed
	}
	if !i.readOnly {
		return errors.New("Device is not readonly")
	}
	k := findSnapshot(i.snap.list, name)
	if k < 0 {
		return &notFound{"Can't find snapshot"}
	}
	l1, err := i.snapshotL1(&i.snap.list[k])
	if err != nil {
		return err
	}
	i.l1 = l1
	i.inflated.clear()
	i.noteTables()
	return nil
}
