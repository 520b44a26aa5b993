// Package pvh boots an ELF kernel through its Xen PVH note, in 32-bit protected mode with a start_info.
package pvh

import (
	"encoding/binary"
	"errors"
	"fmt"

	"berth/boot"
	"berth/guestmem"
)

// Layouts of Xen's public/arch-x86/hvm/start_info.h, version 1. Everything
// lies in the page of start_info: the structure, its one module, the map.
//
//	start_info        module          memory map entry
//	magic       u32   paddr     u64   addr     u64
//	version     u32   size      u64   size     u64
//	flags       u32   cmdline   u64   type     u32
//	nr_modules  u32   reserved  u64   reserved u32
//	modlist     u64
//	cmdline     u64
//	rsdp        u64
//	memmap      u64
//	entries     u32
//	reserved    u32
const (
	startMagic  = 0x336ec578
	version     = 1
	startSize   = 56
	moduleSize  = 32
	mapSize     = 24
	modlistAddr = boot.StartInfoAddr + startSize
	memmapAddr  = modlistAddr + moduleSize
	pageSize    = 4096
	maxMap      = (pageSize - startSize - moduleSize) / mapSize
)

// maxCmdline is Linux's limit; the protocol states none.
const maxCmdline = 2047

// below4G is the last byte that a 32-bit entry can reach.
const below4G = 1<<32 - 1

// Load loads the ELF kernel p.Kernel and returns how the boot vCPU enters it.
func Load(mem *guestmem.Memory, p boot.Params) (*boot.Entry, error) {
	f, err := boot.ReadELF(p.Kernel)
	if err != nil {
		return nil, err
	}
	notes, err := f.ReadNotes(p.Kernel)
	if err != nil {
		return nil, err
	}
	entry, ok := boot.PVHEntry(notes)
	if !ok {
		return nil, errors.New("ELF file has no PVH note")
	}
	l := boot.NewLayout(mem)
	f.Entry = uint64(entry) // the ELF header's own is for other loaders
	if _, err := l.LoadELF(f, p.Kernel, uint64(p.Kernel.Size())); err != nil {
		return nil, err
	}
	if err := l.PutCmdline(p.Cmdline, maxCmdline); err != nil {
		return nil, err
	}
	initrd, err := l.PutInitrd(p.Initrd, below4G)
	if err != nil {
		return nil, err
	}
	if err := putStartInfo(l, p, initrd); err != nil {
		return nil, err
	}
	state, err := l.Protected(entry, boot.StartInfoAddr)
	if err != nil {
		return nil, err
	}
	return &boot.Entry{Protocol: "pvh", Image: "ELF with PVH note", State: state, Placed: l.Placed}, nil
}

func putStartInfo(l *boot.Layout, p boot.Params, initrd boot.Range) error {
	m := boot.E820(l.Memory(), p.Reserved)
	if len(m) > maxMap {
		return fmt.Errorf("memory map of %d ranges is longer than start_info's page holds", len(m))
	}
	var b [pageSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], startMagic)
	le.PutUint32(b[4:], version)
	if initrd.Size != 0 {
		le.PutUint32(b[12:], 1)
		le.PutUint64(b[16:], modlistAddr)
		le.PutUint64(b[startSize:], initrd.Addr)
		le.PutUint64(b[startSize+8:], initrd.Size)
	}
	le.PutUint64(b[24:], boot.CmdlineAddr)
	le.PutUint64(b[32:], p.RSDP)
	le.PutUint64(b[40:], memmapAddr)
	le.PutUint32(b[48:], uint32(len(m)))
	for i, e := range m {
		t := b[startSize+moduleSize+i*mapSize:]
		le.PutUint64(t, e.Addr)
		le.PutUint64(t[8:], e.Size)
		le.PutUint32(t[16:], uint32(e.Type))
	}
	if err := l.Reserve("start_info", boot.StartInfoAddr, pageSize); err != nil {
		return err
	}
	return l.Memory().Write(boot.StartInfoAddr, b[:])
}
