package image

import (
	"errors"
	"strings"
	"syscall"

	"berth/block"
	"berth/block/formats"
)

// source says which image a command means, as its options and operands do.
type source struct {
	file      string
	format    string // -f; "": found out, unless stated
	stated    bool   // -f was given
	imageOpts bool   // file is a list of options
	share     bool   // -U
}

// formatOption is -f.
func (s *source) formatOption(long string) option {
	return option{short: 'f', long: long, set: func(v string) error {
		s.format, s.stated = v, true
		return nil
	}}
}

// open opens the image, as o says how. Its errors name the file.
func (c *call) open(s source, o formats.Options) (*formats.Node, error) {
	if s.imageOpts {
		if s.format != "" || s.stated {
			return nil, failure("--image-opts and --format are mutually exclusive")
		}
		if s.file == "" {
			return nil, failure("Could not open '': Must specify either driver or file")
		}
		if err := checkID(s.file); err != nil {
			return nil, err
		}
		var l optionList
		if err := l.parse(s.file, "file", c.warnFlag); err != nil {
			return nil, err
		}
		o.Values = l.values()
		if share, ok := o.Values["force-share"]; ok && s.share && share != "on" {
			return nil, failure("--force-share/-U conflicts with image options")
		}
	} else {
		o.Filename, o.Format = s.file, s.format
	}
	if s.stated && s.format == "" {
		return nil, failure("Could not open '%s': Unknown driver ''", s.file)
	}
	o.ForceShare = s.share
	o.Report = func(line string) { c.plain("%s", line) }
	n, err := formats.Open(o)
	if err != nil {
		return nil, prefixed(cause(err), "Could not open '%s': ", s.file)
	}
	c.warnProbed(n)
	return n, nil
}

// checkID checks the id in a list of options, which has no other meaning here.
func checkID(list string) error {
	for list != "" {
		name, value, rest, _ := splitOption(list, "")
		if name == "id" && !wellFormed(value) {
			return &message{
				text: "Parameter 'id' expects an identifier",
				hint: "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n",
			}
		}
		list = rest
	}
	return nil
}

// wellFormed tells whether QEMU takes name for an identifier (util/id.c).
func wellFormed(name string) bool {
	for i, b := range []byte(name) {
		letter := b|0x20 >= 'a' && b|0x20 <= 'z'
		if !letter && (i == 0 || (b < '0' || b > '9') && !strings.ContainsRune("-._", rune(b))) {
			return false
		}
	}
	return name != ""
}

// warnProbed warns who is about to write to an image that is raw only because nothing else was found.
func (c *call) warnProbed(n *formats.Node) {
	if !n.Probed || n.Driver != "raw" || n.ReadOnly {
		return
	}
	name := n.Filename
	if n.File != nil {
		name = n.File.Filename
	}
	c.plain("WARNING: Image format was not specified for '%s' and probing guessed raw.", name)
	c.plain("         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.")
	c.plain("         Specify the 'raw' format explicitly to remove the restrictions.")
}

// cause words an error as QEMU would: a system error within it in C's words.
func cause(err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), block.ErrNotThisFormat.Error()+": ")
	var e syscall.Errno
	switch {
	case errors.As(err, &e) && strings.HasSuffix(text, e.Error()):
		text = strings.TrimSuffix(text, e.Error()) + strerror(e)
	case errors.Is(err, block.ErrUnsupported) && strings.HasSuffix(text, block.ErrUnsupported.Error()):
		text = strings.TrimSuffix(text, block.ErrUnsupported.Error()) + strerror(syscall.ENOTSUP)
	}
	return &message{text: text, hint: hint(err)}
}
