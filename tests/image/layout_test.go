package image

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// layout is how an image is made: one of the matrix of qcow2's options, or raw.
type layout struct {
	raw      bool
	cluster  int64 // bytes
	refcount int   // bits
	v2       bool
	lazy     bool
	extended bool
	zstd     bool
	data     dataFile
	prealloc string
	size     int64
}

type dataFile uint8

const (
	noDataFile dataFile = iota
	ownDataFile
	rawDataFile
)

// randomLayout returns the options of an image that may have a backing image. Images are of a
// few clusters to a few tables, and seldom a whole number of clusters.
func randomLayout(r *rand.Rand, backed bool) layout {
	l := layout{cluster: 512 << r.IntN(13), refcount: 1 << r.IntN(7), prealloc: "off"}
	if r.IntN(3) == 0 {
		l.cluster = 65536
	}
	l.size = 512 * (1 + r.Int64N(max(2*min(l.cluster, 64<<10), 128<<10)*(1+r.Int64N(16))/512))
	if l.size > 2<<20 && l.cluster < 4096 {
		l.size = 2 << 20
	}
	if r.IntN(5) == 0 {
		l.v2, l.refcount = true, 16
		return l.preallocated(r, backed)
	}
	l.lazy, l.zstd = r.IntN(4) == 0, r.IntN(3) == 0
	l.extended = l.cluster >= 16<<10 && r.IntN(3) == 0
	if r.IntN(5) == 0 {
		l.data = ownDataFile
		if !backed && r.IntN(2) == 0 {
			l.data = rawDataFile
		}
	}
	return l.preallocated(r, backed)
}

func (l layout) preallocated(r *rand.Rand, backed bool) layout {
	if !backed && r.IntN(4) == 0 {
		l.prealloc = []string{"metadata", "falloc", "full"}[r.IntN(3)]
	}
	return l
}

func (l layout) format() string {
	if l.raw {
		return "raw"
	}
	return "qcow2"
}

// create returns qemu-img's arguments that make the image.
func (l layout) create(path string, backing, backingFormat string) []string {
	args := []string{"create", "-f", l.format()}
	if backing != "" {
		args = append(args, "-b", backing, "-F", backingFormat)
	}
	if l.raw {
		return append(args, path, fmt.Sprint(l.size))
	}
	o := []string{fmt.Sprintf("cluster_size=%d", l.cluster), "preallocation=" + l.prealloc}
	if l.v2 {
		o = append(o, "compat=0.10")
	} else {
		o = append(o, fmt.Sprintf("refcount_bits=%d", l.refcount), "lazy_refcounts="+onOff(l.lazy), "extended_l2="+onOff(l.extended))
	}
	if l.zstd {
		o = append(o, "compression_type=zstd")
	}
	if l.data != noDataFile {
		o = append(o, "data_file="+strings.TrimSuffix(path, ".qcow2")+".data", "data_file_raw="+onOff(l.data == rawDataFile))
	}
	return append(args, "-o", strings.Join(o, ","), path, fmt.Sprint(l.size))
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
