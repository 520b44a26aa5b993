package image

import (
	"berth/block/formats"
)

type amend struct {
	source
	list, cache            string
	progress, quiet, force bool
}

func newAmend() action { return &amend{cache: "writeback"} }

func (a *amend) options(c *call) []option {
	return []option{
		c.objectOption(), mark(0, "image-opts", &a.imageOpts), mark(0, "force", &a.force),
		{short: 'o', set: joinOptions(&a.list)},
		a.formatOption(""), word('t', "", &a.cache), mark('p', "", &a.progress), mark('q', "", &a.quiet),
	}
}

func (a *amend) run(c *call, operands []string) error {
	if a.list == "" {
		return misuse("Must specify options (-o)")
	}
	a.progress = a.progress && !a.quiet
	began := false
	err := a.amend(c, operands, &began)
	if a.progress && !began {
		c.printf("\n") // the line of the progress that there was none of
	}
	return err
}

func (a *amend) amend(c *call, operands []string, began *bool) error {
	help := wantsHelp(a.list)
	if a.stated && help {
		return amendHelp(c, a.format)
	}
	if len(operands) != 1 {
		return failure("Expecting one image file name")
	}
	a.file = operands[0]
	cache, err := cacheMode(a.cache, "cache")
	if err != nil {
		return err
	}
	n, err := c.open(a.source, formats.Options{Cache: cache})
	if err != nil {
		return err
	}
	if help {
		return closing(n, amendHelp(c, n.Driver))
	}
	return closing(n, a.apply(c, n, began))
}

func (a *amend) apply(c *call, n *formats.Node, began *bool) error {
	f, ok := formats.Find(n.Driver)
	if !ok || f.Amend == nil {
		return failure("Format driver '%s' does not support option amendment", n.Driver)
	}
	l := optionList{known: f.Amends}
	if err := l.parse(a.list, "", nil); err != nil {
		all := optionList{known: mergeOptions(f.Amends, f.Options)}
		if all.parse(a.list, "", nil) == nil {
			err = &message{text: err.Error(), hint: "This option is only supported for image creation\n"}
		}
		return err
	}
	*began = true
	p := newProgress(c, a.progress, 1)
	defer p.end()
	p.set(0)
	err := f.Amend(n.Image, l.values(), func(done, total int64) { p.set(100 * float32(done) / float32(total)) })
	p.set(100)
	return cause(err)
}

func amendHelp(c *call, format string) error {
	f, ok := formats.Find(format)
	if !ok {
		return unknownFormat(format)
	}
	if f.Amend == nil {
		return failure("Format driver '%s' does not support option amendment", format)
	}
	c.printf("Amend options for '%s':\n", format)
	printHelp(c, f.Amends)
	return nil
}

// unknownFormat is the error for the name of a format that there is not, or not here.
func unknownFormat(name string) error { return failure("Unknown file format '%s'", name) }
