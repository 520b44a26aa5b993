package vhdx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"berth/block"
	"berth/block/mapped"
)

const (
	logSector = 4 << 10
	logUnit   = 1 << 20
)

// checkLog refuses an image whose log holds what has yet to be written to it:
// as QEMU does when it only reads. The log is a ring of entries, each of whole
// sectors and beginning with
//
//	0x00  "loge"                 0x10  sequence number, 8    0x20  log GUID, 16
//	0x04  CRC-32C of all         0x18  descriptors           0x30  flushed offset, 8
//	0x08  length                 0x1c  reserved              0x38  last offset, 8
//	0x0c  tail
//
// followed by its descriptors, 32 bytes each, and their data. One may begin in
// any sector: of what is torn, not even the length is to be believed.
func (i *image) checkLog(h *header, o block.OpenOptions) error {
	off, n := h.logOffset(), h.logLen()
	switch {
	case off < logUnit || off%logUnit != 0 || off > 1<<62:
		return fmt.Errorf("The VHDX log's offset %d is not valid", off)
	case h.logVersion() != 0:
		return fmt.Errorf("VHDX log version %d is not supported", h.logVersion())
	case h.logGUID() == guid{} || n == 0:
		return nil
	case n%logUnit != 0:
		return fmt.Errorf("The VHDX log's length %d is not valid", n)
	}
	if err := mapped.Within(i.f, int64(off), n); err != nil {
		return fmt.Errorf("The VHDX log: %w", err)
	}
	work := int64(0) // bytes of entries that were read; those that are torn do not overlap
	for at := int64(0); at < n; at += logSector {
		length, valid, err := i.logEntry(int64(off), n, at, h.logGUID())
		if err != nil {
			return err
		}
		if work += length; work > 2*n && !valid {
			return errors.New("The VHDX log is not valid: its entries lie in one another")
		}
		if valid && !o.ReadOnly {
			return fmt.Errorf("VHDX image file '%s' contains a log that needs to be replayed, which is not supported here", o.Filename)
		}
		if valid {
			return fmt.Errorf("VHDX image file '%[1]s' opened read-only, but contains a log that needs to be replayed\n"+
				"To replay the log, run:\nqemu-img check -r all '%[1]s'", o.Filename)
		}
	}
	return nil
}

// logEntry tells how long the entry is that may begin at byte at of the log, 0
// if there is none, and whether it is whole.
func (i *image) logEntry(off, n, at int64, log guid) (length int64, valid bool, err error) {
	p := make([]byte, logSector)
	if err := i.f.Readv([][]byte{p}, off+at); err != nil {
		return 0, false, err
	}
	length = int64(binary.LittleEndian.Uint32(p[8:]))
	if string(p[:4]) != "loge" || guid(p[32:48]) != log || length > n || length%logSector != 0 || binary.LittleEndian.Uint64(p[16:]) == 0 {
		return 0, false, nil
	}
	t := crc32.MakeTable(crc32.Castagnoli)
	want := binary.LittleEndian.Uint32(p[4:])
	clear(p[4:8])
	sum := crc32.Update(0, t, p)
	for done := int64(logSector); done < length; done += logSector {
		if err := i.f.Readv([][]byte{p}, off+(at+done)%n); err != nil {
			return 0, false, err
		}
		sum = crc32.Update(sum, t, p)
	}
	return length, sum == want, nil
}
