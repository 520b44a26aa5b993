// Package raw is a disk image whose bytes are those of a file or block device.
package raw

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/block"
)

const sectorSize = 512 // bytes

// FileOptions says how a file is opened.
type FileOptions struct {
	ReadOnly bool
	Direct   bool // past the page cache (O_DIRECT); what is not aligned goes through a buffer
	NoFlush  bool // Flush and FlagFUA do nothing: the contents are not worth a crash
	Lock     Lock
	Unlocked bool // Lock and Relock do nothing: for file systems that know no locks
	// Closed is called when the file is closed, one that Use fails to open too. Then
	// it is a copy of a descriptor, whose locks Close gives up, since the other copies
	// would keep them. nil: it is not.
	Closed func()
}

// File is a block.File over a file or block device. Every call blocks in the
// system calls that it makes. Safe for concurrent use.
type File struct {
	file     *os.File
	fd       int
	device   bool // not a file
	topology block.Topology
	readOnly atomic.Bool
	noFlush  bool
	align    int // O_DIRECT's unit in bytes; 0: the page cache is used
	gone     atomic.Bool
	lost     atomic.Pointer[error] // what a flush failed of; see sync
	size     atomic.Int64
	traffic  traffic
	holders  atomic.Int32 // beside the first

	// growth is held for reading by writes that lengthen the file, and, with
	// O_DIRECT, by all that changes it; for writing by what sets the length or
	// rewrites blocks that it read before.
	growth  sync.RWMutex
	vectors sync.Pool // of *vector
	bounces sync.Pool // of *[]byte

	unlocked bool
	closed   func()
	lockMu   sync.Mutex
	lock     Lock
}

var (
	_ block.File         = (*File)(nil)
	_ block.Preallocator = (*File)(nil)
	_ block.Shaped       = (*File)(nil)
	_ block.Occupier     = (*File)(nil)
)

// kindOf says what a file can be: device is a block device, or one of memory that
// holds nothing (/dev/null, /dev/zero, /dev/full: Linux's Documentation/admin-guide/devices.txt).
// Other devices are refused, since to open one may be to use it.
func kindOf(info fs.FileInfo) (device bool, err error) {
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return false, nil
	case mode.IsDir():
		return false, errors.New("is a directory")
	case mode&fs.ModeDevice == 0:
	case mode&fs.ModeCharDevice == 0 || empty(info):
		return true, nil
	}
	return false, errors.New("is neither a file nor a block device")
}

func empty(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeCharDevice == 0 || unix.Major(st.Rdev) != 1 {
		return false
	}
	minor := unix.Minor(st.Rdev)
	return minor == 3 || minor == 5 || minor == 7
}

// OpenFile opens what is at path. Only files and block devices are opened, and
// devices that hold nothing: a FIFO would wait for its other end. The error does not name path; it is a
// *LockError, and so block.ErrInUse, if another process's lock stands against o.Lock.
func OpenFile(path string, o FileOptions) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, reason(err)
	}
	if _, err := kindOf(info); err != nil {
		return nil, err
	}
	flag := os.O_RDWR | unix.O_NONBLOCK // a FIFO put there meanwhile
	if o.ReadOnly {
		flag = os.O_RDONLY | unix.O_NONBLOCK
	}
	if o.Direct {
		flag |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, reason(err)
	}
	return Use(f, o)
}

// Use makes a File of an open one, which it owns from then on, also if there is
// an error. A descriptor that was passed on shares the locks of whoever passed
// it, and keeps them until its last copy is closed.
func Use(file *os.File, o FileOptions) (*File, error) {
	f := &File{file: file, fd: int(file.Fd()), noFlush: o.NoFlush, unlocked: o.Unlocked, closed: o.Closed}
	f.readOnly.Store(o.ReadOnly)
	if err := f.setUp(o); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *File) setUp(o FileOptions) error {
	info, err := f.file.Stat()
	if err != nil {
		return reason(err)
	}
	if f.device, err = kindOf(info); err != nil {
		return err
	}
	if f.device && !o.ReadOnly {
		if n, err := unix.IoctlGetInt(f.fd, unix.BLKROGET); err == nil && n != 0 {
			return fmt.Errorf("the device is not writable: %w", unix.EACCES)
		}
	}
	if err := f.Relock(o.Lock); err != nil {
		return err
	}
	end, err := f.file.Seek(0, 2) // the size of a block device too
	if err != nil {
		return reason(err)
	}
	f.size.Store(end)
	if empty(info) {
		f.topology = block.Topology{Logical: sectorSize, Physical: sectorSize, MinIO: sectorSize}
	} else if f.topology, err = f.probe(); err != nil {
		return err
	}
	if o.Direct {
		f.align = f.directUnit()
	}
	return nil
}

// reason drops the operation and path that package os puts in front.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Relock replaces the file's locks. On an error the old ones stay.
func (f *File) Relock(l Lock) error {
	f.lockMu.Lock()
	defer f.lockMu.Unlock()
	if f.unlocked {
		return nil
	}
	if err := f.lock.change(f.fd, l); err != nil {
		return err
	}
	f.lock = l
	return nil
}

// Lock returns what Relock was last given.
func (f *File) Lock() Lock {
	f.lockMu.Lock()
	defer f.lockMu.Unlock()
	return f.lock
}

// OSFile returns the open file, to be passed to another process. It stays the File's.
func (f *File) OSFile() *os.File { return f.file }

// DirectUnit returns what O_DIRECT takes multiples of, in bytes; 0: the page cache is used.
// What is not aligned to it is done by reading whole blocks and writing them back.
func (f *File) DirectUnit() int { return f.align }

// Size returns the length of the file, as it was opened and changed since, or of the device.
func (f *File) Size() int64 { return f.size.Load() }

// Occupied returns how many bytes of storage the file has; 0 for a device.
func (f *File) Occupied() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, err
	}
	return st.Blocks * sectorSize, nil
}

// IsDevice tells whether it is a device, not a file.
func (f *File) IsDevice() bool { return f.device }

// Hold has the file stay open until Close has been called once more.
func (f *File) Hold() { f.holders.Add(1) }

// Close releases the file and its locks, once it has been called by all who hold it.
func (f *File) Close() error {
	if f.holders.Add(-1) >= 0 {
		return nil
	}
	if f.closed == nil {
		return f.file.Close()
	}
	err := errors.Join(f.Relock(Lock{}), f.file.Close())
	f.closed()
	return err
}

// ReadOnly tells whether the file is open for reading alone.
func (f *File) ReadOnly() bool { return f.readOnly.Load() }

// Replace has another File of the same contents, which is not used otherwise, take
// f's place, with the locks that f has. What is under way goes on with the one that it
// began with. other is closed.
func (f *File) Replace(other *File) error {
	f.lockMu.Lock()
	defer f.lockMu.Unlock()
	if !f.unlocked {
		if err := f.lock.each(other.fd, readLock); err != nil { // f's own locks say that it is allowed
			return errors.Join(err, other.Close())
		}
	}
	readOnly := other.ReadOnly()
	if readOnly {
		f.readOnly.Store(true)
	}
	if err := retry(func() error { return unix.Dup3(other.fd, f.fd, unix.O_CLOEXEC) }); err != nil {
		return errors.Join(err, other.Close())
	}
	f.readOnly.Store(readOnly)
	return other.Close()
}

// Abandon fails what is under way and what will be, as soon as its next system
// call returns. What the last flush covered is safe.
func (f *File) Abandon() { f.gone.Store(true) }

// Flush puts on stable storage what was written before.
func (f *File) Flush() error {
	if f.gone.Load() {
		return block.ErrClosed
	}
	return f.sync()
}

// sync is fdatasync(2). Where one has failed all later ones do: the kernel counts
// the pages that it could not write as clean, says so once, and would answer the
// next flush that all is well. O_DIRECT leaves no such pages.
func (f *File) sync() error {
	if f.noFlush {
		return nil
	}
	if f.lost.Load() == nil {
		err := retry(func() error { return unix.Fdatasync(f.fd) })
		if f.align != 0 {
			return err
		}
		if err != nil {
			f.lost.CompareAndSwap(nil, &err)
		}
	}
	if err := f.lost.Load(); err != nil { // also of a flush that was under way beside this one
		return *err
	}
	return nil
}

// Readv fills the buffers; what lies past the end of the file is zeros.
func (f *File) Readv(iov [][]byte, off int64) error {
	if off < 0 {
		return block.ErrRange
	}
	if f.align != 0 && !fits(iov, off, f.align) {
		return f.bounceRead(iov, off)
	}
	v := f.vector(iov)
	defer f.vectors.Put(v)
	return f.read(v, off)
}

// vector returns a vector of the buffers; f.vectors gets it back.
func (f *File) vector(iov [][]byte) *vector {
	v, ok := f.vectors.Get().(*vector)
	if !ok {
		v = new(vector)
	}
	v.start(iov)
	return v
}

func (f *File) read(v *vector, off int64) error {
	for !v.done() {
		if f.gone.Load() {
			return block.ErrClosed
		}
		n, err := v.preadv(f.fd, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading at %d: %w", off, err)
		}
		if n == 0 || (f.align != 0 && n%int64(f.align) != 0) { // O_DIRECT reads less only at the end
			v.advance(n)
			v.zero()
			return nil
		}
		v.advance(n)
		off += n
	}
	return nil
}

// Writev writes the buffers, and lengthens the file where they end past it.
func (f *File) Writev(iov [][]byte, off int64, flags block.Flags) error {
	if f.readOnly.Load() {
		return block.ErrReadOnly
	}
	n, err := length(iov, off)
	if err != nil || n == 0 {
		return err
	}
	if f.align != 0 && !fits(iov, off, f.align) {
		err = f.bounceWrite(iov, off, n)
	} else {
		err = f.writeWhole(iov, off, n)
	}
	if err == nil && flags&block.FlagFUA != 0 {
		err = f.sync()
	}
	return err
}

// length is the number of bytes in iov, which begins at off.
func length(iov [][]byte, off int64) (n int64, err error) {
	for _, b := range iov {
		n += int64(len(b))
	}
	if off < 0 || off+n < off {
		return 0, block.ErrRange
	}
	return n, nil
}

func (f *File) writeWhole(iov [][]byte, off, n int64) error {
	grows := off+n > f.size.Load()
	if grows || f.align != 0 {
		f.growth.RLock()
		defer f.growth.RUnlock()
	}
	v := f.vector(iov)
	defer f.vectors.Put(v)
	err := f.write(v, off)
	f.traffic.wrote(off + n)
	if err == nil && grows && !f.device {
		f.reach(off + n)
	}
	return err
}

// reach notes that the file is at least end bytes long.
func (f *File) reach(end int64) {
	for {
		size := f.size.Load()
		if size >= end || f.size.CompareAndSwap(size, end) {
			return
		}
	}
}

func (f *File) write(v *vector, off int64) error {
	for !v.done() {
		if f.gone.Load() {
			return block.ErrClosed
		}
		n, err := v.pwritev(f.fd, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			return fmt.Errorf("writing at %d: %w", off, err)
		}
		v.advance(n)
		off += n
	}
	return nil
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
