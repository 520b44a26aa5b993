package image

import (
	"os"
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

// guard knows a target that a command is making, so that one that is stopped by
// a signal leaves nothing that looks whole.
type guard struct {
	name string // "": nothing is to be done
	ours bool   // there was no file before
}

// guardTarget is called before the target is made.
func guardTarget(name string) guard {
	name = strings.TrimPrefix(name, "file:")
	i, err := os.Stat(name)
	switch {
	case os.IsNotExist(err):
		return guard{name: name, ours: true}
	case err == nil && i.Mode().IsRegular():
		return guard{name: name}
	}
	return guard{} // a device
}

// giveUp removes the target if it is the command's own; a file that was there
// before, whose contents making the target has ended, is left empty.
func (g guard) giveUp() {
	switch {
	case g.name == "":
	case g.ours:
		_ = os.Remove(g.name) // the command has failed already
	default:
		_ = os.Truncate(g.name, 0)
	}
}
