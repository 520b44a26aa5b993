package image

import (
	"strconv"

	"berth/block"
	"berth/block/formats"
)

type resize struct {
	source
	preallocation string
	shrink, quiet bool
}

// endsWithOperand: the size is taken off before the options are read, since it may begin with a minus.
func (*resize) endsWithOperand() {}

func (a *resize) options(c *call) []option {
	return []option{
		c.objectOption(), mark(0, "image-opts", &a.imageOpts),
		{long: "preallocation", set: a.setPreallocation},
		mark(0, "shrink", &a.shrink), a.formatOption(""), mark('q', "", &a.quiet),
	}
}

func (a *resize) setPreallocation(mode string) error {
	switch mode {
	case "off", "metadata", "falloc", "full":
		a.preallocation = mode
		return nil
	}
	return failure("Invalid preallocation mode '%s'", mode)
}

func (a *resize) run(c *call, operands []string) error {
	if len(operands) != 2 {
		return misuse("Expecting image file name and size")
	}
	a.file = operands[0]
	text, sign := operands[1], int64(0)
	switch {
	case text != "" && text[0] == '+':
		text, sign = text[1:], 1
	case text != "" && text[0] == '-':
		text, sign = text[1:], -1
	}
	if _, oddity, _ := parseSize(text); oddity != "" {
		c.warn("%s", oddity)
	}
	digits, err := canonical(block.Option{Name: "size", Type: block.OptSize}, text)
	if err != nil {
		return err
	}
	u, _ := strconv.ParseUint(digits, 10, 64)
	n, err := c.open(a.source, formats.Options{Resize: true})
	if err != nil {
		return err
	}
	size := int64(u)
	if sign != 0 {
		size = roundUp(n.Image.Size(), sector) + size*sign
	}
	return closing(n, a.resize(c, n, size))
}

func (a *resize) resize(c *call, n *formats.Node, size int64) error {
	now := roundUp(n.Image.Size(), sector)
	switch {
	case size <= 0:
		return failure("New image size must be positive")
	case size <= now && a.preallocation != "" && a.preallocation != "off":
		return failure("Preallocation can only be used for growing images")
	case size < now && !a.shrink:
		c.report("Use the --shrink option to perform a shrink operation.")
		c.warn("Shrinking an image will delete all data beyond the shrunken image's end. " +
			"Before performing such an operation, make sure there is no important data there.")
		return failed
	}
	if err := truncate(n, size, a.preallocation); err != nil {
		return err
	}
	if !a.quiet {
		c.printf("Image resized.\n")
	}
	return nil
}

// truncate makes the image that large, with what is new preallocated as mode says.
func truncate(n *formats.Node, size int64, mode string) error {
	if mode == "" {
		mode = "off"
	}
	if p, ok := n.Image.(block.PreallocResizer); ok {
		return cause(p.TruncatePrealloc(size, mode))
	}
	return failure("Image format driver does not support resize")
}
