package formats

import (
	"fmt"
	"os"
	"strconv"

	"berth/block"
	"berth/block/raw"
)

// overlay puts an image on base that takes all writes of who does p: a qcow2 in a file without
// a name, which is gone when it is closed, whoever closes it. Nothing of it is
// worth a flush (block.c, bdrv_append_temp_snapshot). On an error base is closed.
func (g *graph) overlay(base *Node, p perms) (*Node, error) {
	n := &Node{
		Name: g.nodes.freshName(), Driver: "qcow2", Backing: base, BackingFilename: base.Filename, BackingFormat: base.Driver,
		ReadOnly: g.o.ReadOnly, DetectZeroes: base.DetectZeroes, Discard: base.Discard, nodes: g.nodes, refs: 1, users: base.users,
	}
	n.users[0].perms = p
	below := n.user("backing")
	base.users, n.children = []*user{below}, []child{{base, below}}
	f, err := temporary()
	if err != nil {
		return nil, keep(err, base.release())
	}
	n.Filename = f.OSFile().Name()
	n.File = &Node{Name: g.nodes.freshName(), Driver: "file", Filename: n.Filename, DetectZeroes: "off", Image: f, nodes: g.nodes, refs: 1}
	g.nodes.add(n.File)
	g.nodes.add(n)
	if err := n.link(n.File, "file"); err != nil {
		return nil, keep(err, n.release())
	}
	format, _ := Find("qcow2")
	err = format.Create(f, block.Creation{Values: block.Values{"size": strconv.FormatInt(base.Image.Size(), 10)}})
	if err == nil {
		n.Image, err = format.Open(f, block.OpenOptions{Report: g.o.Report, Filename: n.Filename})
	}
	if err != nil {
		return nil, keep(fmt.Errorf("Could not create temporary overlay '%s': %w", n.Filename, err), n.release())
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
