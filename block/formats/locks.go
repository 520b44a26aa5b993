package formats

import (
	"berth/block"
	"berth/block/raw"
)

// perms is what is done with a node, and what nobody else may do with it.
type perms struct{ uses, denies raw.Perm }

// below is what a format does with the file of a node with which p is done
// (block.c, bdrv_default_perms_for_storage; block/raw-format.c, raw_child_perm).
func (p perms) below(format string, v block.Values, in inherited) perms {
	if format == "raw" {
		if len(v) > 0 {
			p.denies |= raw.PermResize
		}
		return p
	}
	if !in.readOnly {
		p.uses |= raw.PermWrite | raw.PermResize
	}
	if !in.noIO {
		p.uses |= raw.PermRead
	}
	p.denies |= raw.PermWrite | raw.PermResize
	return p
}

// backing is what a node with which p is done does with its backing image
// (bdrv_default_perms_for_cow).
func (p perms) backing() perms {
	b := perms{uses: p.uses & raw.PermRead}
	if p.denies&raw.PermWrite != 0 {
		b.denies = raw.PermWrite | raw.PermResize
	}
	return b
}

// data is what is asked of an external data file by who asks p of its image.
func (p perms) data() perms {
	p.denies |= raw.PermResize
	if p.uses&raw.PermWrite != 0 {
		p.uses |= raw.PermResize
	}
	return p
}

// lock is p as the file's locks say it.
func (p perms) lock(in inherited) raw.Lock {
	if in.forceShare {
		p.denies = 0
	}
	return raw.Lock{Uses: p.uses, Denies: p.denies}
}
