package formats

import (
	"errors"

	"berth/block"
)

// ReopenBacking opens the image that n stands on again, with a cache mode, so that
// it can be written; nobody else uses it. What it stands on stays as it is, and so
// does what is refused to an image whose format nobody stated. The node that it
// returns is n's.
func (n *Node) ReopenBacking(cache string) (*Node, error) {
	b, ok := n.Image.(block.Backed)
	if !ok || n.Backing == nil {
		return nil, errors.New("Image does not have a backing file")
	}
	n.nodes.mu.Lock()
	defer n.nodes.mu.Unlock()
	base := n.Backing
	o := Options{Filename: base.Filename, Format: base.Driver, Cache: cache, NoBacking: true}
	if base.Probed {
		o.Format = ""
	}
	if base.Data != nil {
		o.Values = map[string]string{"data-file.filename": base.Data.Filename}
	}
	below := base.Backing
	if below != nil {
		below.hold()
	}
	b.SetBacking(nil)
	n.unlink(base)
	n.Backing = nil
	if err := base.release(); err != nil {
		return nil, &wordedError{"Could not reopen file", err}
	}
	again, err := n.nodes.openLocked(o)
	if err != nil {
		return nil, err
	}
	b.SetBacking(again.Image)
	n.Backing = again
	if err := n.link(again, "backing"); err != nil {
		return nil, err
	}
	lower, ok := again.Image.(block.Backed)
	if !ok || below == nil {
		return again, nil
	}
	lower.SetBacking(below.Image)
	again.Backing = below
	return again, again.link(below, "backing")
}

// unlink ends n's use of a child.
func (n *Node) unlink(c *Node) {
	for i, x := range n.children {
		if x.Node == c {
			c.leave(x.user)
			n.children = append(n.children[:i:i], n.children[i+1:]...)
			return
		}
	}
}
