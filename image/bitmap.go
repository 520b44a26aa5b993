package image

import (
	"math"
	"slices"
	"syscall"

	"berth/block"
	"berth/block/formats"
)

type bitmap struct {
	source
	steps            []bitmapStep
	from, fromFormat string // where --merge takes bitmaps from, if not this image
	granularity      int64
	adds, merges     bool
}

// bitmapStep is one of the things to do to the bitmap, by its option's name.
type bitmapStep struct{ do, from string }

func (a *bitmap) options(c *call) []option {
	step := func(do string) option {
		return option{long: do, on: func() error {
			a.steps = append(a.steps, bitmapStep{do: do})
			a.adds = a.adds || do == "add"
			return nil
		}}
	}
	return []option{
		c.objectOption(), mark(0, "image-opts", &a.imageOpts),
		step("add"), step("remove"), step("clear"), step("enable"), step("disable"),
		{long: "merge", set: func(from string) error {
			a.steps = append(a.steps, bitmapStep{"merge", from})
			a.merges = true
			return nil
		}},
		{short: 'g', long: "granularity", set: func(v string) (err error) {
			a.granularity, err = c.size("granularity", v)
			return err
		}},
		word('b', "source-file", &a.from), word('F', "source-format", &a.fromFormat), a.formatOption(""),
	}
}

func (a *bitmap) run(c *call, operands []string) error {
	switch {
	case len(a.steps) == 0:
		return failure("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge")
	case a.granularity != 0 && !a.adds:
		return failure("granularity only supported with --add")
	case a.fromFormat != "" && a.from == "":
		return failure("-F only supported with -b")
	case a.from != "" && !a.merges:
		return failure("Merge bitmap source file only supported with --merge")
	case len(operands) != 2:
		return failure("Expecting filename and bitmap name")
	}
	a.file = operands[0]
	n, err := c.open(a.source, formats.Options{NoBacking: true})
	if err != nil {
		return err
	}
	return closing(n, a.withSource(c, n, operands[1]))
}

func (a *bitmap) withSource(c *call, n *formats.Node, name string) error {
	from := n
	if a.from != "" {
		var err error
		if from, err = c.open(source{file: a.from, format: a.fromFormat}, formats.Options{ReadOnly: true, NoBacking: true}); err != nil {
			return err
		}
		defer func() { _ = from.Close() }() // nothing was written
	}
	b, ok := n.Image.(block.Bitmapper)
	if !ok {
		b = noBitmaps{}
	}
	fromBitmaps, ok := from.Image.(block.Bitmapper)
	if !ok {
		fromBitmaps = noBitmaps{}
	}
	for _, s := range a.steps {
		if err := a.step(n, b, fromBitmaps, from, s, name); err != nil {
			return prefixed(cause(err), "Operation %s on bitmap %s failed: ", s.do, name)
		}
	}
	return nil
}

func (a *bitmap) step(n *formats.Node, b, from block.Bitmapper, fromNode *formats.Node, s bitmapStep, name string) error {
	switch s.do {
	case "add":
		return a.add(n, name)
	case "remove":
		return b.RemoveBitmap(name)
	case "clear":
		return b.ClearBitmap(name)
	case "enable":
		return b.EnableBitmap(name, true)
	case "disable":
		return b.EnableBitmap(name, false)
	}
	switch {
	case !hasBitmap(b, name):
		return noBitmap(name)
	case !hasBitmap(from, s.from):
		return noBitmap(s.from)
	}
	if to, of := roundUp(n.Image.Size(), sector), roundUp(fromNode.Image.Size(), sector); to != of {
		return failure("Bitmaps are of different sizes (destination size is %d, source size is %d) and can't be merged", to, of)
	}
	return mergeBitmap(b, from, s.from, name)
}

// The least and the greatest granularity of a bitmap that is given the cluster size's, and the least of all; in bytes.
const (
	leastDefaultGranularity    = 4 << 10
	greatestDefaultGranularity = 64 << 10
	leastGranularity           = 512
)

// add adds a bitmap that records writes.
func (a *bitmap) add(n *formats.Node, name string) error {
	if name == "" {
		return failure("Bitmap name cannot be empty")
	}
	granularity := int64(greatestDefaultGranularity)
	if a.granularity != 0 {
		granularity = a.granularity & math.MaxUint32 // as wide as QEMU's
		if granularity < leastGranularity || granularity&(granularity-1) != 0 {
			return failure("Granularity must be power of 2 and at least 512")
		}
	} else if i, ok := n.Image.(block.Informer); ok {
		if size := i.Info().ClusterSize; size > 0 {
			granularity = min(max(size, leastDefaultGranularity), greatestDefaultGranularity)
		}
	}
	b, ok := n.Image.(block.Bitmapper)
	switch {
	case !ok:
		return failure("Can't store persistent bitmaps to %s: %s", n.Name, strerror(syscall.ENOTSUP))
	case hasBitmap(b, name):
		return failure("Bitmap already exists: %s", name)
	}
	err := b.AddBitmap(block.BitmapInfo{Name: name, Granularity: granularity, Auto: true})
	if err != nil {
		return prefixed(cause(err), "Can't make bitmap '%s' persistent in '%s': ", name, n.Name)
	}
	return nil
}

func hasBitmap(b block.Bitmapper, name string) bool {
	return slices.ContainsFunc(b.Bitmaps(), func(i block.BitmapInfo) bool { return i.Name == name })
}

func noBitmap(name string) error { return failure("Dirty bitmap '%s' not found", name) }

// mergeBitmap marks in to what is dirty in from.
func mergeBitmap(b, source block.Bitmapper, from, to string) error {
	var failed error
	err := source.DirtyRanges(from, func(off, n int64) bool {
		failed = b.MarkBitmap(to, off, n)
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// noBitmaps is an image that cannot have any.
type noBitmaps struct{}

func (noBitmaps) Bitmaps() []block.BitmapInfo                         { return nil }
func (noBitmaps) AddBitmap(block.BitmapInfo) error                    { return syscall.ENOTSUP }
func (noBitmaps) RemoveBitmap(name string) error                      { return noBitmap(name) }
func (noBitmaps) ClearBitmap(name string) error                       { return noBitmap(name) }
func (noBitmaps) EnableBitmap(name string, _ bool) error              { return noBitmap(name) }
func (noBitmaps) MarkBitmap(name string, _, _ int64) error            { return noBitmap(name) }
func (noBitmaps) DirtyRanges(n string, _ func(_, _ int64) bool) error { return noBitmap(n) }
