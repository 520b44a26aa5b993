package image

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// step is one operation of a sequence, decided by its seed and what the model
// is when its turn comes, so that it means something without those before it.
type step struct {
	kind kind
	seed uint64
}

type kind uint8

const (
	kIO kind = iota
	kSnapshotCreate
	kSnapshotApply
	kSnapshotDelete
	kResize
	kCommit
	kRebase
	kBitmap
	kAmend
	kRepair
	kConvert
)

// weights say how often each kind of step is taken, of 100.
var weights = [...]int{kIO: 46, kSnapshotCreate: 9, kSnapshotApply: 6, kSnapshotDelete: 5, kResize: 8, kCommit: 5, kRebase: 5, kBitmap: 7, kAmend: 4, kRepair: 3, kConvert: 2}

func randomStep(r *rand.Rand) step {
	n := r.IntN(100)
	for k, w := range weights {
		if n -= w; n < 0 {
			return step{kind(k), r.Uint64()}
		}
	}
	return step{kIO, r.Uint64()}
}

// task is a step made concrete. @ in args stands for the twin's directory.
type task struct {
	requests []request // to the top image, if args is nil
	parallel bool      // they share no byte, and may be done at once
	args     []string  // of qemu-img
	touched  []int     // layers whose contents or metadata may change
	done     func()    // what it does to the model, once it has succeeded
}

func (t task) String() string {
	if t.args != nil {
		return "qemu-img " + strings.Join(t.args, " ")
	}
	s := make([]string, len(t.requests))
	for i, q := range t.requests {
		s[i] = q.command("@")
	}
	return "qemu-io -c '" + strings.Join(s, "' -c '") + "'"
}

// command is the request as qemu-io reads it.
func (q request) command(dir string) string {
	at := fmt.Sprintf("%d %d", q.off, q.n)
	f := ""
	if q.fua {
		f = " -f"
	}
	from := fmt.Sprintf("-P %d", byte(-q.src))
	if q.src >= 0 {
		from = "-s " + sourcePath(dir, q.src)
	}
	switch q.kind {
	case ioWrite:
		return fmt.Sprintf("write -q%s %s %s", f, from, at)
	case ioCompressed:
		return fmt.Sprintf("write -q -c %s %s", from, at)
	case ioZero:
		if q.unmap {
			f += " -u"
		}
		return fmt.Sprintf("write -q%s -z %s", f, at)
	case ioDiscard:
		return "discard -q " + at
	}
	return "flush"
}

// resolve makes the step concrete; false if there is nothing for it to do now.
func (s step) resolve(m *model) (task, bool) {
	r := rand.New(rand.NewPCG(s.seed, 11))
	return [...]func(*model, *rand.Rand) (task, bool){
		kIO: resolveIO, kSnapshotCreate: resolveSnapshotCreate, kSnapshotApply: resolveSnapshotApply,
		kSnapshotDelete: resolveSnapshotDelete, kResize: resolveResize, kCommit: resolveCommit, kRebase: resolveRebase,
		kBitmap: resolveBitmap, kAmend: resolveAmend, kRepair: resolveRepair, kConvert: resolveConvert,
	}[s.kind](m, r)
}

func (m *model) topIndex() int { return len(m.layers) - 1 }

func (m *model) onTop(done func(), args ...string) (task, bool) {
	return task{args: append(args, "@/"+m.top().name), touched: []int{m.topIndex()}, done: done}, true
}

func resolveIO(m *model, r *rand.Rand) (task, bool) {
	l := m.top()
	t := task{touched: []int{m.topIndex()}, parallel: r.IntN(3) == 0}
	for range 1 + r.IntN(6) {
		q := randomRequest(r, l)
		if q.n == 0 && q.kind != ioFlush || t.parallel && overlaps(t.requests, q) {
			continue
		}
		if q.kind == ioCompressed && m.twins && (l.zeroed[q.off/l.cluster] || l.storesZeros() && overlaps(t.requests, q)) {
			continue // to be refused or not, by what each has stored there
		}
		if q.kind == ioCompressed && reused(t.requests) {
			continue
		}
		t.requests = append(t.requests, q)
	}
	return t, len(t.requests) > 0
}

// reused tells whether a compressed cluster may have been freed. QEMU 7.2 puts the next behind it for as long as the
// image is open, even if the place has been given to other data.
func reused(qs []request) bool {
	for i, q := range qs {
		if q.kind == ioCompressed && overlaps(qs[i+1:], q) {
			return true
		}
	}
	return false
}

func overlaps(qs []request, q request) bool {
	for _, p := range qs {
		if q.kind == ioFlush || p.off < q.off+q.n && q.off < p.off+p.n {
			return true
		}
	}
	return false
}

// randomRequest has no compressed write that a bitmap sees: QEMU marks what it then refuses to write.
func randomRequest(r *rand.Rand, l *layer) request {
	size := int64(len(l.bytes))
	q := request{kind: [...]ioKind{ioWrite, ioWrite, ioWrite, ioWrite, ioZero, ioZero, ioDiscard, ioDiscard, ioCompressed, ioCompressed, ioFlush}[r.IntN(11)]}
	if q.kind == ioFlush || size == 0 || q.kind == ioCompressed && len(l.bitmaps) > 0 {
		return request{kind: ioFlush}
	}
	q.off, q.n = randomRange(r, l.cluster, size)
	q.src, q.fua, q.unmap = r.IntN(sourceCount), r.IntN(8) == 0, r.IntN(2) == 0
	if q.kind == ioWrite && r.IntN(3) == 0 {
		q.src = -1 - r.IntN(255)
	}
	if q.kind == ioCompressed {
		q.off = q.off / l.cluster * l.cluster
		q.n, q.fua = min(l.cluster, size-q.off), false
		if l.cluster > sourceSize { // what only repeats from afar is compressed by one and not by the other
			q.src %= sourceCount / 2
		}
	}
	return q
}

// randomRange prefers the edges of sectors and clusters, and a few clusters to many.
func randomRange(r *rand.Rand, cluster, size int64) (off, n int64) {
	unit := [...]int64{1, 512, 4096, cluster, cluster}[r.IntN(5)]
	off = r.Int64N(size) / unit * unit
	n = 1 + r.Int64N(min(cluster*(1+r.Int64N(8)), 512<<10))
	if r.IntN(8) == 0 {
		n = 1 + r.Int64N(size)
	}
	n = (n + unit - 1) / unit * unit
	return off, min(n, size-off)
}

func resolveSnapshotCreate(m *model, r *rand.Rand) (task, bool) {
	l := m.top()
	if len(l.snaps) >= 4 {
		return task{}, false
	}
	if m.twins && l.refcount == 1 && l.given {
		return task{}, false // refused if there is an L2 table
	}
	m.named++
	s := snap{fmt.Sprintf("s%d", m.named), append([]byte(nil), l.bytes...), l.known}
	return m.onTop(func() { l.snaps = append(l.snaps, s) }, "snapshot", "-c", s.name)
}

func resolveSnapshotApply(m *model, r *rand.Rand) (task, bool) {
	l := m.top()
	if len(l.snaps) == 0 {
		return task{}, false
	}
	s := l.snaps[r.IntN(len(l.snaps))]
	if !s.known {
		return task{}, false
	}
	return m.onTop(func() { l.bytes = append([]byte(nil), s.bytes...) }, "snapshot", "-a", s.name)
}

func resolveSnapshotDelete(m *model, r *rand.Rand) (task, bool) {
	l := m.top()
	if len(l.snaps) == 0 {
		return task{}, false
	}
	i := r.IntN(len(l.snaps))
	return m.onTop(func() { l.snaps = append(l.snaps[:i:i], l.snaps[i+1:]...) }, "snapshot", "-d", l.snaps[i].name)
}

func resolveResize(m *model, r *rand.Rand) (task, bool) {
	l := m.top()
	size := 512 * (1 + r.Int64N(min(int64(len(l.bytes))*2, 4<<20)/512+1))
	if n := int64(len(l.bytes)); size < n { // QEMU 7.2 keeps what a last part of a cluster held, and growing shows it again
		size = min(n, (size+l.cluster-1)/l.cluster*l.cluster)
	}
	args := []string{"resize", "-f", "qcow2", "--shrink"}
	if size > int64(len(l.bytes)) && !l.growable() && m.twins {
		return task{}, false
	}
	if size > int64(len(l.bytes)) && int64(len(l.bytes))%l.cluster != 0 && l.rebased {
		return task{}, false // QEMU 7.2 shows what it copied from a larger backing image
	}
	// QEMU 7.2 preallocates over the compressed cluster that an image with extended L2 entries ends in, and by
	// metadata alone it shows what freed clusters held.
	if p := r.IntN(6); size > int64(len(l.bytes)) && p < 2 && !l.extended {
		args = append(args, "--preallocation="+[]string{"falloc", "full"}[p])
	}
	t, ok := m.onTop(func() { l.resize(size) }, args...)
	t.args = append(t.args, fmt.Sprint(size))
	return t, ok
}

func resolveCommit(m *model, r *rand.Rand) (task, bool) {
	l := m.top()
	if l.backing < 0 || m.twins && len(l.bitmaps) > 0 {
		return task{}, false
	}
	to, args := l.backing, []string{"commit", "-f", "qcow2"}
	if r.IntN(3) == 0 {
		for to > 0 && r.IntN(2) == 0 {
			to = m.layers[to].backing
		}
		args = append(args, "-b", "@/"+m.layers[to].name)
	} else if r.IntN(3) == 0 {
		args = append(args, "-d")
	}
	if b := m.layers[to]; m.twins && len(l.bytes) > len(b.bytes) && !b.growable() {
		return task{}, false
	}
	t, ok := m.onTop(func() { m.commit(to); l.given = true }, args...)
	t.touched = append(t.touched, to)
	return t, ok
}

// commit is what becomes of the layers when the top is committed to one of them.
func (m *model) commit(to int) {
	l, b := m.top(), m.layers[to]
	for i, between := range m.layers[:m.topIndex()] {
		if i > to {
			between.known = false
		}
	}
	if len(b.bytes) < len(l.bytes) {
		b.resize(int64(len(l.bytes)))
	}
	copy(b.bytes, l.bytes)
	b.known = b.known || len(b.bytes) == len(l.bytes)
	l.backingChanged()
}

func resolveRebase(m *model, r *rand.Rand) (task, bool) {
	l, to := m.top(), r.IntN(len(m.layers))-1
	if m.twins && len(l.bitmaps) > 0 {
		return task{}, false // each copies as much around a difference as it likes, and that is dirty
	}
	args := []string{"rebase", "-f", "qcow2"}
	if to < 0 {
		args = append(args, "-b", "")
	} else {
		args = append(args, "-b", "@/"+m.layers[to].name, "-F", m.layers[to].format())
	}
	if to >= 0 && to == l.backing && r.IntN(2) == 0 {
		args = append(args, "-u")
	}
	return m.onTop(func() { l.backing, l.rebased = to, true; l.backingChanged() }, args...)
}

func resolveBitmap(m *model, r *rand.Rand) (task, bool) {
	l, name := m.top(), fmt.Sprintf("b%d", r.IntN(3))
	has := false
	for _, b := range l.bitmaps {
		has = has || b == name
	}
	args := []string{"bitmap"}
	do := func() {}
	switch n := r.IntN(6); {
	case !has:
		args = append(args, "--add", "-g", fmt.Sprint(512<<r.IntN(8)))
		do = func() { l.bitmaps = append(l.bitmaps, name) }
	case n == 0:
		args = append(args, "--remove")
		do = func() { l.drop(name) }
	case n == 5 && len(l.bitmaps) > 1:
		args = append(args, "--merge", l.bitmaps[r.IntN(len(l.bitmaps))])
	default:
		args = append(args, [...]string{"--clear", "--enable", "--disable"}[n%3])
	}
	t, ok := m.onTop(do, append(args, "-f", "qcow2")...)
	t.args = append(t.args, name)
	return t, ok
}

func (l *layer) drop(bitmap string) {
	var kept []string
	for _, b := range l.bitmaps {
		if b != bitmap {
			kept = append(kept, b)
		}
	}
	l.bitmaps = kept
}

func resolveAmend(m *model, r *rand.Rand) (task, bool) {
	l := m.top()
	n := r.IntN(4)
	if n == 2 && len(l.bitmaps) > 0 {
		n = 3 // QEMU 7.2 makes a version 2 image with bitmaps that it then calls inconsistent
	}
	switch n {
	case 0:
		on := r.IntN(2) == 0
		return m.onTop(func() { l.lazy = on }, "amend", "-f", "qcow2", "-o", "lazy_refcounts="+onOff(on))
	case 1:
		bits := 1 << r.IntN(7)
		return m.onTop(func() { l.refcount = bits }, "amend", "-f", "qcow2", "-o", fmt.Sprintf("refcount_bits=%d", bits))
	case 2:
		return m.onTop(func() { l.v2 = true }, "amend", "-f", "qcow2", "-o", "compat=0.10")
	}
	return m.onTop(func() { l.v2 = false }, "amend", "-f", "qcow2", "-o", "compat=1.1")
}

func resolveRepair(m *model, r *rand.Rand) (task, bool) {
	if m.top().fragile() {
		return task{}, false
	}
	return m.onTop(func() {}, "check", "-f", "qcow2", "-r", [...]string{"leaks", "all"}[r.IntN(2)])
}

// resolveConvert copies the top to a new image, which takes its place.
func resolveConvert(m *model, r *rand.Rand) (task, bool) {
	l := m.top()
	if l.data != noDataFile || len(l.bytes) == 0 {
		return task{}, false
	}
	n := layout{cluster: 512 << r.IntN(13), refcount: 16, zstd: r.IntN(2) == 0, prealloc: "off"}
	m.named++
	name := fmt.Sprintf("top%d.qcow2", m.named)
	args := []string{"convert", "-f", "qcow2", "-O", "qcow2"}
	if r.IntN(2) == 0 {
		args = append(args, "-c")
	}
	o := fmt.Sprintf("cluster_size=%d", n.cluster)
	if n.zstd {
		o += ",compression_type=zstd"
	}
	args = append(args, "-o", o, "@/"+l.name, "@/"+name)
	return task{args: args, touched: []int{m.topIndex()}, done: func() {
		m.layers[m.topIndex()] = &layer{layout: n, name: name, bytes: l.bytes, known: l.known, backing: -1}
	}}, true
}
