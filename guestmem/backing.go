package guestmem

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// UsualHugePages as Backing.HugePages means whatever size the host's usual huge
// pages have.
const UsualHugePages = 1

// Backing is what the host makes a guest's RAM of. The zero value is private
// anonymous memory, in which the host may use transparent huge pages.
type Backing struct {
	Size uint64 // of all RAM that will be added, in bytes
	// HugePages takes all of it from the host's pool of huge pages of this many
	// bytes, or UsualHugePages.
	HugePages uint64
	// Share lets other processes map it: it is a memfd, or File mapped shared.
	Share bool
	// File holds it: a file that is made, or is empty or exactly Size long and
	// loses what it held.
	File string
}

// backing is an opened Backing.
type backing struct {
	Backing
	fd   int    // -1: anonymous
	used uint64 // bytes mapped so far, the offset of the next region in fd
}

// NewBacked returns a memory with no regions whose RAM is made of b. The error
// says in one line what the host lacks, and the remedy.
func NewBacked(b Backing) (*Memory, error) {
	m := New()
	m.backing.Backing = b
	if b.HugePages == UsualHugePages {
		size, err := usualHugePage()
		if err != nil {
			return nil, err
		}
		m.backing.HugePages = size
	}
	if n := m.backing.HugePages; n != 0 {
		if _, err := os.Stat(poolDir(n)); err != nil {
			return nil, fmt.Errorf("memory: this host has no huge pages of %s: %s", sizeText(n), poolSizes())
		}
	}
	if err := m.backing.open(); err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	return m, nil
}

// open makes the file that shared memory needs.
func (b *backing) open() (err error) {
	switch {
	case b.File != "":
		err = b.openFile()
	case b.Share:
		flags := unix.MFD_CLOEXEC
		if b.HugePages != 0 {
			flags |= unix.MFD_HUGETLB | bits.TrailingZeros64(b.HugePages)<<unix.MAP_HUGE_SHIFT
		}
		if b.fd, err = unix.MemfdCreate("berth RAM", flags); err == nil {
			err = unix.Ftruncate(b.fd, int64(b.Size))
		}
	}
	if err != nil {
		err = errors.Join(err, b.close())
	}
	return err
}

func (b *backing) openFile() error {
	// O_NONBLOCK: a FIFO would wait for a writer.
	fd, err := unix.Open(b.File, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err == nil {
		b.fd = fd
		err = b.prepareFile()
	}
	if err != nil {
		return fmt.Errorf("file %s: %w", b.File, err)
	}
	return nil
}

// prepareFile makes sure that nobody else uses the file, that nothing worth
// keeping is in it, and that it reads as zeros.
func (b *backing) prepareFile() error {
	var st unix.Stat_t
	if err := unix.Fstat(b.fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("is not a regular file")
	}
	if err := unix.Flock(b.fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.New("is in use by another VM")
	}
	if st.Size != 0 && st.Size != int64(b.Size) {
		return fmt.Errorf("is %d bytes long, not empty and not %s: it may hold something else; name a new file", st.Size, sizeText(b.Size))
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(b.fd, &fs); err == nil && fs.Type == unix.HUGETLBFS_MAGIC {
		b.HugePages = uint64(fs.Bsize)
		if b.Size%b.HugePages != 0 {
			return fmt.Errorf("%s are not a multiple of its huge pages of %s", sizeText(b.Size), sizeText(b.HugePages))
		}
	}
	if err := unix.Ftruncate(b.fd, int64(b.Size)); err != nil {
		return err
	}
	return b.zeroFile(0, b.Size)
}

// zeroFile drops what the file holds, and takes the space that shared memory
// will need: a guest that touches a page for which there is none would end the VM.
func (b *backing) zeroFile(off, size uint64) error {
	err := unix.Fallocate(b.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(size))
	if err != nil {
		return fmt.Errorf("its file system cannot drop what it holds: %w", err)
	}
	if !b.Share {
		return nil
	}
	switch err := unix.Fallocate(b.fd, 0, int64(off), int64(size)); {
	case errors.Is(err, unix.ENOSPC) && b.HugePages != 0:
		return b.poolError()
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("no space left on its file system for %s", sizeText(size))
	case err != nil && !errors.Is(err, unix.EOPNOTSUPP):
		return err
	}
	return nil
}

func (b *backing) close() error {
	if b.fd < 0 {
		return nil
	}
	fd := b.fd
	b.fd = -1
	return unix.Close(fd)
}

// mapFlags returns the flags with which RAM is mapped. Pages of a pool are
// reserved, so that a guest never touches one that is not there.
func (b *backing) mapFlags() int {
	flags := unix.MAP_PRIVATE
	if b.Share {
		flags = unix.MAP_SHARED
	}
	if b.fd < 0 {
		flags |= unix.MAP_ANONYMOUS
		if b.HugePages != 0 {
			flags |= unix.MAP_HUGETLB | bits.TrailingZeros64(b.HugePages)<<unix.MAP_HUGE_SHIFT
		}
	}
	if b.HugePages == 0 {
		flags |= unix.MAP_NORESERVE
	}
	return flags
}

// clear makes a region zero, and gives its pages back where it may: those of a
// pool are kept, for another could take them meanwhile.
func (b *backing) clear(r *Region) error {
	switch {
	case b.File != "" && b.Share:
		return b.zeroFile(r.fileOffset, uint64(len(r.Host)))
	case b.HugePages != 0:
		return inParallel(r.Host, func(p []byte) error { clear(p); return nil })
	case b.Share:
		return unix.Madvise(r.Host, unix.MADV_REMOVE)
	}
	return unix.Madvise(r.Host, unix.MADV_DONTNEED)
}

// usualHugePage returns the size of the huge pages that the host uses unless told otherwise.
func usualHugePage() (uint64, error) {
	size, err := meminfo("Hugepagesize")
	if err != nil {
		return 0, errors.New("memory: this host's kernel has no huge pages: use hugepages=off")
	}
	return size, nil
}

const poolRoot = "/sys/kernel/mm/hugepages"

func poolDir(page uint64) string { return fmt.Sprintf("%s/hugepages-%dkB", poolRoot, page>>10) }

// poolSizes names the sizes of huge pages that the host has.
func poolSizes() string {
	dirs, _ := filepath.Glob(poolRoot + "/hugepages-*kB")
	var sizes []string
	for _, d := range dirs {
		kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB"), 10, 64)
		if err == nil {
			sizes = append(sizes, sizeText(kib<<10))
		}
	}
	if len(sizes) == 0 {
		return "use hugepages=off"
	}
	return "it has " + strings.Join(sizes, ", ")
}

// poolError says how many huge pages are missing and how to get them.
func (b *backing) poolError() error {
	read := func(name string) uint64 {
		text, _ := os.ReadFile(filepath.Join(poolDir(b.HugePages), name))
		n, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		return n
	}
	need, all := b.Size/b.HugePages, read("nr_hugepages")
	free := read("free_hugepages") - read("resv_hugepages") + b.used/b.HugePages // what is mapped already is ours
	want := all + need - min(free, need)
	remedy := fmt.Sprintf("echo %d >%s/nr_hugepages", want, poolDir(b.HugePages))
	if usual, err := usualHugePage(); err == nil && usual == b.HugePages {
		remedy = fmt.Sprintf("sysctl vm.nr_hugepages=%d", want)
	}
	return fmt.Errorf("%s need %d huge pages of %s, and %d are free: run %s", sizeText(b.Size), need, sizeText(b.HugePages), free, remedy)
}

// sizeText writes a size for people.
func sizeText(n uint64) string {
	switch {
	case n != 0 && n%(1<<30) == 0:
		return fmt.Sprintf("%dG", n>>30)
	case n != 0 && n%(1<<20) == 0:
		return fmt.Sprintf("%dM", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%dK", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
