package block

import "time"

// Image is the contents of a disk image by calls that block until they are
// done; package block/pool makes a Disk of it. Safe for concurrent use.
//
// Off and length lie within Size, else the error is ErrRange; both may be any
// number of bytes. An image opened read-only answers writes with ErrReadOnly.
// Readv fills and Writev takes from the whole of iov, which it does not keep.
// Close writes back what is held in memory and closes what the image owns.
type Image interface {
	Readv(iov [][]byte, off int64) error
	Writev(iov [][]byte, off int64, f Flags) error
	Flush() error
	Size() int64 // bytes
	Close() error
}

// File is what a format's metadata and data lie in: an Image without an end.
// It reads as zeros past its size, and grows when it is written there.
type File interface {
	Image
	Resizer
	ZeroWriter
	Discarder
	Extenter
}

// Resizer is an image whose size can change. Truncate to a larger size adds zeros.
type Resizer interface{ Truncate(size int64) error }

// ZeroWriter makes ranges zero for less than writing zeros costs. With
// FlagNoFallback it answers ErrUnsupported, and has changed nothing, when it
// would have to write them. The zeros are the image's own: another backing image
// does not show through them.
type ZeroWriter interface {
	WriteZeroes(off, n int64, f Flags) error
}

// Discarder gives back a range's storage. It is advice: afterwards the range's
// contents are what they were, zeros, or those of the backing image.
type Discarder interface{ Discard(off, n int64) error }

// Preallocator is a file that can have its storage given to it beforehand:
// written with zeros if full, else only reserved.
type Preallocator interface {
	Preallocate(off, n int64, full bool) error
}

// Occupier is a file that knows how many bytes of storage it takes.
type Occupier interface{ Occupied() (int64, error) }

// PreallocResizer is an image that can grow with storage given to what is
// added; mode is one of "off", "metadata", "falloc" and "full".
type PreallocResizer interface {
	TruncatePrealloc(size int64, mode string) error
}

// Extenter tells where an image's contents come from. Extent describes the run
// that begins at off and is at most n bytes long; it may end earlier than the
// property does.
type Extenter interface {
	Extent(off, n int64) (Extent, error)
}

// Extent is a run of bytes that are alike. Its meaning is that of QEMU's block
// status flags of the same names.
type Extent struct {
	Len        int64
	Allocated  bool   // decided in this image; else its backing image decides, or zeros
	Data       bool   // stored in a file
	Zero       bool   // reads as zeros
	Compressed bool   // stored compressed, so without an offset
	HasOffset  bool   // Off tells where in the image's file (or data file) it begins
	Off        int64  // bytes
	File       string // the name of the file that Off is in, if it is another than the image's (or data file)
	EOF        bool   // the run ends where the image does
	Deeper     bool   // Data, of which the file at Off may know that parts are zeros (clusters preallocated without contents)
}

// CompressedWriter stores one cluster compressed; p is a whole cluster, or the
// rest of the image, at a multiple of the cluster size. Compression of several
// clusters at once runs in parallel.
type CompressedWriter interface {
	WriteCompressed(p []byte, off int64) error
}

// Compressor is a CompressedWriter whose two steps can be taken apart, so that
// clusters compressed in parallel are still placed in order. Compress appends
// p compressed to dst, and may be called by many at once; nil: p does not get
// smaller. PlaceCompressed stores what Compress made of p, or p itself if c is nil.
type Compressor interface {
	Compress(dst, p []byte) (c []byte, err error)
	PlaceCompressed(c, p []byte, off int64) error
}

// Emptier is an image that can forget all that it has allocated, and so reads
// as its backing image again.
type Emptier interface{ MakeEmpty() error }

// RangeCopier is an image that can have the kernel copy bytes into it from the
// file that another image's are in. ErrUnsupported: these two cannot; nothing has been changed.
type RangeCopier interface {
	CopyRange(from Image, fromOff, off, n int64) error
}

// Backed is an image that may have a backing image: what it has not allocated
// is read from there, as zeros past the backing image's end. The names are those stored in
// the image. Whoever opens the graph opens the backing image and sets it, and keeps owning it.
type Backed interface {
	BackingFile() (name, format string)          // "": none
	SetBacking(Image)                            // nil: none
	ChangeBackingFile(name, format string) error // stores other names; "": none
}

// DataFiled is an image whose data lies in another file than its metadata. ok is false if it
// does not. SetDataFile comes before the first read or write; the image owns the file from then on.
type DataFiled interface {
	DataFile() (name string, raw, ok bool)
	SetDataFile(File)
}

// Snapshot is an internal snapshot of an image.
type Snapshot struct {
	ID, Name    string
	VMStateSize int64 // bytes
	DiskSize    int64 // bytes
	Date        time.Time
	VMClock     time.Duration
	ICount      int64 // instructions executed; -1: not recorded
}

// Snapshotter is an image with internal snapshots. They are named by ID, or by
// name where no ID is the same. LoadSnapshot makes the image read as the
// snapshot without changing anything on the disk; the image is read-only from then on.
type Snapshotter interface {
	Snapshots() []Snapshot
	CreateSnapshot(Snapshot) error // an empty ID: the next free number
	ApplySnapshot(name string) error
	DeleteSnapshot(name string) error
	LoadSnapshot(name string) error
}

// BitmapInfo is one persistent dirty bitmap of an image.
type BitmapInfo struct {
	Name        string
	Granularity int64 // bytes
	InUse       bool  // not closed properly: its contents are not to be trusted
	Auto        bool  // records writes
}

// Bitmapper is an image with persistent dirty bitmaps. DirtyRanges calls f with
// each run of dirty bytes, in order, until f returns false.
type Bitmapper interface {
	Bitmaps() []BitmapInfo
	AddBitmap(BitmapInfo) error
	RemoveBitmap(name string) error
	ClearBitmap(name string) error
	EnableBitmap(name string, on bool) error
	MarkBitmap(name string, off, n int64) error
	DirtyRanges(name string, f func(off, n int64) bool) error
}

// Fix says what Check may repair.
type Fix uint8

// What Check may repair.
const (
	FixLeaks  Fix = 1 << 0
	FixErrors Fix = 1 << 1
	FixAll        = FixLeaks | FixErrors
)

// CheckResult is what Check has found; the counts are of clusters, as qemu-img check prints them.
type CheckResult struct {
	Corruptions, Leaks, CheckErrors          int64
	CorruptionsFixed, LeaksFixed             int64
	Total, Allocated, Fragmented, Compressed int64
	ImageEnd                                 int64 // bytes
}

// Checker is an image whose metadata can be checked and repaired. report gets
// each finding as a line, as QEMU words it.
type Checker interface {
	Check(fix Fix, report func(string)) (CheckResult, error)
}

// Field is one item of a format's own description: a string, bool, int64, []Field
// (an object) or [][]Field (a list of them).
type Field struct {
	Name  string // as in QMP: "lazy-refcounts"
	Value any
}

// Info is what an image says of itself.
type Info struct {
	ClusterSize int64 // bytes; 0: none
	Compressed  bool  // all of it is stored compressed
	Dirty       bool
	Corrupt     bool
	Encrypted   bool
	Specific    []Field // of the format; in QMP's order
}

// Informer is an image with more to say than its size.
type Informer interface{ Info() Info }
