package formats

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"syscall"

	"berth/block"
	"berth/block/raw"
)

// maxChain is how many images may stand on one another. QEMU has no limit but
// its descriptors.
const maxChain = 256

// Options says what to open and how.
type Options struct {
	Filename string            // what the user wrote: a path, "file:…", "json:{…}"; another protocol is refused by its name
	Values   map[string]string // options as dotted keys: "driver", "file.filename", "backing.driver", "node-name", "read-only"
	Format   string            // "": as Values say, or else probed

	ReadOnly   bool
	NoBacking  bool // the backing image is not opened
	ForceShare bool // others may do with the image what they like; only with ReadOnly
	NoShare    bool // nobody else writes to the image or changes its size: a guest's disk
	NoIO       bool // only what the header says is wanted
	Unused     bool // nothing is done with the image until somebody attaches to its node
	Check      bool // to be checked or repaired; see block.OpenOptions
	Resize     bool // its size will be changed
	Snapshot   bool // what is written goes to a temporary overlay, and is gone when the node is closed

	NoReferences bool // an image that names a backing or data file is refused
	Stated       bool // of every image below the top one the format must be stated: a guest could make a raw image look like another

	Cache  string            // none, writeback, writethrough, directsync or unsafe; "": writeback
	Device string            // the block device that it is opened for, as errors name it
	Report func(line string) // gets what QEMU would print while the image is open; nil: nobody wants to know
}

// Open opens an image of whose nodes nobody else needs to know; see Nodes.Open.
func Open(o Options) (*Node, error) { return NewNodes(nil).Open(o) }

// Open opens an image and all that it stands on. Errors are worded as QEMU's,
// without "Could not open 'what the user wrote': " before them; one with advice
// has a method Hint. One that another process's lock is the reason of is
// block.ErrInUse.
func (s *Nodes) Open(o Options) (*Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openLocked(o)
}

// openLocked is Open with mu held.
func (s *Nodes) openLocked(o Options) (*Node, error) {
	g := &graph{nodes: s, o: o, named: map[string]bool{}}
	in := inherited{readOnly: o.ReadOnly || o.Snapshot, forceShare: o.ForceShare, noIO: o.NoIO}
	if err := in.setCache(o.Cache); err != nil {
		return nil, err
	}
	v := maps.Clone(o.Values)
	if v == nil {
		v = map[string]string{}
	}
	if o.Format != "" {
		v["driver"] = o.Format
	}
	p := o.perms()
	top := &user{who: fmt.Sprintf("block device '%s'", o.Device), device: o.Device, role: "root", perms: p}
	if o.Snapshot {
		top.perms = p.backing()
	}
	n, err := g.open(o.Filename, v, in, top, nil)
	if err == nil && o.Snapshot {
		n, err = g.overlay(n, p)
	}
	if err != nil {
		return nil, err
	}
	n.opener = top
	if n.ReadOnly && !o.ReadOnly && p.uses&raw.PermWrite != 0 {
		return nil, keep(errors.New("Block node is read-only"), n.release())
	}
	n.WriteThrough = o.Cache == "writethrough" || o.Cache == "directsync"
	return n, nil
}

// setCache takes one of QEMU's cache modes; "" is writeback.
func (in *inherited) setCache(mode string) error {
	switch mode {
	case "", "writeback", "writethrough":
	case "none", "directsync":
		in.direct = true
	case "unsafe":
		in.noFlush = true
	default:
		return fmt.Errorf("Invalid cache option: %s", mode)
	}
	return nil
}

// perms is what will be done with the image that o opens.
func (o Options) perms() (p perms) {
	if o.Unused {
		return p
	}
	if !o.NoIO {
		p.uses = raw.PermRead
		if !o.ReadOnly {
			p.uses |= raw.PermWrite
		}
	}
	if o.Resize {
		p.uses |= raw.PermResize
	}
	if o.NoShare {
		p.denies = raw.PermWrite | raw.PermResize
	}
	return p
}

// graph is what is being opened. Its nodes' lock is held.
type graph struct {
	nodes *Nodes
	o     Options
	named map[string]bool // by what is not in nodes yet
}

// inherited is what a node has from the one above it unless its own options say otherwise.
type inherited struct {
	readOnly, forceShare, noIO bool
	direct, noFlush            bool
}

// place is an image in a backing chain, as those below it see it.
type place struct {
	above    *place
	depth    int
	file     fileID
	driver   string
	filename string
}

// open opens a format's node, or a protocol's if the options say so, for u.
func (g *graph) open(filename string, v map[string]string, in inherited, u *user, above *place) (*Node, error) {
	if strings.HasPrefix(filename, "json:") {
		more, err := parseJSON(filename)
		if err != nil {
			return nil, err
		}
		for k, x := range more {
			if _, ok := v[k]; !ok {
				v[k] = x
			}
		}
		filename = ""
	}
	driver, stated := v["driver"]
	if isProtocol(driver) {
		n, err := g.openFile(filename, v, in)
		if err != nil {
			return nil, err
		}
		if err := n.join(u); err != nil {
			return nil, keep(err, n.release())
		}
		return n, nil
	}
	delete(v, "driver")
	format, known := Find(driver)
	if stated && !known {
		return nil, fmt.Errorf("Unknown driver '%s'", driver)
	}
	if !stated && above != nil && g.o.Stated {
		return nil, errors.New("the image above does not state its format, which is not guessed here")
	}
	return g.openFormat(filename, v, in, u, above, format, !stated)
}

// openFormat opens the node of a format, which is found out if probed, for u.
func (g *graph) openFormat(filename string, v map[string]string, in inherited, u *user, above *place, format block.Format, probed bool) (*Node, error) {
	n := &Node{Probed: probed, nodes: g.nodes, refs: 1, users: []*user{u}}
	in, err := g.settings(n, v, in)
	if err != nil {
		return nil, err
	}
	node, err := g.openChild(filename, v, in, "file")
	if err != nil {
		return nil, err
	}
	if node == nil && probed {
		return nil, errors.New("Must specify either driver or file")
	}
	if node == nil {
		return nil, errors.New("A block device must be specified for \"file\"")
	}
	g.nodes.add(n)
	n.File = node
	if err := g.openImage(n, v, in, above, format); err != nil {
		return nil, keep(err, n.release())
	}
	return n, nil
}

// keep is err, whatever happened while cleaning up after it.
func keep(err, _ error) error { return err }

// openImage opens n's image in its file, and what the image stands on.
func (g *graph) openImage(n *Node, v map[string]string, in inherited, above *place, format block.Format) error {
	file := n.File.Image.(*raw.File)
	if n.Probed {
		var err error
		if format, err = g.probe(file, n.File.Filename); err != nil {
			return err
		}
	}
	n.Driver, n.Filename = format.Name, n.File.Filename
	if _, ok := v["offset"]; ok || v["size"] != "" && format.Name == "raw" {
		n.Filename = jsonName(n, v, strings.HasPrefix(g.o.Filename, "json:"))
	}
	values, err := formatValues(format.Name, v)
	if err != nil {
		return err
	}
	n.values = values
	here := &place{above: above, file: idOf(file, values), driver: format.Name, filename: n.Filename}
	if err := here.check(); err != nil {
		return err
	}
	if err := n.link(n.File, "file"); err != nil {
		return err
	}
	o := block.OpenOptions{ReadOnly: in.readOnly, Check: g.o.Check && above == nil, NoIO: in.noIO, Values: values,
		Report: g.o.Report, Filename: n.File.Filename, Sibling: g.sibling(n, in)}
	if format.Name == "raw" {
		n.Image, err = openRawNode(file, o, n.Probed)
	} else {
		n.Image, err = format.Open(file, o)
	}
	if err != nil {
		return g.openFailed(n, err)
	}
	if err := g.openData(n, v, in); err != nil {
		return err
	}
	if err := g.openBacking(n, v, in, here); err != nil {
		return err
	}
	return unused(v, "format", n.Driver, "does not")
}

// openRawNode is openRaw whose failure is no image.
func openRawNode(f block.File, o block.OpenOptions, probed bool) (block.Image, error) {
	i, err := openRaw(f, o, probed)
	if err != nil {
		return nil, err
	}
	return i, nil
}

// openFailed words what has no words of its own.
func (g *graph) openFailed(n *Node, err error) error {
	n.Image = nil
	if e, ok := err.(syscall.Errno); ok { //nolint:errorlint // not one that is wrapped in words
		return openError(n.File.Filename, e)
	}
	return err
}

// probe finds out the format of what is in f. Apple's disk images tell by their
// name only.
func (g *graph) probe(f *raw.File, path string) (block.Format, error) {
	head := make([]byte, ProbeSize)
	if err := f.Readv([][]byte{head}, 0); err != nil {
		return block.Format{}, &wordedError{"Could not read image for determining its format", err}
	}
	name := Probe(head)
	if name == "raw" && strings.HasSuffix(path, ".dmg") && f.Size() > 0 {
		name = "dmg"
	}
	format, ok := Find(name)
	if !ok {
		return format, fmt.Errorf("Unknown driver '%s'", name)
	}
	return format, nil
}

// settings takes the options that every node has out of v, and names n.
func (g *graph) settings(n *Node, v map[string]string, in inherited) (_ inherited, err error) {
	for _, s := range []struct {
		name string
		to   *bool
	}{
		{"cache.direct", &in.direct}, {"cache.no-flush", &in.noFlush},
		{"read-only", &in.readOnly}, {"force-share", &in.forceShare},
	} {
		x, err := popBool(v, s.name, *s.to)
		if err != nil {
			return in, err
		}
		*s.to = x
	}
	if n.auto, err = popBool(v, "auto-read-only", false); err != nil {
		return in, err
	}
	n.auto = n.auto && !in.readOnly
	if err := n.discards(v); err != nil {
		return in, err
	}
	if in.forceShare && !in.readOnly {
		return in, errors.New("force-share=on can only be used with read-only images")
	}
	n.ReadOnly, n.in = in.readOnly, in
	name, ok := pop(v, "node-name")
	switch {
	case !ok:
		name = g.nodes.freshName()
	case !wellFormed(name):
		return in, fmt.Errorf("Invalid node-name: '%s'", name)
	case g.nodes.device(name) != nil, name == g.o.Device:
		return in, fmt.Errorf("node-name=%s is conflicting with a device id", name)
	case g.nodes.find(name) != nil || g.named[name]:
		return in, fmt.Errorf("Duplicate nodes with node-name='%s'", name)
	case len(name) > 31:
		return in, errors.New("Node name too long")
	}
	g.named[name] = true
	n.Name = name
	return in, nil
}

// discards takes out of v what becomes of discards and zeros.
func (n *Node) discards(v map[string]string) error {
	n.DetectZeroes = "off"
	if x, ok := pop(v, "detect-zeroes"); ok {
		if x != "off" && x != "on" && x != "unmap" {
			return fmt.Errorf("invalid parameter value: %s", x)
		}
		n.DetectZeroes = x
	}
	x, ok := pop(v, "discard")
	if ok && x != "on" && x != "off" && x != "unmap" && x != "ignore" {
		return errors.New("Invalid discard option")
	}
	n.Discard = x == "on" || x == "unmap"
	if n.DetectZeroes == "unmap" && !n.Discard {
		return errors.New("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
	}
	return nil
}

// check refuses a chain that comes back to where it was, and one without end.
func (p *place) check() error {
	for a := p.above; a != nil; a = a.above {
		p.depth++
		if a.file == p.file && a.driver == p.driver {
			return fmt.Errorf("Backing file '%s' creates an infinite loop.", p.filename)
		}
	}
	if p.depth >= maxChain {
		return fmt.Errorf("more than %d images stand on one another", maxChain)
	}
	return nil
}

// openBacking opens what n's image stands on.
func (g *graph) openBacking(n *Node, v map[string]string, in inherited, here *place) error {
	b, ok := n.Image.(block.Backed)
	if ok {
		n.BackingFilename, n.BackingFormat = b.BackingFile()
	}
	if g.o.NoReferences && n.BackingFilename != "" {
		return fmt.Errorf("the image names the backing file '%s', which it may not here", n.BackingFilename)
	}
	own := within(v, "backing")
	reference, given := pop(v, "backing")
	switch {
	case given && reference == "", g.o.NoBacking && !given && len(own) == 0, n.BackingFilename == "" && !given && len(own) == 0:
		return nil
	case g.o.NoBacking:
		if given {
			own[""] = reference
		}
		var names []string
		for k := range own {
			names = append(names, strings.TrimSuffix("backing."+k, "."))
		}
		return fmt.Errorf("Block format '%s' does not support the option '%s'", n.Driver, firstOf(names))
	case !ok:
		return errors.New("Driver doesn't support backing files")
	}
	var err error
	if reference != "" {
		err = g.refer(n, reference)
	} else {
		err = g.backing(n, own, in, here)
	}
	if err != nil {
		return &hinted{text: "Could not open backing file: " + err.Error(), hint: hintOf(err), err: err}
	}
	b.SetBacking(n.Backing.Image)
	return nil
}

// refer makes a node that is there the backing image of n's.
func (g *graph) refer(n *Node, reference string) error {
	backing := g.nodes.lookup(reference)
	if backing == nil {
		return noSuchNode(reference)
	}
	backing.hold()
	if err := n.link(backing, "backing"); err != nil {
		return keep(err, backing.release())
	}
	n.Backing = backing
	return nil
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// backing opens the backing image of n's.
func (g *graph) backing(n *Node, own map[string]string, in inherited, here *place) (err error) {
	name := ""
	if _, ok := own["file.filename"]; !ok && n.BackingFilename != "" {
		if name, err = FullName(n.File.Filename, n.BackingFilename); err != nil {
			return err
		}
	}
	if _, ok := own["driver"]; !ok && n.BackingFormat != "" {
		own["driver"] = n.BackingFormat
	}
	in.readOnly = true
	u := n.user("backing")
	n.Backing, err = g.open(name, own, in, u, here)
	if err == nil {
		n.children = append(n.children, child{n.Backing, u})
	}
	return err
}

func noSuchNode(name string) error {
	return fmt.Errorf("Cannot find device='%s' nor node-name='%s'", name, name)
}

// openData opens n's external data file. Its name is relative to the working
// directory, as in QEMU.
func (g *graph) openData(n *Node, v map[string]string, in inherited) error {
	d, ok := n.Image.(block.DataFiled)
	name := ""
	if ok {
		name, _, ok = d.DataFile()
	}
	if n.Driver != "qcow2" {
		return nil // its options are not known, as unused says
	}
	if ok && g.o.NoReferences {
		return fmt.Errorf("the image names the data file '%s', which it may not here", name)
	}
	if in.noIO {
		delete(v, "data-file")
		within(v, "data-file")
		return nil
	}
	if reference, given := v["data-file"]; given {
		switch {
		case g.nodes.lookup(reference) == nil:
			return noSuchNode(reference)
		case !ok:
			return errors.New("'data-file' can only be set for images with an external data file")
		}
		name = ""
	} else if own := within(v, "data-file"); len(own) > 0 {
		if !ok {
			return errors.New("'data-file' can only be set for images with an external data file")
		}
		name = ""
		for k, x := range own {
			v["data-file."+k] = x
		}
	}
	if !ok {
		return nil
	}
	return g.openDataFile(n, d, name, v, in)
}

// openDataFile opens the data file called name, or as v says, and gives it to d.
func (g *graph) openDataFile(n *Node, d block.DataFiled, name string, v map[string]string, in inherited) error {
	node, err := g.openChild(name, v, in, "data-file")
	if err != nil {
		return err
	}
	if node == nil {
		return errors.New("'data-file' is required for this image")
	}
	n.Data = node
	if err := n.link(node, "data-file"); err != nil {
		n.Data = nil
		return keep(err, node.release())
	}
	d.SetDataFile(node.Image.(*raw.File))
	return nil
}
