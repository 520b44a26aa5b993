package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
)

// rows lists everything that is measured; scale stretches the images.
func rows(scale float64) []*row {
	full := disk("full", int64(256<<20*scale), 1<<20, 1, noise)
	sparse := disk("sparse", int64(2<<30*scale), 1<<20, 0.2, noise)
	crumbs := disk("crumbs", int64(1<<30*scale), 16<<10, 0.2, noise)
	text := disk("text", int64(192<<20*scale), 1<<20, 1, prose)
	mixed := disk("mixed", int64(512<<20*scale), 64<<10, 0.3, prose)
	huge := disk("huge", 100<<30, 1<<20, 0.001, noise)
	var all []*row
	for _, i := range []input{full, sparse, crumbs} {
		q := qcow2(i)
		all = append(all,
			&row{name: "convert raw to qcow2: " + i.name, inputs: []input{i}, outputs: []string{"out"}, args: words("convert -f raw -O qcow2 " + i.name + " out")},
			&row{name: "convert qcow2 to raw: " + i.name, inputs: []input{i, q}, outputs: []string{"out"}, args: words("convert -f qcow2 -O raw " + q.name + " out")})
	}
	for _, i := range []input{text, mixed} {
		for _, kind := range []string{"zlib", "zstd"} {
			all = append(all, &row{name: "convert -c " + kind + ": " + i.name, inputs: []input{i}, outputs: []string{"out"},
				args: words("convert -c -f raw -O qcow2 -o compression_type=" + kind + " " + i.name + " out")})
		}
	}
	packed := input{name: "text.packed", make: func(w *workshop, path string) error {
		return w.img("convert", "-c", "-f", "raw", "-O", "qcow2", w.path("text"), path)
	}}
	all = append(all, &row{name: "convert compressed qcow2 to raw: text", inputs: []input{text, packed}, outputs: []string{"out"},
		args: words("convert -f qcow2 -O raw text.packed out")})
	all = append(all, hugeRows(huge)...)
	all = append(all, tableRows()...)
	all = append(all, chainRows(crumbs)...)
	return append(all, benchRows(full)...)
}

// hugeRows are about images that are mostly holes.
func hugeRows(huge input) []*row {
	q := qcow2(huge)
	return []*row{
		{name: "convert 100 GiB, sparse, raw to qcow2", inputs: []input{huge}, outputs: []string{"out"}, args: words("convert -f raw -O qcow2 huge out")},
		{name: "convert 100 GiB, sparse, qcow2 to raw", inputs: []input{huge, q}, outputs: []string{"out"}, args: words("convert -f qcow2 -O raw huge.qcow2 out")},
		{name: "convert 100 GiB, sparse, qcow2 to qcow2", inputs: []input{huge, q}, outputs: []string{"out"}, args: words("convert -f qcow2 -O qcow2 huge.qcow2 out")},
	}
}

// tableRows are about what describes the contents.
func tableRows() []*row {
	f := fragmented()
	return []*row{
		{name: "check, 64 GiB, fragmented", inputs: []input{f}, args: words("check -q -f qcow2 fragments")},
		{name: "map, 64 GiB, fragmented", inputs: []input{f}, args: words("map --output json -f qcow2 fragments")},
		{name: "info", inputs: []input{f}, args: words("info -f qcow2 fragments")},
		{name: "create", outputs: []string{"out"}, args: words("create -q -f qcow2 out 64G")},
		{name: "create, metadata preallocated", outputs: []string{"out"}, args: words("create -q -f qcow2 -o preallocation=metadata out 64G")},
		{name: "snapshot -c, 64 GiB, fragmented", inputs: []input{f}, fresh: []string{"fragments"}, args: words("snapshot -q -c one work-fragments")},
	}
}

// chainRows are about overlays.
func chainRows(base input) []*row {
	b := qcow2(base)
	over := input{name: "over", make: func(w *workshop, path string) error {
		if err := w.img("create", "-q", "-f", "qcow2", "-b", "work-"+b.name, "-F", "qcow2", "-u", path, strconv.FormatInt(size(w.path(base.name)), 10)); err != nil {
			return err
		}
		if err := w.prepare(&row{fresh: []string{b.name}}); err != nil {
			return err
		}
		return w.img("bench", "-w", "-f", "qcow2", "-c", "2000", "-s", "65536", "-S", strconv.Itoa(11*65536), "-d", "1", "--pattern=7", path)
	}}
	other := input{name: "other", make: func(w *workshop, path string) error {
		if err := w.img("convert", "-f", "qcow2", "-O", "qcow2", w.path(b.name), path); err != nil {
			return err
		}
		return w.img("bench", "-w", "-f", "qcow2", "-c", "1000", "-s", "65536", "-S", strconv.Itoa(13*65536), "-d", "1", "--pattern=9", path)
	}}
	inputs := []input{base, b, over, other}
	fresh := []string{b.name, over.name}
	return []*row{
		{name: "commit", inputs: inputs, fresh: fresh, args: words("commit -q -f qcow2 work-over")},
		{name: "commit -d", inputs: inputs, fresh: fresh, args: words("commit -q -d -f qcow2 work-over")},
		{name: "rebase on another image", inputs: inputs, fresh: fresh, args: words("rebase -f qcow2 -b other -F qcow2 work-over")},
		{name: "rebase on nothing", inputs: inputs, fresh: fresh, args: []string{"rebase", "-f", "qcow2", "-b", "", "work-over"}},
		{name: "compare", inputs: inputs, fresh: fresh, args: words("compare -f qcow2 -F qcow2 " + b.name + " work-" + b.name)},
	}
}

func benchRows(full input) []*row {
	q := qcow2(full)
	inputs := []input{full, q}
	random := " -S " + strconv.Itoa(7919*4096) // goes everywhere, for it has no factor in common with the image's blocks
	var all []*row
	for _, i := range []struct{ name, format string }{{full.name, "raw"}, {q.name, "qcow2"}} {
		all = append(all,
			&row{name: "bench, reads one after the other, " + i.format, inputs: inputs, args: words("bench -c 200000 -f " + i.format + " " + i.name)},
			&row{name: "bench, reads at random, " + i.format, inputs: inputs, args: words("bench -c 200000 -f " + i.format + random + " " + i.name)},
			&row{name: "bench, writes one after the other, " + i.format, inputs: inputs, fresh: []string{i.name},
				args: words("bench -w -c 100000 -f " + i.format + " work-" + i.name)},
			&row{name: "bench, writes at random, " + i.format, inputs: inputs, fresh: []string{i.name},
				args: words("bench -w -c 100000 -f " + i.format + random + " work-" + i.name)})
	}
	return all
}

// disk is a raw image of that size; of its pieces, a share is filled.
func disk(name string, size, piece int64, share float64, fill func(*rand.Rand, []byte)) input {
	return input{name: name, make: func(_ *workshop, path string) error {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // what was written is read again by both
		if err := f.Truncate(size); err != nil {
			return err
		}
		r := rand.New(rand.NewPCG(uint64(size), uint64(piece)))
		p := make([]byte, piece)
		for off := int64(0); off+piece <= size; off += piece {
			if r.Float64() >= share {
				continue
			}
			fill(r, p)
			if _, err := f.WriteAt(p, off); err != nil {
				return err
			}
		}
		return nil
	}}
}

func noise(r *rand.Rand, p []byte) {
	for i := 0; i+8 <= len(p); i += 8 {
		n := r.Uint64()
		for j := range 8 {
			p[i+j] = byte(n >> (8 * j))
		}
	}
}

// prose is what compresses as text and programs do, to about a third.
func prose(r *rand.Rand, p []byte) {
	for at := 0; at < len(p); {
		at += copy(p[at:], fmt.Sprintf("%s=%d;", vocabulary[r.IntN(len(vocabulary))], r.IntN(1<<r.IntN(24))))
	}
}

var vocabulary = [...]string{"disk", "sector", "/usr/lib/x86_64-linux-gnu/", "offset", "the", "return", "0x7f", "\x00\x00\x00\x00\x01", "block", "of", "error: ", "static int "}

// qcow2 is i as a qcow2 image.
func qcow2(i input) input {
	return input{name: i.name + ".qcow2", make: func(w *workshop, path string) error {
		return w.img("convert", "-f", "raw", "-O", "qcow2", w.path(i.name), path)
	}}
}

// fragmented is a qcow2 image whose clusters lie in another order than their addresses.
func fragmented() input {
	return input{name: "fragments", make: func(w *workshop, path string) error {
		if err := w.img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "64G"); err != nil {
			return err
		}
		return w.img("bench", "-w", "-t", "unsafe", "-f", "qcow2", "-c", "150000", "-d", "8", "-s", "4096", "-S", strconv.Itoa(104729*4096), path)
	}}
}

func size(path string) int64 {
	i, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return i.Size()
}
