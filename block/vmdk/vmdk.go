// Package vmdk reads VMware's disk images.
package vmdk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"syscall"

	"berth/block"
	"berth/block/mapped"
)

const (
	sectorSize = 512

	magicSparse = "KDMV"
	magicCOW    = "COWD" // of VMware ESX; not supported

	maxDescriptor = 1<<20 - 1  // bytes
	maxExtents    = 4096       // 8 TiB in extents of 2 GiB
	maxBytes      = 1 << 62    // of a disk
	embeddedAt    = sectorSize // where a sparse file's descriptor is
	noParent      = 0xffffffff // parentCID of what stands on nothing
)

// Format returns what there is to say about the format; its images are only read.
func Format() block.Format {
	return block.Format{Name: "vmdk", Probe: probe, Open: open}
}

// image is a disk of one extent or several, one after the other.
type image struct {
	*mapped.Image
	d       descriptor
	extents []*extent
	tables  *mapped.Cache // of the last sparse extent
	backing block.Image
}

func open(f block.File, o block.OpenOptions) (block.Image, error) {
	if err := mapped.Refuse("vmdk", o); err != nil {
		return nil, err
	}
	i := &image{}
	if err := i.open(f, o); err != nil {
		for _, e := range i.extents {
			if e.f != f {
				_ = e.f.Close()
			}
		}
		return nil, err
	}
	files, size := []block.File{f}, int64(0)
	for _, e := range i.extents {
		size += e.size
		if e.f != f {
			files = append(files, e.f)
		}
	}
	i.Image = mapped.New(i, size, files...)
	return i, nil
}

func (i *image) open(f block.File, o block.OpenOptions) error {
	if f.Size() == 0 {
		return errors.New("File is too small, not a valid image")
	}
	var magic [4]byte
	if err := f.Readv([][]byte{magic[:]}, 0); err != nil {
		return fmt.Errorf("Could not read from file: %w", err)
	}
	at := int64(0)
	switch string(magic[:]) {
	case magicSparse:
		at = embeddedAt
	case magicCOW:
		return errors.New("Unsupported image type 'vmfsSparse'")
	}
	text, err := readText(f, at)
	if err != nil {
		return err
	}
	if at == 0 {
		err = i.openExtents(text, o)
	} else {
		err = i.openMonolithic(f, o)
	}
	if err != nil {
		return err
	}
	if err := i.d.parse(text); err != nil {
		return err
	}
	if i.d.parent == "" && i.d.parentCID != noParent {
		return fmt.Errorf("The VMDK image is a delta link (parentCID %08x) but names no parent", i.d.parentCID)
	}
	return nil
}

// openMonolithic opens what is one file. An empty one has its extents elsewhere.
func (i *image) openMonolithic(f block.File, o block.OpenOptions) error {
	h, err := readHeader(f, o.Filename)
	if err != nil {
		return err
	}
	if h.capacity() == 0 && h.descriptorOffset() != 0 {
		if h.descriptorOffset() > math.MaxInt64/sectorSize {
			return errors.New("invalid VMDK image descriptor")
		}
		text, err := readText(f, int64(h.descriptorOffset())*sectorSize)
		if err != nil {
			return err
		}
		return i.openExtents(text, o)
	}
	i.d.createType = "monolithicSparse"
	e, err := newSparse(f, o.Filename, h)
	if err != nil {
		return err
	}
	return i.add(e)
}

// openExtents opens the files that a descriptor names.
func (i *image) openExtents(text string, o block.OpenOptions) error {
	lines, err := i.d.parseExtents(text)
	if err != nil {
		return err
	}
	for _, l := range lines {
		if o.Sibling == nil {
			return fmt.Errorf("The image is in other files too ('%s'), which are not opened here", l.name)
		}
		f, name, err := o.Sibling(l.name)
		if err != nil {
			return err
		}
		e, err := newExtent(f, name, l)
		if err == nil {
			e.stated = l.sectors
			err = i.add(e)
		}
		if err != nil {
			_ = f.Close()
			return err
		}
	}
	if len(i.extents) == 0 {
		return errors.New("invalid VMDK image descriptor: it names no extents")
	}
	return nil
}

func (i *image) add(e *extent) error {
	if k := len(i.extents) - 1; k >= 0 {
		p := i.extents[k]
		if p.size/sectorSize != p.stated {
			return fmt.Errorf("The VMDK extent '%s' has %d sectors, and by the descriptor %d: where the next begins is not known", p.name, p.size/sectorSize, p.stated)
		}
		e.start = p.start + p.size
	}
	if e.tables != nil && i.tables != nil {
		e.tables = i.tables.Of(e.f)
	}
	i.tables = cmp.Or(e.tables, i.tables)
	if e.start > maxBytes-e.size {
		return errors.New("The VMDK extents are too large together")
	}
	if e.compressed {
		i.d.createType = "streamOptimized"
	}
	i.extents = append(i.extents, e)
	return nil
}

// Run implements mapped.Map.
func (i *image) Run(off, n int64) (mapped.Run, error) {
	k := sort.Search(len(i.extents), func(k int) bool { return off < i.extents[k].start+i.extents[k].size })
	e := i.extents[k]
	r, err := e.run(off-e.start, min(n, e.start+e.size-off))
	if err == nil && r.Kind == mapped.Unallocated && i.backing != nil {
		err = i.checkParent()
		r.Read = func(iov [][]byte) error { return i.readBacking(iov, off) }
	}
	return r, err
}

// checkParent says whether the backing image is still what this was made on.
func (i *image) checkParent() error {
	if p, ok := i.backing.(interface{ CID() uint32 }); !ok || p.CID() != i.d.parentCID {
		return fmt.Errorf("the backing file is not what this image was made on (its CID differs): %w", syscall.EINVAL)
	}
	return nil
}

// readBacking reads what only the backing image has.
func (i *image) readBacking(iov [][]byte, off int64) error {
	size := i.backing.Size()
	have, rest := mapped.Cut(iov, max(0, size-off))
	for _, p := range rest {
		clear(p)
	}
	if off >= size {
		return nil
	}
	return i.backing.Readv(have, off)
}

// CID is the number that images with this backing image know it by.
func (i *image) CID() uint32 { return i.d.cid }

// BackingFile implements block.Backed.
func (i *image) BackingFile() (name, format string) {
	if i.d.parent == "" {
		return "", ""
	}
	return i.d.parent, "vmdk"
}

// SetBacking implements block.Backed.
func (i *image) SetBacking(b block.Image) { i.backing = b }

// ChangeBackingFile implements block.Backed.
func (*image) ChangeBackingFile(string, string) error { return block.ErrReadOnly }

// Info implements block.Informer.
func (i *image) Info() block.Info {
	first := i.extents[0]
	n := block.Info{ClusterSize: first.grain}
	var list [][]block.Field
	for _, e := range i.extents {
		if e.grain != first.grain || e.compressed != first.compressed {
			n.ClusterSize = 0
		}
		fields := []block.Field{{Name: "filename", Value: e.name}, {Name: "format", Value: e.kind}, {Name: "virtual-size", Value: e.size}}
		if e.grain != 0 {
			fields = append(fields, block.Field{Name: "cluster-size", Value: e.grain})
		}
		if e.compressed {
			fields = append(fields, block.Field{Name: "compressed", Value: true})
		}
		list = append(list, fields)
	}
	n.Specific = []block.Field{
		{Name: "create-type", Value: i.d.createType}, {Name: "cid", Value: int64(i.d.cid)},
		{Name: "parent-cid", Value: int64(i.d.parentCID)}, {Name: "extents", Value: list},
	}
	return n
}

// Check implements block.Checker: it ends at the first finding; nothing is repaired.
func (i *image) Check(fix block.Fix, report func(string)) (block.CheckResult, error) {
	var res block.CheckResult
	if fix != 0 {
		return res, syscall.ENOTSUP
	}
	for _, e := range i.extents {
		seen := map[int64]bool{} // tables: the directory may name one any number of times
		for off := int64(0); off < e.size; {
			if covers := e.perTable * e.grain; covers != 0 && off%covers == 0 {
				t, _ := e.table(off) // an error is e.run's too
				if seen[t] {
					off += covers
					continue
				}
				seen[t] = t != 0
			}
			r, err := e.run(off, e.size-off)
			if err != nil {
				report(fmt.Sprintf("ERROR: could not get cluster_offset for sector %d", (e.start+off)/sectorSize))
				res.Corruptions++
				return res, syscall.EPERM
			}
			if past, ok := e.pastEnd(r); ok {
				report(fmt.Sprintf("ERROR: cluster offset for sector %d points after EOF", (e.start+off+past)/sectorSize))
				res.Corruptions++
				return res, syscall.EINVAL
			}
			off += r.Len
		}
	}
	return res, nil
}

// pastEnd returns how far into r the first grain is that begins past the end of the file.
func (e *extent) pastEnd(r mapped.Run) (past int64, ok bool) {
	if r.Kind != mapped.Data && r.Kind != mapped.Compressed {
		return 0, false
	}
	if over := r.Off + r.Len - e.f.Size(); over > 0 && e.grain > 0 {
		past = max(0, (e.f.Size()-r.Off+e.grain-1)/e.grain*e.grain)
	}
	return past, r.Off+past >= e.f.Size() && past < r.Len
}

// probe knows the magic numbers, and a descriptor by its version, before which
// there are only comments and blank lines.
func probe(head []byte) int {
	if len(head) < 4 {
		return 0
	}
	if m := string(head[:4]); m == magicSparse || m == magicCOW {
		return 100
	}
	for s := string(head); s != ""; {
		switch s[0] {
		case '#':
			s = afterLine(s)
			continue
		case ' ':
			for s != "" && s[0] == ' ' {
				s = s[1:]
			}
			if s != "" && s[0] == '\r' {
				s = s[1:]
			}
			if s == "" || s[0] != '\n' {
				return 0
			}
			s = s[1:]
			continue
		}
		for _, v := range []string{"version=1", "version=2", "version=3"} {
			if n := len(v); len(s) > n && s[:n] == v && (s[n] == '\n' || len(s) > n+1 && s[n:n+2] == "\r\n") {
				return 100
			}
		}
		return 0
	}
	return 0
}

// u32s reads a table's entries, which are little endian.
func u32s(p []byte, k int64) int64 { return int64(binary.LittleEndian.Uint32(p[4*k:])) }
