package formats

import (
	"fmt"
	"strings"
)

// protocolOf is what a name begins with before a colon that comes before any
// slash; ok is false for a path (block.c, path_has_protocol).
func protocolOf(name string) (protocol string, ok bool) {
	i := strings.IndexAny(name, ":/")
	if i < 0 || name[i] != ':' {
		return "", false
	}
	return name[:i], true
}

// filePath is the path that a name means. Only files have names here: another
// protocol's is refused by the protocol's name.
func filePath(name string) (string, error) {
	p, ok := protocolOf(name)
	if !ok {
		return name, nil
	}
	if p != "file" {
		return "", fmt.Errorf("Unknown protocol '%s'", p[:min(len(p), 127)])
	}
	path := strings.TrimPrefix(name, "file:")
	if _, ok := protocolOf(path); ok {
		path = "./" + path
	}
	return path, nil
}

// FullName is what a name means that is stored in the image of: a relative
// path is relative to the image's directory.
func FullName(of, name string) (string, error) {
	_, has := protocolOf(name)
	switch {
	case name == "", has, strings.HasPrefix(name, "/"):
		return name, nil
	case of == "", strings.HasPrefix(of, "json:"):
		return "", fmt.Errorf("Cannot use relative backing file names for '%s'", of)
	}
	end := strings.LastIndexByte(of, '/') + 1
	if end == 0 {
		if p, ok := protocolOf(of); ok {
			end = len(p) + 1
		}
	}
	return of[:end] + name, nil
}

// wellFormed tells whether users may name a node so (util/id.c).
func wellFormed(name string) bool {
	for i, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		other := c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_'
		if !letter && (i == 0 || !other) {
			return false
		}
	}
	return name != ""
}
