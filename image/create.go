package image

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"berth/block"
	"berth/block/formats"
)

type create struct {
	format, list     string
	base, baseFormat *string // nil: not given
	quiet, unchecked bool
}

func newCreate() action { return &create{format: "raw"} }

func (a *create) options(c *call) []option {
	return []option{
		c.objectOption(), given('F', &a.baseFormat), given('b', &a.base), word('f', "", &a.format),
		{short: 'o', set: joinOptions(&a.list)}, mark('q', "", &a.quiet), mark('u', "", &a.unchecked),
	}
}

func (a *create) run(c *call, operands []string) error {
	file := ""
	if len(operands) > 0 {
		file = operands[0]
	}
	if wantsHelp(a.list) {
		return creationHelp(c, file, a.format)
	}
	if len(operands) == 0 {
		return misuse("Expecting image file name")
	}
	size := int64(-1)
	if len(operands) > 1 {
		var err error
		if size, err = c.size("image size", operands[1]); err != nil {
			return err
		}
	}
	if len(operands) > 2 {
		return misuse("Unexpected argument: %s", operands[2])
	}
	if err := a.create(c, file, size); err != nil {
		return prefixed(err, "%s: ", file)
	}
	return nil
}

// notCreated is the error for a format that images cannot be made in.
func notCreated(format string) error {
	return failure("Format driver '%s' does not support image creation", format)
}

// fileOptions are those that a file takes when it is made, whatever is in it.
func fileOptions() []block.Option {
	return []block.Option{
		{Name: "size", Help: "Virtual disk size", Type: block.OptSize},
		{Name: "nocow", Help: "Turn off copy-on-write (valid only on btrfs)", Type: block.OptBool},
		{Name: "preallocation", Help: "Preallocation mode (allowed values: off, falloc, full)"},
		{Name: "extent_size_hint", Help: "Extent size hint for the image file, 0 to disable", Type: block.OptSize},
	}
}

// creationOptions are those of the format and of the protocol that file names; file "": of the format alone.
func creationOptions(format, file string) (block.Format, []block.Option, error) {
	f, ok := formats.Find(format)
	if !ok {
		return f, nil, unknownFormat(format)
	}
	if file != "" {
		if err := checkProtocol(file); err != nil {
			return f, nil, err
		}
	}
	if f.Create == nil {
		return f, nil, notCreated(format)
	}
	if file == "" {
		return f, f.Options, nil
	}
	return f, mergeOptions(f.Options, fileOptions()), nil
}

// creationHelp is the answer to -o help.
func creationHelp(c *call, file, format string) error {
	f, options, err := creationOptions(format, file)
	if err != nil {
		return err
	}
	if file == "" {
		c.printf("Supported %s options:\n", f.Name)
	} else {
		c.printf("Supported options:\n")
	}
	printHelp(c, options)
	if file == "" {
		c.printf("\nThe protocol level may support further options.\nSpecify the target filename to include those options.\n")
	}
	return nil
}

// create makes an image; size -1: as the options say, or as large as the backing image.
func (a *create) create(c *call, file string, size int64) error {
	f, options, err := creationOptions(a.format, file)
	if err != nil {
		return err
	}
	l := &optionList{known: options}
	if err := l.parse(a.list, "", nil); err != nil {
		return err
	}
	if err := a.setSize(l, size); err != nil {
		return err
	}
	if err := setBacking(l, a.format, a.base, a.baseFormat); err != nil {
		return err
	}
	if err := a.checkBacking(l, file); err != nil {
		return err
	}
	if v, _ := l.get("size"); v == unknownSize {
		return failure("Image creation needs a size parameter")
	}
	if !a.quiet {
		c.printf("Formatting '%s', fmt=%s ", file, a.format)
		l.print(c)
		c.printf("\n")
		_ = c.stdout.Flush() // Main reports what stdout does not take
	}
	return makeImage(f, file, l)
}

// unknownSize is -1 as an unsigned number: the size that was not given.
const unknownSize = "18446744073709551615"

func (a *create) setSize(l *optionList, size int64) error {
	if _, ok := l.get("size"); !ok {
		return l.set("size", strconv.FormatUint(uint64(size), 10))
	}
	if size != -1 {
		return failure("The image size must be specified only once")
	}
	return nil
}

// setBacking adds what -b and -F say.
func setBacking(l *optionList, format string, base, baseFormat *string) error {
	if base != nil && l.set("backing_file", *base) != nil {
		return failure("Backing file not supported for file format '%s'", format)
	}
	if baseFormat != nil && l.set("backing_fmt", *baseFormat) != nil {
		return failure("Backing file format not supported for file format '%s'", format)
	}
	return nil
}

// checkBacking opens the backing image, and takes the size from it if there is no other.
func (a *create) checkBacking(l *optionList, file string) error {
	base, ok := l.get("backing_file")
	if !ok {
		return nil
	}
	format, stated := l.get("backing_fmt")
	switch {
	case base == file:
		return failure("Error: Trying to create an image with the same filename as the backing file")
	case base == "":
		return failure("Expected backing file name, got empty string")
	case a.unchecked && !stated:
		return failure("Backing file specified without backing format")
	case a.unchecked:
		return nil
	}
	n, err := openBacking(base, format, file)
	if err != nil {
		return err
	}
	defer func() { _ = n.Close() }() // nothing was written
	if !stated {
		return &message{text: "Backing file specified without backing format", hint: fmt.Sprintf("Detected format of %s.", n.Driver)}
	}
	if v, _ := l.get("size"); v == unknownSize {
		return l.set("size", strconv.FormatInt(roundUp(n.Image.Size(), sector), 10))
	}
	return nil
}

func openBacking(base, format, of string) (*formats.Node, error) {
	full, err := formats.FullName(of, base)
	if err != nil {
		return nil, cause(err)
	}
	n, err := formats.Open(formats.Options{Filename: full, Format: format, ReadOnly: true, NoIO: true, ForceShare: true})
	if err != nil {
		return nil, &message{text: cause(err).Error(), hint: hint(err) + "Could not open backing image.\n"}
	}
	return n, nil
}

// protocol is what a name begins with, before a colon; "": it is a path.
func protocol(name string) string {
	if i := strings.IndexAny(name, ":/"); i > 0 && name[i] == ':' {
		return name[:i]
	}
	return ""
}

// checkProtocol refuses the name of what is no file.
func checkProtocol(name string) error {
	if p := protocol(name); p != "" && p != "file" {
		return failure("Unknown protocol '%s'", p)
	}
	return nil
}

// makeImage makes an image of that format in that file; l has its options. What is left of one that
// could not be made is removed.
func makeImage(f block.Format, file string, l *optionList) error {
	err := makeContents(f, strings.TrimPrefix(file, "file:"), l)
	if errors.Is(err, syscall.EFBIG) {
		advice := ""
		if n, _ := l.get("cluster_size"); n != "" && n != "0" {
			advice = " (try using a larger cluster size)"
		}
		return failure("The image size is too large for file format '%s'%s", f.Name, advice)
	}
	return cause(err)
}

func makeContents(f block.Format, file string, l *optionList) error {
	w, err := formats.CreateFile(file, 0)
	if err != nil {
		return err
	}
	created := block.Creation{Values: l.values()}
	data, err := makeDataFile(&created)
	if err == nil {
		err = f.Create(w, created)
	}
	if created.Data != nil {
		if e := created.Data.Close(); err == nil {
			err = e
		}
	}
	if e := w.Close(); err == nil {
		err = e
	}
	if err != nil {
		removeFile(file)
		if created.Data != nil {
			removeFile(data)
		}
	}
	return err
}

// makeDataFile makes the external data file that the options name, if they do.
func makeDataFile(c *block.Creation) (name string, err error) {
	name = c.Values["data_file"]
	if name == "" {
		return "", nil
	}
	c.Data, err = formats.CreateFile(name, 0)
	return name, err
}

// removeFile removes what is left of an image that could not be made. What is no file stays.
func removeFile(name string) {
	if i, err := os.Lstat(name); err == nil && i.Mode().IsRegular() {
		_ = os.Remove(name)
	}
}
