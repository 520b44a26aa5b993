package image

import (
	"os"
	"path/filepath"
	"strings"
)

// tidy says that the command ends itself when ctx is done. Its error is that ctx is done already.
func (c *call) tidy() error {
	c.tidies.Store(true)
	if c.ctx.Err() != nil { // later than the store: either this or mind notices
		return errInterrupted
	}
	return nil
}

// guard knows the files that a command is making, so that one that is stopped by
// a signal leaves nothing that looks whole.
type guard []guarded

type guarded struct {
	name string
	ours bool // there was no file before
}

// guardFiles is called before the files are made; names that are "" do not count, nor do devices.
func guardFiles(names ...string) (g guard) {
	for _, name := range names {
		name = strings.TrimPrefix(name, "file:")
		i, err := os.Stat(name)
		if os.IsNotExist(err) && name != "" || err == nil && i.Mode().IsRegular() {
			g = append(g, guarded{name: name, ours: err != nil})
		}
	}
	return g
}

// giveUp removes the files that are the command's own; one that was there before, whose contents
// making the target has ended, is left empty. What can be neither is told of.
func (g guard) giveUp(c *call) {
	for _, f := range g {
		real, err := filepath.EvalSymlinks(f.name) // a link stays, and what it leads to goes
		if err != nil {
			continue // not made yet
		}
		if f.ours {
			err = os.Remove(real)
		} else {
			err = os.Truncate(real, 0)
		}
		if err != nil {
			c.report("'%s' holds a part of the image and cannot be removed: %s", f.name, strerror(errno(err)))
		}
	}
}
