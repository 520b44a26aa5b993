package formats

import (
	"fmt"
	"os"
	"strconv"

	"berth/block"
	"berth/block/raw"
)

// overlay puts an image on base that takes all writes: a qcow2 in a file without
// a name, which is gone when it is closed, whoever closes it. Nothing of it is
// worth a flush (block.c, bdrv_append_temp_snapshot). On an error base is closed.
func (g *graph) overlay(base *Node) (*Node, error) {
	n := &Node{Name: g.freshName(), Driver: "qcow2", Backing: base, BackingFilename: base.Filename, BackingFormat: base.Driver, ReadOnly: g.o.ReadOnly}
	f, err := temporary()
	if err != nil {
		return nil, keep(err, base.Close())
	}
	n.Filename = f.OSFile().Name()
	n.File = &Node{Name: g.freshName(), Driver: "file", Filename: n.Filename, Image: f, owned: true}
	format, _ := Find("qcow2")
	err = format.Create(f, block.Creation{Values: block.Values{"size": strconv.FormatInt(base.Image.Size(), 10)}})
	if err == nil {
		n.Image, err = format.Open(f, block.OpenOptions{Report: g.o.Report, Filename: n.Filename})
	}
	if err != nil {
		err = fmt.Errorf("Could not create temporary overlay '%s': %w", n.Filename, err)
		return nil, keep(keep(err, f.Close()), base.Close())
	}
	n.Image.(block.Backed).SetBacking(base.Image)
	return n, nil
}

// temporary makes a file for an overlay where QEMU does, and takes its name away.
// /tmp is often in memory, where a disk has no room.
func temporary() (*raw.File, error) {
	dir := os.TempDir()
	if dir == "/tmp" {
		dir = "/var/tmp"
	}
	file, err := os.CreateTemp(dir, "vl.")
	if err != nil {
		return nil, &wordedError{fmt.Sprintf("Could not open temporary file '%s/vl.XXXXXX'", dir), err}
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, keep(err, file.Close())
	}
	return raw.Use(file, raw.FileOptions{NoFlush: true, Unlocked: true})
}
