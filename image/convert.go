package image

import (
	"math/bits"
	"os"
	"strconv"
	"strings"

	"berth/block"
	"berth/block/formats"
)

// mostWorkers is the most requests at once that -m takes.
const mostWorkers = 16

// convert is the command that copies images into a new one.
type convert struct {
	source                    source // file is not used: there may be several
	srcCache, cache           string
	target                    string // format
	targetOpts                bool
	list                      string // -o
	base, baseFormat          *string
	snapshot                  snapshotChoice
	compress, offload         bool
	progress, quiet, existing bool
	sparse                    int64 // bytes
	sparseGiven               bool
	workers                   int
	unordered                 bool
	rate                      int64 // bytes a second
	salvage, isZero           bool
	bitmaps, skipBroken       bool
}

func newConvert() action {
	return &convert{srcCache: "writeback", cache: "unsafe", sparse: 4096, workers: copyWorkers()}
}

func (v *convert) options(c *call) []option {
	return append([]option{c.objectOption(), mark(0, "image-opts", &v.source.imageOpts)},
		v.source.formatOption(""), word('O', "", &v.target), given('B', &v.base), mark('C', "", &v.offload), mark('c', "", &v.compress),
		given('F', &v.baseFormat), option{short: 'o', set: joinOptions(&v.list)}, option{short: 'l', set: v.snapshot.parse(c)},
		option{short: 'S', set: func(s string) error { return v.setSparse(c, s) }}, mark('p', "", &v.progress), word('t', "", &v.cache),
		word('T', "", &v.srcCache), mark('q', "", &v.quiet), mark('n', "", &v.existing), option{short: 'm', set: v.setWorkers},
		mark('W', "", &v.unordered), mark('U', "force-share", &v.source.share),
		option{short: 'r', set: func(s string) (err error) {
			v.rate, err = c.size("rate limit", s)
			return err
		}},
		mark(0, "salvage", &v.salvage), mark(0, "target-image-opts", &v.targetOpts), mark(0, "target-is-zero", &v.isZero),
		mark(0, "bitmaps", &v.bitmaps), mark(0, "skip-broken-bitmaps", &v.skipBroken))
}

func (v *convert) setSparse(c *call, s string) error {
	n, err := c.size("buffer size for sparse output", s)
	if err != nil {
		return err
	}
	if n%sector != 0 || n > mostSparse {
		return failure("Invalid buffer size for sparse output specified. Valid sizes are multiples of %d up to %d. "+
			"Select 0 to disable sparse detection (fully allocates output).", sector, mostSparse)
	}
	v.sparse, v.sparseGiven = n, true
	return nil
}

func (v *convert) setWorkers(s string) error {
	n, ok := unsigned(s)
	if !ok || n < 1 || n > mostWorkers {
		return failure("Invalid number of coroutines. Allowed number of coroutines is between 1 and %d", mostWorkers)
	}
	v.workers = int(n)
	return nil
}

// contradictions are the choices that do not go together.
func (v *convert) contradictions() error {
	switch {
	case v.skipBroken && !v.bitmaps:
		return failure("Use of --skip-broken-bitmaps requires --bitmaps")
	case v.compress && v.offload:
		return failure("Cannot enable copy offloading when -c is used")
	case v.sparseGiven && v.offload:
		return failure("Cannot enable copy offloading when -S is used")
	case v.offload && v.salvage:
		return failure("Cannot use copy offloading in salvaging mode")
	case v.targetOpts && !v.existing:
		return failure("--target-image-opts requires use of -n flag")
	case v.existing && v.list != "":
		return failure("-o has no effect when skipping image creation")
	case v.isZero && !v.existing:
		return failure("--target-is-zero requires use of -n flag")
	}
	return nil
}

func (v *convert) run(c *call, operands []string) error {
	if err := c.tidy(); err != nil {
		return err
	}
	if v.target == "" && !v.targetOpts {
		v.target = "raw"
	}
	if err := v.contradictions(); err != nil {
		return err
	}
	out := ""
	if len(operands) > 1 {
		out = operands[len(operands)-1]
	}
	if wantsHelp(v.list) {
		return creationHelp(c, out, v.target)
	}
	if len(operands) < 2 {
		return failure("Must specify image file name")
	}
	srcCache, err := cacheMode(v.srcCache, "source cache")
	if err != nil {
		return err
	}
	p := newProgress(c, v.progress && !v.quiet, 1)
	defer p.end()
	p.set(0)
	nodes, err := v.openAll(c, operands[:len(operands)-1], srcCache)
	defer closeAll(nodes)
	if err == nil {
		err = v.into(c, v.copier(c, p), nodes, out)
	}
	if err == nil {
		p.set(100)
	}
	return err
}

// copier returns one that is set as the options say.
func (v *convert) copier(c *call, p *progress) *copier {
	k := &copier{progress: p, compress: v.compress, salvage: v.salvage, sparse: v.sparse, workers: v.workers, inOrder: !v.unordered,
		zeroed: v.isZero, backingSize: -1, count: v.progress && !v.quiet, limit: newLimiter(c.ctx, v.rate)}
	k.offload.Store(v.offload)
	k.warn = func(text string) {
		if !v.quiet {
			c.warn("%s", text)
		}
	}
	return k
}

// openAll opens the sources; those that were opened before an error are returned too.
func (v *convert) openAll(c *call, names []string, cache string) (nodes []*formats.Node, err error) {
	for _, name := range names {
		s := v.source
		s.file = name
		n, err := c.open(s, formats.Options{ReadOnly: true, NoShare: true, Cache: cache})
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func closeAll(nodes []*formats.Node) {
	for _, n := range nodes {
		_ = n.Close() // opened read-only
	}
}

// into copies the images of nodes into out.
func (v *convert) into(c *call, k *copier, nodes []*formats.Node, out string) error {
	if err := v.chooseSnapshot(nodes); err != nil {
		return err
	}
	for _, n := range nodes {
		p := part{chain: chainOf(n), start: k.total, size: roundUp(n.Image.Size(), sector), align: max(sector, clusterSize(n.Image))}
		k.parts = append(k.parts, p)
		k.total += p.size
	}
	var f block.Format
	l := &optionList{}
	if !v.existing {
		var err error
		if f, l, err = v.creation(k.total, out); err != nil {
			return err
		}
	}
	if err := v.check(l, nodes); err != nil {
		return err
	}
	cache, cacheErr := cacheMode(v.cache, "cache")
	k.backed = v.base != nil
	if name, ok := l.get("backing_file"); ok {
		k.backed = true
		v.base = &name
	}
	var kept guard
	if !v.existing {
		data, _ := l.get("data_file")
		kept = guardFiles(out, data)
		if err := makeImage(f, out, l); err != nil {
			return prefixed(err, "%s: error while converting %s: ", out, v.target)
		}
	}
	err := cacheErr
	if err == nil {
		err = v.fill(c, k, nodes[0], out, cache)
	}
	if err != nil && c.ctx.Err() != nil {
		kept.giveUp(c)
	}
	return err
}

func (v *convert) chooseSnapshot(nodes []*formats.Node) error {
	if v.snapshot.either != "" && len(nodes) > 1 {
		return failure("No support for concatenating multiple snapshot")
	}
	if err := v.snapshot.load(nodes[0]); err != nil {
		return prefixed(err, "Failed to load snapshot: ")
	}
	return nil
}

// creation gathers what the new image is made with.
func (v *convert) creation(size int64, out string) (block.Format, *optionList, error) {
	f, options, err := creationOptions(v.target, out)
	if err != nil {
		return f, nil, err
	}
	l := &optionList{known: options}
	if err := l.parse(v.list, "", nil); err != nil {
		return f, nil, err
	}
	if err := l.set("size", strconv.FormatInt(size, 10)); err != nil {
		return f, nil, err
	}
	return f, l, setBacking(l, v.target, v.base, v.baseFormat)
}

// check refuses what cannot be done, before anything is written.
func (v *convert) check(l *optionList, nodes []*formats.Node) error {
	_, named := l.get("backing_file")
	_, stated := l.get("backing_fmt")
	backed := named || v.base != nil
	switch {
	case v.isZero && backed:
		return failure("Cannot use --target-is-zero when the destination image has a backing file")
	case len(nodes) > 1 && backed:
		return failure("Having a backing file for the target makes no sense when concatenating multiple input images")
	case named && !stated:
		return failure("Use of backing file requires explicit backing format")
	}
	if v.compress {
		encrypt, _ := l.get("encryption")
		cipher, _ := l.get("encrypt.format")
		prealloc, _ := l.get("preallocation")
		switch {
		case !v.existing && v.target == "raw":
			return failure("Compression not supported for this file format")
		case encrypt == "on" || cipher != "":
			return failure("Compression and encryption not supported at the same time")
		case prealloc != "" && prealloc != "off":
			return failure("Compression and preallocation not supported at the same time")
		}
	}
	if v.bitmaps {
		return v.checkBitmaps(nodes)
	}
	return nil
}

// fill opens the target and copies everything.
func (v *convert) fill(c *call, k *copier, first *formats.Node, out, cache string) error {
	s := source{file: out, format: v.target, imageOpts: v.targetOpts}
	target, err := c.open(s, formats.Options{Cache: cache})
	if err != nil {
		return err
	}
	err = v.copy(c, k, first, target, out)
	if e := target.Close(); err == nil && e != nil {
		err = failure("error while writing to '%s': %s", out, strerror(errno(e)))
	}
	return err
}

func (v *convert) copy(c *call, k *copier, first, target *formats.Node, out string) error {
	_, canCompress := target.Image.(block.CompressedWriter)
	_, canBitmap := target.Image.(block.Bitmapper)
	switch {
	case v.bitmaps && !canBitmap:
		return failure("Format driver '%s' does not support bitmaps", target.Driver)
	case k.compress && !canCompress:
		return failure("Compression not supported for this file format")
	case v.existing && roundUp(target.Image.Size(), sector) < k.total:
		return failure("output file is smaller than input file")
	}
	k.target = target.Image
	k.cluster = clusterSize(target.Image)
	k.align = sector
	if k.sparse > sector {
		k.align = 1 << (bits.Len64(uint64(k.sparse)) - 1)
	}
	if k.backed && !v.existing && target.Backing != nil {
		k.backingSize = roundUp(target.Backing.Image.Size(), sector)
	}
	if !v.existing && k.sparse != 0 && !k.backed {
		k.zeroed = regular(out) && (target.Data == nil || regular(target.Data.Filename))
	}
	if err := k.run(c.ctx); err != nil {
		return err
	}
	if v.bitmaps {
		return v.copyBitmaps(c, first, target)
	}
	return nil
}

// regular tells whether name is a file, which reads as zeros where it has not been written.
func regular(name string) bool {
	i, err := os.Stat(strings.TrimPrefix(name, "file:"))
	return err == nil && i.Mode().IsRegular()
}

// clusterSize is that of an image's format, in bytes; 0: none.
func clusterSize(image block.Image) int64 {
	if i, ok := image.(block.Informer); ok {
		return i.Info().ClusterSize
	}
	return 0
}

func (v *convert) checkBitmaps(nodes []*formats.Node) error {
	if len(nodes) > 1 {
		return failure("Copying bitmaps only possible with single source")
	}
	b, ok := nodes[0].Image.(block.Bitmapper)
	if !ok {
		return failure("Source lacks bitmap support")
	}
	for _, m := range b.Bitmaps() {
		if m.InUse && !v.skipBroken {
			return &message{text: "Cannot copy inconsistent bitmap '" + m.Name + "'",
				hint: "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it\n"}
		}
	}
	return nil
}

// copyBitmaps gives the target the source's bitmaps, with what is dirty in them.
func (v *convert) copyBitmaps(c *call, from, to *formats.Node) error {
	src, dst := from.Image.(block.Bitmapper), to.Image.(block.Bitmapper)
	for _, m := range src.Bitmaps() {
		if m.InUse {
			c.warn("Skipping inconsistent bitmap '%s'", m.Name)
			continue
		}
		if err := dst.AddBitmap(m); err != nil {
			return prefixed(cause(err), "Failed to create bitmap %s: ", m.Name)
		}
		var failed error
		err := src.DirtyRanges(m.Name, func(off, n int64) bool {
			failed = dst.MarkBitmap(m.Name, off, n)
			return failed == nil
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			_ = dst.RemoveBitmap(m.Name) // what is reported is why
			return prefixed(cause(err), "Failed to populate bitmap %s: ", m.Name)
		}
	}
	return nil
}
