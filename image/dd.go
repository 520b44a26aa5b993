package image

import (
	"math"
	"strconv"
	"strings"

	"berth/block"
	"berth/block/formats"
)

// dd is the command that copies blocks of an image into a new one.
type dd struct {
	source  source // file: if=
	target  string // format
	out     string // of=
	outs    bool   // of= was given
	ins     bool
	block   int64 // bytes
	skip    int64 // blocks
	count   int64 // blocks
	counted bool
	skipped bool
}

func newDD() action { return &dd{target: "raw", block: sector} }

func (d *dd) options(c *call) []option {
	return append([]option{c.objectOption(), mark(0, "image-opts", &d.source.imageOpts)}, d.source.formatOption(""), word('O', "", &d.target), mark('U', "force-share", &d.source.share))
}

// operand reads one of bs=, count=, if=, of= and skip=.
func (d *dd) operand(c *call, text string) (err error) {
	name, value, ok := strings.Cut(text, "=")
	switch {
	case !ok:
		return failure("unrecognized operand %s", text)
	case name == "bs":
		d.block, err = c.number("bs", value, 1, math.MaxInt32)
	case name == "count":
		d.counted = true
		d.count, err = c.size("count", value)
	case name == "if":
		d.source.file, d.ins = value, true
	case name == "of":
		d.out, d.outs = value, true
	case name == "skip":
		d.skipped = true
		d.skip, err = c.size("skip", value)
	default:
		return failure("unrecognized operand %s", name)
	}
	return err
}

func (d *dd) run(c *call, operands []string) error {
	if err := c.tidy(); err != nil {
		return err
	}
	for _, o := range operands {
		if err := d.operand(c, o); err != nil {
			return err
		}
	}
	if !d.ins || !d.outs {
		return failure("Must specify both input and output files")
	}
	n, err := c.open(d.source, formats.Options{ReadOnly: true, Cache: "writeback"})
	if err != nil {
		return err
	}
	defer func() { _ = n.Close() }() // opened read-only
	if _, ok := formats.Find(d.target); !ok {
		return failure("Unknown file format")
	}
	f, options, err := creationOptions(d.target, d.out)
	if err != nil {
		return err
	}
	from, end := d.extent(roundUp(n.Image.Size(), sector))
	l := &optionList{known: options}
	if err := l.set("size", strconv.FormatInt(max(end-from, 0), 10)); err != nil {
		return err
	}
	kept := guardFiles(d.out)
	if err := makeImage(f, d.out, l); err != nil {
		return prefixed(err, "%s: error while creating output image: ", d.out)
	}
	err = d.into(c, n.Image, from, end)
	if err != nil && c.ctx.Err() != nil {
		kept.giveUp(c)
	}
	return err
}

// extent returns where in the input what is copied begins and ends, in bytes;
// the beginning is past the end if nothing is left.
func (d *dd) extent(size int64) (from, end int64) {
	end = size
	if d.counted && d.count <= math.MaxInt64/d.block {
		end = min(end, d.count*d.block)
	}
	if d.skip > math.MaxInt64/d.block {
		return math.MaxInt64, end
	}
	return d.skip * d.block, end
}

// into copies the input's bytes from up to end to the beginning of the output.
func (d *dd) into(c *call, in block.Image, from, end int64) error {
	out, err := c.open(source{file: d.out, format: d.target}, formats.Options{Cache: "writeback"})
	if err != nil {
		return err
	}
	if from > end {
		c.report("%s: cannot skip to specified offset", d.source.file)
		from = end
	}
	err = d.copy(c, in, out.Image, from, end)
	if e := out.Close(); err == nil && e != nil {
		err = failure("error while writing to output image file: %s", strerror(errno(e)))
	}
	return err
}

func (d *dd) copy(c *call, in, out block.Image, from, end int64) error {
	var h hand
	for off := from; off < end; {
		if c.ctx.Err() != nil {
			return errInterrupted
		}
		p := h.room(min(pieceSize, end-off))
		if err := readSome(in, h.iov[:], p, off); err != nil {
			return failure("error while reading from input image file: %s", strerror(errno(err)))
		}
		if err := h.write(out, p, off-from); err != nil {
			return failure("error while writing to output image file: %s", strerror(errno(err)))
		}
		off += int64(len(p))
	}
	return nil
}
