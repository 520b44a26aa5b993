package block

import (
	"errors"
	"strconv"
)

// Format is a disk format: how its images are recognised, opened and made.
// package block/formats lists them. Errors are worded as QEMU words them, since
// scripts read them; they do not name the file. One that is a bare syscall.Errno has no words
// of its own: QEMU then says "Could not open 'FILE': " and the errno's.
type Format struct {
	Name    string                                                   // as users say it: "qcow2"
	Probe   func(head []byte) int                                    // how sure the image's first 512 bytes make, 0 to 100, as in QEMU
	Open    func(f File, o OpenOptions) (Image, error)               // the image owns f from then on, if there is no error
	Create  func(f File, c Creation) error                           // nil: not possible; f is empty and stays the caller's
	Options []Option                                                 // of Create; QEMU's, in QEMU's order
	Amend   func(i Image, v Values, p func(done, total int64)) error // nil: not possible
	Amends  []Option                                                 // of Amend
	Measure func(v Values, src Image) (Measurement, error)           // nil: not possible; src nil: Values' size
}

// OpenOptions says how an image is opened.
type OpenOptions struct {
	ReadOnly bool
	Check    bool   // opened to be checked or repaired: nothing is repaired at open, and what is inconsistent is no reason to refuse
	NoIO     bool   // only what the header says is wanted
	Values   Values // the format's own run-time options: "lazy-refcounts"
	// Report gets each line that QEMU would print while the image is open, such
	// as that it has been marked corrupt; nil: nobody wants to know.
	Report   func(line string)
	Filename string // f's, as messages and descriptions name it
	// Sibling opens a file that the image names beside itself (an extent of a
	// vmdk), read-only, by the name stored in the image. It answers with the
	// full name too. Where it is nil, such images are refused.
	Sibling func(name string) (f File, filename string, err error)
}

// Creation says what image to make.
type Creation struct {
	Values Values // all of Format.Options that were given, and "size"
	Data   File   // the external data file, if Values names one
}

// Measurement is how large an image's file will be, in bytes.
type Measurement struct {
	Required, FullyAllocated int64
	Bitmaps                  int64 // -1: has none to say
}

// OptionType is the type of an option's value.
type OptionType uint8

// The types, as option lists name them: str, bool (on/off), num, size.
const (
	OptString OptionType = iota
	OptBool
	OptNumber
	OptSize
)

// Option is one that a format takes when an image of it is made.
type Option struct {
	Name, Help string
	Type       OptionType
	Default    string // printed by help; "" if there is none
}

// Values holds options by name in canonical form: numbers and sizes as decimal
// digits, booleans as "on" and "off". Whoever fills it has checked it against the Options.
type Values map[string]string

// On returns the boolean of that name, or otherwise if it is not there.
func (v Values) On(name string, otherwise bool) bool {
	switch v[name] {
	case "on":
		return true
	case "off":
		return false
	}
	return otherwise
}

// Int returns the number of that name, or otherwise if it is not there. What
// is too large for an int64 is the largest there is.
func (v Values) Int(name string, otherwise int64) int64 {
	s, ok := v[name]
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return otherwise
	}
	return n
}

// ErrNotThisFormat is Open's answer to what is no image of its format at all.
var ErrNotThisFormat = errors.New("image is not in this format")

// NotThisFormat is ErrNotThisFormat in QEMU's words for the format.
type NotThisFormat string

func (e NotThisFormat) Error() string { return string(e) }

// Unwrap says what kind of error it is.
func (e NotThisFormat) Unwrap() error { return ErrNotThisFormat }
