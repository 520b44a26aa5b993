package image

import (
	"berth/block"
	"berth/block/formats"
)

func newInfo() action { return &info{output: "human"} }

type info struct {
	source
	output string
	chain  bool
}

func (a *info) options(c *call) []option {
	return []option{
		a.formatOption("format"), word(0, "output", &a.output), mark(0, "backing-chain", &a.chain),
		c.objectOption(), mark(0, "image-opts", &a.imageOpts), mark('U', "force-share", &a.share),
	}
}

func (a *info) run(c *call, operands []string) (err error) {
	if a.file, err = oneImage(operands); err != nil {
		return err
	}
	json, err := outputJSON(a.output)
	if err != nil {
		return err
	}
	chain, err := a.collect(c)
	if err != nil {
		return err
	}
	switch {
	case json && a.chain:
		all := []any{}
		for _, d := range chain {
			all = append(all, d.object())
		}
		printJSON(c, all)
	case json:
		printJSON(c, chain[0].object())
	default:
		for i, d := range chain {
			if i > 0 {
				c.printf("\n")
			}
			d.print(c)
		}
	}
	return nil
}

// collect describes the image, and those that it is backed by if they are asked for. Each is opened alone.
func (a *info) collect(c *call) ([]description, error) {
	var chain []description
	seen := map[string]bool{}
	for s := a.source; ; {
		if seen[s.file] {
			return nil, failure("Backing file '%s' creates an infinite loop.", s.file)
		}
		seen[s.file] = true
		n, err := c.open(s, formats.Options{ReadOnly: true, NoBacking: true, NoIO: true})
		if err != nil {
			return nil, err
		}
		d := describe(n)
		if err := n.Close(); err != nil {
			return nil, err
		}
		chain = append(chain, d)
		if !a.chain || d.backing == "" {
			return chain, nil
		}
		if d.fullBacking == "" {
			return nil, failure("Could not determine absolute backing filename, but backing filename '%s' present", d.backing)
		}
		s = source{file: d.fullBacking, format: d.backingFormat, share: a.share}
	}
}

// description is what there is to say of one image.
type description struct {
	block.Info
	filename, format                    string
	size                                int64
	allocated                           int64 // bytes; -1: not known
	backing, fullBacking, backingFormat string
	snapshots                           []block.Snapshot
}

func describe(n *formats.Node) description {
	d := description{filename: n.Filename, format: n.Driver, size: roundUp(n.Image.Size(), sector), allocated: allocatedSize(n)}
	if i, ok := n.Image.(block.Informer); ok {
		d.Info = i.Info()
	}
	if n.BackingFilename != "" {
		d.backing, d.fullBacking, d.backingFormat = n.BackingFilename, n.FullBackingFilename(), n.BackingFormat
	}
	if s, ok := n.Image.(block.Snapshotter); ok {
		d.snapshots = s.Snapshots()
	}
	return d
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// allocatedSize is what the image's files take of their file systems, in bytes; -1 if that is not known.
func allocatedSize(n *formats.Node) int64 {
	if n.File == nil {
		return occupied(n)
	}
	if size := occupied(n); size >= 0 { // it knows of more files
		return size
	}
	sum := occupied(n.File)
	if n.Data != nil && n.Data != n.File && sum >= 0 {
		data := occupied(n.Data)
		if data < 0 {
			return -1
		}
		sum += data
	}
	return sum
}

func occupied(n *formats.Node) int64 {
	if o, ok := n.Image.(block.Occupier); ok {
		if size, err := o.Occupied(); err == nil {
			return size
		}
	}
	return -1
}

// object is d as JSON; the order of members decides which comes first of those in one bucket.
func (d description) object() []block.Field {
	o := []block.Field{{Name: "filename", Value: d.filename}, {Name: "format", Value: d.format}, {Name: "dirty-flag", Value: d.Dirty}}
	add := func(name string, value any, there bool) {
		if there {
			o = append(o, block.Field{Name: name, Value: value})
		}
	}
	add("actual-size", d.allocated, d.allocated >= 0)
	add("virtual-size", d.size, true)
	add("cluster-size", d.ClusterSize, d.ClusterSize != 0)
	add("encrypted", true, d.Encrypted)
	add("compressed", true, d.Compressed)
	add("backing-filename", d.backing, d.backing != "")
	add("full-backing-filename", d.fullBacking, d.fullBacking != "")
	add("backing-filename-format", d.backingFormat, d.backingFormat != "")
	var snapshots []any
	for _, s := range d.snapshots {
		snapshots = append(snapshots, snapshotObject(s))
	}
	add("snapshots", snapshots, len(snapshots) > 0)
	add("format-specific", []block.Field{{Name: "type", Value: d.format}, {Name: "data", Value: d.Specific}}, d.Specific != nil)
	return o
}

// print is d as people read it.
func (d description) print(c *call) {
	disk := "unavailable"
	if d.allocated >= 0 {
		disk = sizeText(d.allocated)
	}
	c.printf("image: %s\nfile format: %s\nvirtual size: %s (%d bytes)\ndisk size: %s\n", d.filename, d.format, sizeText(d.size), d.size, disk)
	if d.Encrypted {
		c.printf("encrypted: yes\n")
	}
	if d.ClusterSize != 0 {
		c.printf("cluster_size: %d\n", d.ClusterSize)
	}
	if d.Dirty {
		c.printf("cleanly shut down: no\n")
	}
	if d.backing != "" {
		d.printBacking(c)
	}
	if len(d.snapshots) > 0 {
		printSnapshots(c, d.snapshots)
	}
	if d.Specific != nil {
		c.printf("Format specific information:\n")
		printTree(c, d.Specific, 1)
	}
}

func (d description) printBacking(c *call) {
	c.printf("backing file: %s", d.backing)
	if d.fullBacking == "" {
		c.printf(" (cannot determine actual path)")
	} else if d.fullBacking != d.backing {
		c.printf(" (actual path: %s)", d.fullBacking)
	}
	c.printf("\n")
	if d.backingFormat != "" {
		c.printf("backing file format: %s\n", d.backingFormat)
	}
}
