package formats

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/block"
	"berth/block/raw"
)

// isProtocol tells whether a driver is one for what holds images, not a format.
func isProtocol(driver string) bool { return driver == "file" || driver == "host_device" }

// openChild opens the file that holds metadata or data of a node, or holds the one
// that is named; nil without an error: nothing says which.
func (g *graph) openChild(filename string, v map[string]string, in inherited, name string) (*Node, error) {
	own := within(v, name)
	if reference, given := pop(v, name); given {
		return g.heldFile(reference)
	}
	if filename == "" && len(own) == 0 && (name != "file" || g.o.Filename != "" || len(g.o.Values) > 0) {
		return nil, nil
	}
	if d, ok := own["driver"]; ok && !isProtocol(d) {
		return nil, fmt.Errorf("Unknown driver '%s'", d)
	}
	if strings.HasPrefix(filename, "json:") {
		more, err := parseJSON(filename)
		if err != nil {
			return nil, err
		}
		for k, x := range more {
			if _, ok := own[k]; !ok {
				own[k] = x
			}
		}
		filename = ""
	}
	return g.openFile(filename, own, in)
}

// heldFile is the protocol's node of that name, held.
func (g *graph) heldFile(reference string) (*Node, error) {
	n := g.nodes.lookup(reference)
	if n == nil {
		return nil, noSuchNode(reference)
	}
	if n.File != nil {
		return nil, fmt.Errorf("Node '%s' is an image of format %s: a file is needed", n.Name, n.Driver)
	}
	n.hold()
	return n, nil
}

// openFile opens a protocol's node, unlocked.
func (g *graph) openFile(filename string, v map[string]string, in inherited) (*Node, error) {
	n := &Node{nodes: g.nodes, refs: 1}
	path, driver, err := pathAndDriver(filename, v)
	if err != nil {
		return nil, err
	}
	if in, err = g.settings(n, v, in); err != nil {
		return nil, err
	}
	n.Driver, n.Filename = driver, path
	if path == "" {
		return nil, fmt.Errorf("The '%s' block driver requires a file name", driver)
	}
	locked, aio, err := fileValues(v)
	if err != nil {
		return nil, err
	}
	if err := unused(v, "protocol", driver, "doesn't"); err != nil {
		return nil, err
	}
	o := raw.FileOptions{ReadOnly: in.readOnly || n.auto, Direct: in.direct, NoFlush: in.noFlush, Unlocked: !locked}
	f, err := g.nodes.openPath(path, driver, o)
	if err != nil {
		return nil, err
	}
	if aio == "native" && !in.direct {
		return nil, keep(errors.New("aio=native was specified, but it requires cache.direct=on, which was not specified."), f.Close())
	}
	n.Image, n.device, n.aio = f, f.IsDevice(), aio
	g.nodes.add(n)
	return n, nil
}

// pathAndDriver is which file is meant by a name and the options v, and the protocol that opens it.
func pathAndDriver(filename string, v map[string]string) (path, driver string, err error) {
	path, ok := pop(v, "filename")
	if ok && filename != "" {
		return "", "", fmt.Errorf("Can't specify 'file' and 'filename' options at the same time")
	}
	driver, stated := pop(v, "driver")
	switch {
	case ok: // as it is, whatever it looks like
	case stated:
		path = strings.TrimPrefix(filename, "file:")
	default:
		if path, err = filePath(filename); err != nil {
			return "", "", err
		}
	}
	if !stated {
		driver = driverOf(path)
	}
	return path, driver, nil
}

// fileValues takes the file's own options out of v. aio is only held to QEMU's
// rules: how a file is served is not its own affair here.
func fileValues(v map[string]string) (locked bool, aio string, err error) {
	aio, ok := pop(v, "aio")
	if ok && aio != "threads" && aio != "native" && aio != "io_uring" {
		return false, "", fmt.Errorf("invalid parameter value: %s", aio)
	}
	pop(v, "aio-max-batch")
	if _, err := popBool(v, "drop-cache", true); err != nil {
		return false, "", err
	}
	x, ok := pop(v, "locking")
	if ok && x != "on" && x != "off" && x != "auto" {
		return false, "", fmt.Errorf("invalid parameter value: %s", x)
	}
	return x != "off", aio, nil
}

// driverOf is the protocol that opens path.
func driverOf(path string) string {
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeDevice != 0 {
		return "host_device"
	}
	return "file"
}

// openPath opens path, or a descriptor of the set that it names.
func (s *Nodes) openPath(path, driver string, o raw.FileOptions) (*raw.File, error) {
	set, ok := strings.CutPrefix(path, "/dev/fdset/")
	if !ok {
		return openPath(path, driver, o)
	}
	file, err := s.openSet(path, set, &o)
	if err != nil {
		return nil, err
	}
	f, err := raw.Use(file, o)
	if err != nil {
		return nil, openError(path, err)
	}
	if device := driver == "host_device"; device != f.IsDevice() {
		_ = f.Close() // nothing was written
		if device {
			return nil, fmt.Errorf("'host_device' driver requires '%s' to be either a character or block device", path)
		}
		return nil, fmt.Errorf("'file' driver requires '%s' to be a regular file", path)
	}
	return f, nil
}

// openSet copies a descriptor of a set that was passed on, and has o say what that needs.
func (s *Nodes) openSet(path, set string, o *raw.FileOptions) (*os.File, error) {
	id, err := strconv.ParseInt(set, 10, 32)
	if err != nil || id < 0 {
		return nil, fmt.Errorf("Could not parse fdset %s", path)
	}
	flags := os.O_RDWR
	if o.ReadOnly {
		flags = os.O_RDONLY
	}
	if o.Direct {
		flags |= unix.O_DIRECT
	}
	var file *os.File
	if err = syscall.ENOENT; s.sets != nil {
		file, o.Closed, err = s.sets.Open(id, flags)
	}
	if err != nil {
		return nil, &wordedError{fmt.Sprintf("Could not dup FD for %s flags %x", path, flags), err}
	}
	return file, nil
}

// openPath opens path, with QEMU's words for what it may not be.
func openPath(path, driver string, o raw.FileOptions) (*raw.File, error) {
	if info, err := os.Stat(path); err == nil {
		device := info.Mode()&os.ModeDevice != 0
		switch {
		case driver == "file" && !info.Mode().IsRegular():
			if info.IsDir() && !o.ReadOnly {
				return nil, openError(path, syscall.EISDIR)
			}
			return nil, fmt.Errorf("'file' driver requires '%s' to be a regular file", path)
		case driver == "host_device" && !device:
			return nil, fmt.Errorf("'host_device' driver requires '%s' to be either a character or block device", path)
		}
	}
	f, err := raw.OpenFile(path, o)
	if o.Direct && errors.Is(err, syscall.EINVAL) {
		return nil, fmt.Errorf("Could not open '%s': filesystem does not support O_DIRECT", path)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	return f, nil
}

// sibling opens files that the image of n names beside itself.
func (g *graph) sibling(n *Node, in inherited) func(string) (block.File, string, error) {
	if g.o.NoReferences {
		return nil
	}
	return func(name string) (block.File, string, error) {
		full, err := FullName(n.File.Filename, name)
		if err != nil {
			return nil, "", err
		}
		in.readOnly = true
		node, err := g.openFile(full, map[string]string{}, in)
		if err != nil {
			return nil, full, err
		}
		if err := n.link(node, "extents"); err != nil {
			return nil, full, keep(err, node.release())
		}
		return node.Image.(*raw.File), node.Filename, nil
	}
}

// fileID is which file an image lies in, and where in it.
type fileID struct {
	device, inode uint64
	offset        string
}

func idOf(f *raw.File, v block.Values) fileID {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.OSFile().Fd()), &st); err != nil {
		return fileID{}
	}
	return fileID{device: st.Dev, inode: st.Ino, offset: v["offset"]}
}

// jsonName is the name of a node that its path alone does not open; its members
// are in the order in which QEMU's dictionaries keep these. Numbers are strings
// unless they were numbers of JSON.
func jsonName(n *Node, given map[string]string, numbers bool) string {
	var b strings.Builder
	for _, k := range []string{"offset", "driver", "size"} {
		v, ok := given[k]
		if k == "driver" {
			v, ok = n.Driver, true
		}
		_, err := strconv.ParseUint(v, 10, 64)
		switch {
		case ok && numbers && err == nil:
			fmt.Fprintf(&b, "%q: %s, ", k, v)
		case ok:
			fmt.Fprintf(&b, "%q: %q, ", k, v)
		}
	}
	return fmt.Sprintf("json:{%s\"file\": {\"driver\": %q, \"filename\": %q}}", &b, n.File.Driver, n.File.Filename)
}
