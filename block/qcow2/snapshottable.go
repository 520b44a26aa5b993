package qcow2

import (
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"berth/block"
)

// Limits of the snapshot table, those of QEMU.
const (
	maxSnapshotExtra = 1024      // bytes of extra data
	maxSnapshotTable = 64 << 20  // bytes
	knownExtra       = 8 + 8 + 8 // bytes of extra data that have a meaning here
)

// snapshotEntry is one entry of the snapshot table (qcow2 specification,
// "Snapshots"); each begins at a multiple of 8 bytes:
//
//	 0 L1 table offset      8 L1 entries
//	12 length of the ID    14 length of the name
//	16 date, s             20 date, ns
//	24 VM clock, ns        32 VM state size, or 0 if it needs 64 bits
//	36 length of extra data
//	40 extra data: VM state size (8), disk size (8), icount (8), unknown
//	   ID, name
type snapshotEntry struct {
	l1Offset    uint64
	l1Size      uint32
	dateSec     uint32
	dateNsec    uint32
	vmClock     uint64
	vmStateSize uint64
	diskSize    uint64
	icount      uint64
	extraSize   uint32 // bytes, as stored
	unknown     []byte // extra data past what is known
	id, name    string
}

// tableReader reads a table of unknown length in order, zeros past the file's end.
type tableReader struct {
	file block.Image
	off  int64 // of the next byte
	buf  []byte
	at   int64 // of buf's first byte
}

// next returns the next n bytes, valid until the next call; n is at most 64 KiB.
func (r *tableReader) next(n int) ([]byte, error) {
	if r.off > math.MaxInt64-int64(n)-1<<16 {
		return nil, syscall.EINVAL
	}
	if r.off < r.at || r.off+int64(n) > r.at+int64(len(r.buf)) {
		if r.buf == nil {
			r.buf = make([]byte, 1<<16)
		}
		if err := readFull(r.file, r.buf, r.off); err != nil {
			r.buf = nil
			return nil, err
		}
		r.at = r.off
	}
	b := r.buf[r.off-r.at:]
	r.off += int64(n)
	return b[:n], nil
}

func (r *tableReader) align() { r.off = (r.off + 7) &^ 7 }

// snapshotTable is a decoded table and what repairing it has cost.
type snapshotTable struct {
	list    []snapshotEntry
	bytes   int64 // that the table takes in the file
	dropped int   // snapshots past the longest table there may be
	cut     int   // entries with too much extra data
	lines   []string
}

// snapshotError is an error with the hint that QEMU prints below it.
type snapshotError struct{ text, hint string }

func (e *snapshotError) Error() string { return e.text }

// Hint is the line that is printed after the error.
func (e *snapshotError) Hint() string { return e.hint + "\n" }

// Unwrap is QEMU's errno for it.
func (e *snapshotError) Unwrap() error { return syscall.EFBIG }

// readSnapshotTable decodes a table of n entries at off. diskSize is that of
// entries that have none. With repair it cuts what is too large off, else that is an error.
func readSnapshotTable(f block.Image, off int64, n uint32, diskSize uint64, repair bool) (snapshotTable, error) {
	var t snapshotTable
	r := &tableReader{file: f, off: off}
	length := int64(0)
	for k := range n {
		before := r.off
		r.align()
		e, extra, err := readSnapshotEntry(r, diskSize)
		if err != nil {
			return t, fmt.Errorf("Failed to read snapshot table: %w", err)
		}
		if extra > maxSnapshotExtra {
			if !repair {
				return t, &snapshotError{fmt.Sprintf("Too much extra metadata in snapshot table entry %d", k),
					"You can force-remove this extra metadata with qemu-img check -r all"}
			}
			t.cut++
			t.lines = append(t.lines, fmt.Sprintf("Discarding too much extra metadata in snapshot table entry %d (%d > %d)", k, extra, maxSnapshotExtra))
		}
		length = (length+7)&^7 + snapshotMinimum + int64(e.extraSize) + int64(len(e.id)+len(e.name))
		if length > maxSnapshotTable || r.off-off > math.MaxInt32 {
			if !repair {
				return t, &snapshotError{"Snapshot table is too big",
					fmt.Sprintf("You can force-remove all %d overhanging snapshots with qemu-img check -r all", n-k)}
			}
			t.dropped = int(n - k)
			t.lines = append(t.lines, fmt.Sprintf("Discarding %d overhanging snapshots (snapshot table is too big)", n-k))
			r.off = before
			break
		}
		t.list = append(t.list, e)
	}
	t.bytes = r.off - off
	return t, nil
}

// readSnapshotEntry decodes one entry, of whose extra data it keeps at most
// maxSnapshotExtra bytes. extra is how many there are.
func readSnapshotEntry(r *tableReader, diskSize uint64) (e snapshotEntry, extra uint32, err error) {
	b, err := r.next(snapshotMinimum)
	if err != nil {
		return e, 0, err
	}
	e = snapshotEntry{
		l1Offset: be.Uint64(b), l1Size: be.Uint32(b[8:]),
		dateSec: be.Uint32(b[16:]), dateNsec: be.Uint32(b[20:]), vmClock: be.Uint64(b[24:]),
		vmStateSize: uint64(be.Uint32(b[32:])), diskSize: diskSize, icount: math.MaxUint64,
	}
	idLen, nameLen := int(be.Uint16(b[12:])), int(be.Uint16(b[14:]))
	extra = be.Uint32(b[36:])
	e.extraSize = min(extra, maxSnapshotExtra)
	end := r.off + int64(extra)
	if b, err = r.next(int(e.extraSize)); err != nil {
		return e, 0, err
	}
	if len(b) >= 8 {
		e.vmStateSize = be.Uint64(b)
	}
	if len(b) >= 16 {
		e.diskSize = be.Uint64(b[8:])
	}
	if len(b) >= knownExtra {
		e.icount = be.Uint64(b[16:])
		e.unknown = append([]byte(nil), b[knownExtra:]...)
	}
	r.off = end
	if b, err = r.next(idLen); err != nil {
		return e, 0, err
	}
	e.id = cString(b)
	if b, err = r.next(nameLen); err != nil {
		return e, 0, err
	}
	e.name = cString(b)
	return e, extra, nil
}

// encodeSnapshots is the table of list. The error is EFBIG if it is too large.
func encodeSnapshots(list []snapshotEntry) ([]byte, error) {
	var b []byte
	for _, e := range list {
		b = append(b, make([]byte, -len(b)&7)...)
		var h [snapshotMinimum + knownExtra]byte
		be.PutUint64(h[0:], e.l1Offset)
		be.PutUint32(h[8:], e.l1Size)
		be.PutUint16(h[12:], uint16(len(e.id)))
		be.PutUint16(h[14:], uint16(len(e.name)))
		be.PutUint32(h[16:], e.dateSec)
		be.PutUint32(h[20:], e.dateNsec)
		be.PutUint64(h[24:], e.vmClock)
		if e.vmStateSize <= math.MaxUint32 { // else old programs take it for one without VM state
			be.PutUint32(h[32:], uint32(e.vmStateSize))
		}
		be.PutUint32(h[36:], uint32(knownExtra+len(e.unknown)))
		be.PutUint64(h[40:], e.vmStateSize)
		be.PutUint64(h[48:], e.diskSize)
		be.PutUint64(h[56:], e.icount)
		b = append(b, h[:]...)
		b = append(b, e.unknown...)
		b = append(b, e.id...)
		b = append(b, e.name...)
		if len(b) > maxSnapshotTable {
			return nil, errTooBig
		}
	}
	return b, nil
}

func (e *snapshotEntry) describe() block.Snapshot {
	return block.Snapshot{
		ID: e.id, Name: e.name,
		VMStateSize: int64(e.vmStateSize), DiskSize: int64(e.diskSize),
		Date:    time.Unix(int64(e.dateSec), int64(e.dateNsec)),
		VMClock: time.Duration(e.vmClock), ICount: int64(e.icount),
	}
}

// nextSnapshotID is one more than the largest number that an ID begins with.
func nextSnapshotID(list []snapshotEntry) string {
	var top uint64
	for _, e := range list {
		s := strings.TrimLeft(e.id, " \t\n\v\f\r")
		var n uint64
		for _, c := range []byte(s) {
			if c < '0' || c > '9' || n > (math.MaxUint64-9)/10 {
				break
			}
			n = n*10 + uint64(c-'0')
		}
		top = max(top, n)
	}
	return fmt.Sprint(top + 1)
}

// findSnapshot returns the entry with that ID, or else the first with that name; -1: none.
func findSnapshot(list []snapshotEntry, name string) int {
	for k := range list {
		if list[k].id == name {
			return k
		}
	}
	for k := range list {
		if list[k].name == name {
			return k
		}
	}
	return -1
}
