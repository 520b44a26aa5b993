package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// canaries are bytes of the monitor's that no guest may change, some of them in
// mappings like those of guest memory, some on Go's heap.
type canaries struct {
	mapped [][]byte
	heap   []byte
}

const (
	canarySize = 1 << 20
	canaryByte = 0xa5
)

func plant(n int) *canaries {
	c := &canaries{heap: bytes.Repeat([]byte{canaryByte}, canarySize)}
	for range n {
		b, err := unix.Mmap(-1, 0, canarySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			continue // fewer canaries
		}
		copy(b, c.heap)
		c.mapped = append(c.mapped, b)
	}
	return c
}

func (c *canaries) check() error {
	for _, b := range append(c.mapped, c.heap) {
		for i, v := range b {
			if v != canaryByte {
				return fmt.Errorf("byte %d of a canary is 0x%x", i, v)
			}
		}
	}
	return nil
}

func (c *canaries) free() {
	for _, b := range c.mapped {
		_ = unix.Munmap(b)
	}
}

// disks are the guest's disk, one that it may only read, and one that is not its own.
type disks struct {
	dir                  string
	written, kept, other string
	size                 int64
	sums                 map[string][sha256.Size]byte
}

func newDisks(dir string, r *rand.Rand) (*disks, error) {
	dir, err := os.MkdirTemp(dir, "disks")
	if err != nil {
		return nil, err
	}
	d := &disks{dir: dir, sums: map[string][sha256.Size]byte{}}
	d.written, d.kept, d.other = filepath.Join(dir, "written"), filepath.Join(dir, "kept"), filepath.Join(dir, "other")
	d.size = int64(r.IntN(2 << 20))
	for _, name := range []string{d.written, d.kept, d.other} {
		b := make([]byte, d.size)
		for i := range b {
			b[i] = byte(i * 7)
		}
		d.sums[name] = sha256.Sum256(b)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	if r.IntN(4) == 0 { // more than can be read before somebody loses patience
		d.size = 1 << 40
		if err := os.Truncate(d.written, d.size); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return d, nil
}

// check: what the guest could not write is as it was, and its own disk no longer
// than the whole sectors that it was given.
func (d *disks) check() error {
	for _, name := range []string{d.kept, d.other} {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if sha256.Sum256(b) != d.sums[name] {
			return fmt.Errorf("disk %s was changed", filepath.Base(name))
		}
	}
	info, err := os.Stat(d.written)
	if err != nil {
		return err
	}
	if info.Size() < d.size || info.Size() > (d.size+511)&^511 {
		return fmt.Errorf("the guest's disk of %d bytes has %d now", d.size, info.Size())
	}
	return nil
}

func (d *disks) remove() { _ = os.RemoveAll(d.dir) }
