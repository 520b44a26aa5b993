package image

import (
	"path/filepath"

	"berth/block/formats"
)

// fileOf is the name of the file that n is in.
func fileOf(n *formats.Node) string {
	if n.File != nil {
		return n.File.Filename
	}
	return n.Filename
}

// findBacking returns the node under n that name means, and the one that it
// backs, as QEMU finds it; nil if there is none.
func findBacking(n *formats.Node, name string) (found, overlay *formats.Node) {
	for ; n != nil && n.Backing != nil; n = n.Backing {
		if protocol(name) != "" || protocol(n.BackingFilename) != "" {
			if name == n.BackingFilename || name == n.FullBackingFilename() {
				return n.Backing, n
			}
			continue
		}
		wanted, err := formats.FullName(fileOf(n), name)
		if err != nil {
			continue
		}
		if a, b := realPath(wanted), realPath(n.FullBackingFilename()); a != "" && a == b {
			return n.Backing, n
		}
	}
	return nil, nil
}

// realPath is the absolute name of a file without symbolic links; "" if it is not there.
func realPath(name string) string {
	name, err := filepath.EvalSymlinks(name)
	if err == nil {
		name, err = filepath.Abs(name)
	}
	if err != nil {
		return ""
	}
	return name
}
