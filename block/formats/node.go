package formats

import (
	"berth/block"
	"berth/block/pool"
)

// Node is a named node of an open graph. What is exported does not change while the
// node is open.
type Node struct {
	Name     string // "#block000" and the like if the user gave none
	Driver   string // a format's name, "file" or "host_device"
	Filename string // what opens the same node again: a path, or "json:{…}"
	Image    block.Image

	File    *Node // of a format: what holds its metadata
	Data    *Node // the external data file, if there is one
	Backing *Node // if it was opened

	ReadOnly        bool
	Discard         bool   // discards give storage back
	DetectZeroes    string // "off", "on" or "unmap": what becomes of writes of zeros
	Probed          bool   // nobody said what format it is
	WriteThrough    bool   // every write is to be on stable storage before it completes
	BackingFilename string // as stored in the image, also if it was not opened
	BackingFormat   string // as stored; "": not stated

	device bool
	aio    string // as its user said: "threads", "native", "io_uring"
	auto   bool   // a file that is opened for writing only while somebody writes
	in     inherited
	values block.Values // the format's

	// The lock of nodes is held for what follows.
	nodes     *Nodes
	refs      int  // the nodes above, its opener, and those who attached
	monitored bool // it was added by Nodes.Add
	opener    *user
	users     []*user
	children  []child
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

// Direct and NoFlush tell how the node's files are opened: past the page cache, and
// without regard for a crash.
func (n *Node) Direct() bool { return n.in.direct }

// NoFlush is described with Direct.
func (n *Node) NoFlush() bool { return n.in.noFlush }

// AIO tells how the node's file is to be served, as its user said; "": nothing was said.
func (n *Node) AIO() string {
	if n.File != nil {
		return n.File.aio
	}
	return n.aio
}

// Disk makes a disk of the node for who opened it, which closes the node with it.
func (n *Node) Disk(o pool.Options) *pool.Disk { return n.disk(o, n.Close) }

func (n *Node) disk(o pool.Options, closing func() error) *pool.Disk {
	o.ReadOnly = o.ReadOnly || n.ReadOnly
	o.WriteThrough = o.WriteThrough || n.WriteThrough
	o.Close = closing
	o.Resize = n.Resize
	return pool.New(n.Image, o)
}

// Resize sets the length of the node's image. Where that is its file's, others may
// have forbidden it: who has a guest's disk open has not asked for it yet.
func (n *Node) Resize(size int64) error {
	i, ok := n.Image.(block.Resizer)
	if !ok {
		return block.ErrUnsupported
	}
	done, err := n.mayResize()
	if err != nil {
		return err
	}
	defer done()
	return i.Truncate(size)
}
