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
		d := description{n.Describe()}
		if err := n.Close(); err != nil {
			return nil, err
		}
		chain = append(chain, d)
		if !a.chain || d.Backing == "" {
			return chain, nil
		}
		if d.FullBacking == "" {
			return nil, failure("Could not determine absolute backing filename, but backing filename '%s' present", d.Backing)
		}
		s = source{file: d.FullBacking, format: d.BackingFormat, share: a.share}
	}
}

// description is formats' of one image, to be printed.
type description struct{ formats.ImageInfo }

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// object is d as JSON; the order of members decides which comes first of those in one bucket.
func (d description) object() []block.Field {
	o := []block.Field{{Name: "filename", Value: d.Filename}, {Name: "format", Value: d.Format}, {Name: "dirty-flag", Value: d.Dirty}}
	add := func(name string, value any, there bool) {
		if there {
			o = append(o, block.Field{Name: name, Value: value})
		}
	}
	add("actual-size", d.Allocated, d.Allocated >= 0)
	add("virtual-size", d.Size, true)
	add("cluster-size", d.ClusterSize, d.ClusterSize != 0)
	add("encrypted", true, d.Encrypted)
	add("compressed", true, d.Compressed)
	add("backing-filename", d.Backing, d.Backing != "")
	add("full-backing-filename", d.FullBacking, d.FullBacking != "")
	add("backing-filename-format", d.BackingFormat, d.BackingFormat != "")
	var snapshots []any
	for _, s := range d.Snapshots {
		snapshots = append(snapshots, snapshotObject(s))
	}
	add("snapshots", snapshots, len(snapshots) > 0)
	add("format-specific", []block.Field{{Name: "type", Value: d.Format}, {Name: "data", Value: d.Specific}}, d.Specific != nil)
	return o
}

// print is d as people read it.
func (d description) print(c *call) {
	disk := "unavailable"
	if d.Allocated >= 0 {
		disk = sizeText(d.Allocated)
	}
	c.printf("image: %s\nfile format: %s\nvirtual size: %s (%d bytes)\ndisk size: %s\n", d.Filename, d.Format, sizeText(d.Size), d.Size, disk)
	if d.Encrypted {
		c.printf("encrypted: yes\n")
	}
	if d.ClusterSize != 0 {
		c.printf("cluster_size: %d\n", d.ClusterSize)
	}
	if d.Dirty {
		c.printf("cleanly shut down: no\n")
	}
	if d.Backing != "" {
		d.printBacking(c)
	}
	if len(d.Snapshots) > 0 {
		printSnapshots(c, d.Snapshots)
	}
	if d.Specific != nil {
		c.printf("Format specific information:\n")
		printTree(c, d.Specific, 1)
	}
}

func (d description) printBacking(c *call) {
	c.printf("backing file: %s", d.Backing)
	if d.FullBacking == "" {
		c.printf(" (cannot determine actual path)")
	} else if d.FullBacking != d.Backing {
		c.printf(" (actual path: %s)", d.FullBacking)
	}
	c.printf("\n")
	if d.BackingFormat != "" {
		c.printf("backing file format: %s\n", d.BackingFormat)
	}
}
