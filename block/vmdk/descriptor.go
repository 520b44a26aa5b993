package vmdk

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"berth/block"
)

// descriptor is the text that says what an image consists of; for example
//
//	# Disk DescriptorFile
//	version=1
//	CID=c3d5c112
//	parentCID=ffffffff
//	createType="twoGbMaxExtentFlat"
//	parentFileNameHint="base.vmdk"
//
//	# Extent description
//	RW 4192256 FLAT "disk-f001.vmdk" 0
//	RW 2048 FLAT "disk-f002.vmdk" 0
//
// It is a file of its own, or in a sparse file (VMware Virtual Disk Format 1.1,
// The Descriptor File).
type descriptor struct {
	createType     string
	cid, parentCID uint32
	parent         string // "": none
}

// extentLine is one extent: access, sectors, type, file and, of some, offset.
type extentLine struct {
	sectors int64
	kind    string
	name    string
	off     int64 // sectors
}

// readText returns the text that begins at off of f and ends at the first zero.
func readText(f block.File, off int64) (string, error) {
	p := make([]byte, max(0, min(f.Size()-off, maxDescriptor)))
	if err := f.Readv([][]byte{p}, off); err != nil {
		return "", fmt.Errorf("Could not read from file: %w", err)
	}
	s, _, _ := strings.Cut(string(p), "\x00")
	return s, nil
}

// parse takes what names the image and its parent. QEMU looks at 20 sectors for it.
func (d *descriptor) parse(text string) error {
	text = text[:min(len(text), 20*sectorSize-1)]
	if _, s, ok := strings.Cut(text, "parentFileNameHint"); ok {
		name, _, ok := strings.Cut(s[min(len(s), 2):], `"`)
		if !ok || len(name) > 4095 {
			return errors.New("invalid VMDK image descriptor: parentFileNameHint does not end")
		}
		d.parent = name
	}
	var err error
	if d.cid, err = number(text, "CID"); err == nil {
		d.parentCID, err = number(text, "parentCID")
	}
	return err
}

func number(text, name string) (uint32, error) {
	_, s, ok := strings.Cut(text, name)
	if !ok {
		return 0, fmt.Errorf("invalid VMDK image descriptor: it has no %s (an extent is opened by the descriptor that names it)", name)
	}
	s = strings.TrimLeft(s[min(len(s), 1):], " \t\r\n")
	s = strings.TrimPrefix(s, "0x")
	k := 0
	for k < len(s) && strings.IndexByte("0123456789abcdefABCDEF", s[k]) >= 0 {
		k++
	}
	v, err := strconv.ParseUint(s[:k], 16, 32)
	if err != nil {
		return 0, fmt.Errorf("invalid VMDK image descriptor: %s is not a number", name)
	}
	return uint32(v), nil
}

// value is what stands in quotes after a name.
func value(text, name string) (string, bool) {
	_, s, ok := strings.Cut(text, name)
	if !ok || len(s) <= 2 {
		return "", false
	}
	v, _, ok := strings.Cut(s[2:], `"`)
	return v, ok && len(v) < 128
}

// parseExtents takes the type of the whole, and returns its extents.
func (d *descriptor) parseExtents(text string) ([]extentLine, error) {
	kind, ok := value(text, "createType")
	if !ok {
		return nil, errors.New("invalid VMDK image descriptor")
	}
	switch kind {
	case "monolithicFlat", "vmfs", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat":
	default: // vmfsSparse and seSparse, too, are no more than named
		return nil, fmt.Errorf("Unsupported image type '%s'", kind)
	}
	d.createType = kind
	pattern := regexp.MustCompile(`^\s*RW\s+([-+]?\d+)\s*([^\s"]+)(?:\s*"([^\r"]{1,511})"(?:\s*([-+]?\d+))?)?`)
	var lines []extentLine
	for s := text; s != ""; s = afterLine(s) {
		line, _, _ := strings.Cut(s, "\n")
		l, ok, err := newLine(line, pattern)
		if err != nil {
			return nil, err
		}
		if !ok || l.sectors == 0 {
			continue
		}
		if len(lines) == maxExtents {
			return nil, fmt.Errorf("VMDK images of more than %d extents are not supported", maxExtents)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// newLine parses a line that describes an extent. To pass over one that is not
// known, as QEMU does, would be to read what is behind it in its place.
func newLine(line string, pattern *regexp.Regexp) (l extentLine, ok bool, err error) {
	w := strings.Fields(line)
	if len(w) < 2 || w[0] != "RW" && w[0] != "RDONLY" && w[0] != "NOACCESS" {
		return l, false, nil
	}
	if w[0] != "RW" {
		return l, false, fmt.Errorf("Unsupported extent access '%s'", w[0])
	}
	invalid := fmt.Errorf("Invalid extent line: %s", line)
	m := pattern.FindStringSubmatch(line)
	if m == nil {
		return l, false, invalid
	}
	l = extentLine{kind: m[2], name: m[3]}
	switch l.kind {
	case "FLAT", "VMFS", "SPARSE", "VMFSSPARSE", "SESPARSE":
	default:
		return l, false, fmt.Errorf("Unsupported extent type '%s'", l.kind)
	}
	if l.sectors, err = strconv.ParseInt(m[1], 10, 64); err != nil || l.sectors < 0 || l.name == "" || (m[4] != "") != (l.kind == "FLAT") {
		return l, false, invalid
	}
	if m[4] != "" {
		if l.off, err = strconv.ParseInt(m[4], 10, 64); err != nil || l.off < 0 {
			return l, false, invalid
		}
	}
	return l, true, nil
}

func afterLine(s string) string {
	_, s, _ = strings.Cut(s, "\n")
	return s
}
