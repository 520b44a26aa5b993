package formats

import (
	"errors"

	"berth/block"
	"berth/block/pool"
	"berth/block/raw"
)

// Node is a named node of an open graph. One that is the File or Data of
// another belongs to it and is not closed alone.
type Node struct {
	Name     string // "#block000" and the like if the user gave none
	Driver   string // a format's name, "file" or "host_device"
	Filename string // what opens the same node again: a path, or "json:{…}"
	Image    block.Image

	File    *Node // of a format: what holds its metadata
	Data    *Node // the external data file, if there is one
	Backing *Node // if it was opened

	ReadOnly        bool
	Probed          bool   // nobody said what format it is
	WriteThrough    bool   // every write is to be on stable storage before it completes
	BackingFilename string // as stored in the image, also if it was not opened
	BackingFormat   string // as stored; "": not stated

	device bool
	owned  bool // by the node that it is the File or Data of
}

// FullBackingFilename is what BackingFilename means: a relative path is
// relative to the image's directory. "": there is none, or no telling.
func (n *Node) FullBackingFilename() string {
	of := n.Filename
	if n.File != nil {
		of = n.File.Filename
	}
	full, err := FullName(of, n.BackingFilename)
	if err != nil {
		return ""
	}
	return full
}

// Close closes the node and all below it, from the top: what an image holds in
// memory is written while what it stands on is still there.
func (n *Node) Close() error {
	var err error
	if !n.owned {
		err = n.Image.Close()
	}
	if n.Backing != nil {
		err = errors.Join(err, n.Backing.Close())
	}
	return err
}

// Disk makes a disk of the node, which closes the graph with it.
func (n *Node) Disk(o pool.Options) *pool.Disk {
	o.ReadOnly = o.ReadOnly || n.ReadOnly
	o.WriteThrough = o.WriteThrough || n.WriteThrough
	o.Close = n.Close
	o.Resize = n.resize
	return pool.New(n.Image, o)
}

// resize sets the length of the node's image. Where that is its file's, others may
// have forbidden it: who has a guest's disk open has not asked for it yet.
func (n *Node) resize(size int64) error {
	i, ok := n.Image.(block.Resizer)
	if !ok {
		return block.ErrUnsupported
	}
	if f, ok := n.File.Image.(*raw.File); ok {
		had := f.Lock()
		if err := f.Relock(raw.Lock{Uses: had.Uses | raw.PermResize, Denies: had.Denies}); err != nil {
			return lockError(n.File.Filename, err)
		}
		defer func() { _ = f.Relock(had) }() // less than there is, which does not fail
	}
	return i.Truncate(size)
}
