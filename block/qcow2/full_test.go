package qcow2

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// scarce is a file on a disk with room for some blocks of 4 KiB; holes take none.
type scarce struct {
	*blocktest.MemFile
	has  map[int64]bool
	left int
}

func (s *scarce) take(off, n int64) error {
	const unit = 4096
	for b := off / unit; b*unit < off+n; b++ {
		switch {
		case s.has[b]:
		case s.left == 0:
			return syscall.ENOSPC
		default:
			s.has[b] = true
			s.left--
		}
	}
	return nil
}

func (s *scarce) Writev(iov [][]byte, off int64, f block.Flags) error {
	n := int64(0)
	for _, p := range iov {
		n += int64(len(p))
	}
	if err := s.take(off, n); err != nil {
		return err
	}
	return s.MemFile.Writev(iov, off, f)
}

func (s *scarce) Preallocate(off, n int64, _ bool) error {
	if err := s.take(off, n); err != nil {
		return err
	}
	return s.Truncate(max(s.Size(), off+n))
}

// Close leaves the file to be opened again.
func (s *scarce) Close() error { return nil }

// What was written before a disk is full is there after a flush: the tables that say where have their storage.
func TestFullDiskKeepsWhatWasWritten(t *testing.T) {
	for _, opts := range []string{"", "cluster_size=4k", "cluster_size=4k,refcount_bits=64", "extended_l2=on"} {
		m := blocktest.NewMemFile(nil)
		if err := create(m, block.Creation{Values: parseOptions(opts, 256<<20)}); err != nil {
			t.Fatal(err)
		}
		s := &scarce{MemFile: m, has: map[int64]bool{}, left: 1 << 30}
		if err := s.take(0, m.Size()); err != nil {
			t.Fatal(err)
		}
		s.left = 2000
		i, err := open(s, block.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var written []int64
		for off := int64(0); ; off += 68 << 10 {
			err := i.Writev([][]byte{bytes.Repeat([]byte{byte(off>>10) | 1}, 4096)}, off, 0)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			written = append(written, off)
		}
		if err := errors.Join(i.Flush(), i.Close()); err != nil {
			t.Errorf("%q: %v after %d writes", opts, err, len(written))
			continue
		}
		i, err = open(m, block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		for _, off := range written {
			if err := i.Readv([][]byte{p}, off); err != nil || p[0] != byte(off>>10)|1 || p[4095] != p[0] {
				t.Fatalf("%q: at %#x: %v, %d", opts, off, err, p[0])
			}
		}
	}
}
