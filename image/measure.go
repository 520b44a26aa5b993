package image

import (
	"strconv"
	"strings"

	"berth/block"
	"berth/block/formats"
)

type measure struct {
	source
	target   string // -O
	list     string // -o
	json     bool
	size     int64 // bytes; -1: not given
	snapshot snapshotChoice
}

func newMeasure() action { return &measure{target: "raw", size: -1} }

// helpsOnMisuse: its options are complained of in glibc's words, and help follows.
func (*measure) helpsOnMisuse() {}

func (a *measure) options(c *call) []option {
	return []option{
		mark(0, "image-opts", &a.imageOpts), c.objectOption(),
		{long: "output", set: func(v string) (err error) {
			a.json, err = outputJSON(v)
			return err
		}},
		{long: "size", set: func(v string) (err error) {
			a.size, err = c.size("image size", v)
			return err
		}},
		mark('U', "force-share", &a.share), a.formatOption(""), word('O', "", &a.target),
		{short: 'o', set: joinOptions(&a.list)}, {short: 'l', set: a.snapshot.parse(c)},
	}
}

func (a *measure) run(c *call, operands []string) error {
	if len(operands) > 1 {
		return failure("At most one filename argument is allowed.")
	}
	if len(operands) == 1 {
		a.file = operands[0]
	}
	switch has := len(operands) == 1; {
	case !has && (a.imageOpts || a.stated || a.snapshot.given):
		return failure("--image-opts, -f, and -l require a filename argument.")
	case has && a.size >= 0:
		return failure("--size N cannot be used together with a filename.")
	case !has && a.size < 0:
		return failure("Either --size N or one filename must be specified.")
	case !has:
		return a.measure(c, nil)
	}
	n, err := c.open(a.source, formats.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	return closing(n, a.measureImage(c, n))
}

func (a *measure) measureImage(c *call, n *formats.Node) error {
	if err := a.snapshot.load(n); err != nil {
		return prefixed(err, "Failed to load snapshot: ")
	}
	return a.measure(c, n)
}

// snapshotChoice is the value of -l.
type snapshotChoice struct {
	given    bool
	id, name string // of snapshot.id and snapshot.name
	either   string
}

func (s *snapshotChoice) parse(c *call) func(string) error {
	return func(text string) error {
		s.given = true
		if !strings.HasPrefix(text, "snapshot.") {
			s.either = text
			return nil
		}
		l := optionList{known: []block.Option{{Name: "snapshot.id"}, {Name: "snapshot.name"}}}
		if err := l.parse(text, "", c.warnFlag); err != nil {
			c.reportError("", err)
			return failure("Failed in parsing snapshot param '%s'", text)
		}
		s.id, _ = l.get("snapshot.id")
		s.name, _ = l.get("snapshot.name")
		return nil
	}
}

// load makes the image read as the snapshot, if one was chosen.
func (s *snapshotChoice) load(n *formats.Node) error {
	if !s.given {
		return nil
	}
	image, ok := n.Image.(block.Snapshotter)
	if !ok {
		return noSnapshots{n.Driver}.LoadSnapshot("")
	}
	for _, sn := range image.Snapshots() {
		switch {
		case s.either != "" && sn.ID == s.either, s.either == "" && (s.id == "" || s.id == sn.ID) && (s.name == "" || s.name == sn.Name):
			return cause(image.LoadSnapshot(sn.ID))
		}
	}
	for _, sn := range image.Snapshots() {
		if s.either != "" && sn.Name == s.either {
			return cause(image.LoadSnapshot(sn.ID))
		}
	}
	return failure("Can't find snapshot")
}

// measure prints how large the target's file would be; n nil: the size is a.size.
func (a *measure) measure(c *call, n *formats.Node) error {
	f, ok := formats.Find(a.target)
	if !ok {
		return unknownFormat(a.target)
	}
	l := optionList{known: mergeOptions(f.Options, fileOptions())}
	if err := l.parse(a.list, "", nil); err != nil {
		c.reportError("", err)
		return failure("Invalid options for file format '%s'", a.target)
	}
	if a.size >= 0 {
		_ = l.set("size", strconv.FormatInt(a.size, 10))
	}
	if f.Measure == nil {
		return failure("Block driver '%s' does not support size measurement", a.target)
	}
	var src block.Image
	if n != nil {
		src = n.Image
	}
	m, err := f.Measure(l.values(), src)
	if err != nil {
		return cause(err)
	}
	a.print(c, m)
	return nil
}

func (a *measure) print(c *call, m block.Measurement) {
	if a.json {
		o := []block.Field{{Name: "required", Value: m.Required}, {Name: "fully-allocated", Value: m.FullyAllocated}}
		if m.Bitmaps >= 0 {
			o = append(o, block.Field{Name: "bitmaps", Value: m.Bitmaps})
		}
		printJSON(c, o)
		return
	}
	c.printf("required size: %d\nfully allocated size: %d\n", m.Required, m.FullyAllocated)
	if m.Bitmaps >= 0 {
		c.printf("bitmaps size: %d\n", m.Bitmaps)
	}
}
