package image

import (
	"fmt"

	"berth/block"
	"berth/block/formats"
)

type mapping struct {
	source
	output     string
	start, max int64 // max -1: to the end
}

func newMapping() action { return &mapping{output: "human", max: -1} }

func (a *mapping) options(c *call) []option {
	size := func(short byte, long, what string, p *int64) option {
		return option{short: short, long: long, set: func(v string) (err error) {
			*p, err = c.size(what, v)
			return err
		}}
	}
	return []option{
		a.formatOption("format"), word(0, "output", &a.output), c.objectOption(), mark(0, "image-opts", &a.imageOpts),
		mark('U', "force-share", &a.share),
		size('s', "start-offset", "start offset", &a.start), size('l', "max-length", "max length", &a.max),
	}
}

func (a *mapping) run(c *call, operands []string) (err error) {
	if a.file, err = oneImage(operands); err != nil {
		return err
	}
	json, err := outputJSON(a.output)
	if err != nil {
		return err
	}
	n, err := c.open(a.source, formats.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	return closing(n, a.print(c, n, json))
}

func (a *mapping) print(c *call, n *formats.Node, json bool) error {
	printRun := printRunText
	if json {
		printRun = printRunJSON
		c.printf("[")
	} else {
		c.printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File")
	}
	end := roundUp(n.Image.Size(), sector)
	if a.max >= 0 {
		end = min(end, a.start+a.max)
	}
	cur := run{start: a.start}
	for cur.start+cur.n < end {
		off := cur.start + cur.n
		next, err := runAt(n, off, end-off)
		if err != nil {
			return failure("Could not read file metadata: %s", strerror(errno(err)))
		}
		if cur.joins(next) {
			cur.n += next.n
			continue
		}
		if cur.n > 0 {
			if err := printRun(c, cur, &next); err != nil {
				return err
			}
		}
		cur = next
	}
	err := printRun(c, cur, nil)
	if json {
		c.printf("]\n")
	}
	return err
}

// run is a part of an image's contents that comes from one place.
type run struct {
	start, n                int64 // bytes
	depth                   int   // how far down the backing chain it is decided
	data, zero, present, at bool  // at: off and file tell where
	off                     int64 // bytes
	file                    string
}

func (r run) joins(next run) bool {
	return r.n > 0 && r.zero == next.zero && r.data == next.data && r.depth == next.depth && r.present == next.present &&
		r.at == next.at && r.file == next.file && (!r.at || r.off+r.n == next.off)
}

// runAt tells of the run that begins at off, n bytes of it at most.
func runAt(node *formats.Node, off, n int64) (run, error) {
	for depth := 0; ; depth++ {
		e, file, err := extentAt(node, off, n)
		if err != nil {
			return run{}, err
		}
		n = e.Len
		if e.Data || e.Zero || node.Backing == nil {
			r := run{start: off, n: n, depth: depth, data: e.Data, zero: e.Zero, present: e.Allocated, at: e.HasOffset, off: e.Off}
			if e.HasOffset {
				r.file = file
			}
			return r, nil
		}
		node = node.Backing
	}
}

// extentAt is QEMU's block status of one node: what its image says, made more
// exact by what the file below says of where the data lies. It names that file.
func extentAt(node *formats.Node, off, n int64) (block.Extent, string, error) {
	size := node.Image.Size()
	if off >= size {
		return block.Extent{Len: n, Zero: true, EOF: true}, "", nil
	}
	x, ok := node.Image.(block.Extenter)
	if !ok {
		return block.Extent{Len: min(n, size-off), Allocated: true, Data: true}, "", nil
	}
	e, err := x.Extent(off, min(n, size-off))
	if err != nil {
		return e, "", err
	}
	if e.Len <= 0 {
		return e, "", fmt.Errorf("no extent at %d", off)
	}
	lower := node.File
	if node.Data != nil {
		lower = node.Data
	}
	file := e.File
	if file == "" && lower != nil {
		file = lower.Filename
	}
	switch {
	case e.Data || e.Zero:
		e.Allocated = true
	case node.Backing == nil, off >= node.Backing.Image.Size():
		e.Zero = true
	}
	if e.Deeper && e.Data && !e.Zero && lower != nil && e.File == "" {
		deeper(&e, lower)
	}
	return e, file, nil
}

// deeper looks in the file below for zeros in e. Errors are left to those who read the data.
func deeper(e *block.Extent, lower *formats.Node) {
	x, ok := lower.Image.(block.Extenter)
	if !ok {
		return
	}
	if e.Off >= lower.Image.Size() {
		e.Zero = true // a format reads zeros there
		return
	}
	d, err := x.Extent(e.Off, e.Len)
	switch {
	case err != nil:
	case d.EOF && d.Zero:
		e.Zero = true
	case d.Len > 0:
		e.Len, e.Zero = min(e.Len, d.Len), d.Zero
	}
}

// printRunText prints r for people if it is data. What comes next loses what such output does not tell.
func printRunText(c *call, r run, next *run) error {
	if r.data && !r.at {
		return failure("File contains external, encrypted or compressed clusters.")
	}
	if r.data && !r.zero {
		c.printf("%s%s%s%s\n", padded(hex(r.start), 16), padded(hex(r.n), 16), padded(hex(r.off), 16), r.file)
	}
	if next != nil && (!next.data || next.zero) {
		next.data, next.zero = false, true
	}
	return nil
}

// hex is C's %#x.
func hex(n int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

func printRunJSON(c *call, r run, next *run) error {
	c.printf(`{ "start": %d, "length": %d, "depth": %d, "present": %t, "zero": %t, "data": %t`, r.start, r.n, r.depth, r.present, r.zero, r.data)
	if r.at {
		c.printf(`, "offset": %d`, r.off)
	}
	c.printf("}")
	if next != nil {
		c.printf(",\n")
	}
	return nil
}
