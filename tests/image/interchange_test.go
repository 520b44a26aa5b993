package image

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

var (
	runs  = flag.Uint64("image.runs", 300, "how many random sequences to run")
	first = flag.Uint64("image.first", 1, "seed of the first sequence")
	keep  = flag.Bool("image.keep", false, "keep the images under /dev/shm")
	only  = flag.String("image.without", "", "kinds of steps, by number, that are left out, separated by commas")
	alone = flag.Bool("image.self", false, "QEMU alone, against the model: proves the test itself")
)

// TestInterchange runs random sequences of operations. Most are done twice, by berth and by
// QEMU, and what comes of them is compared after every step; the others are done to one image by both in turns.
func TestInterchange(t *testing.T) {
	for _, tool := range []string{"qemu-img", "qemu-io", "qemu-nbd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool + ": install the package qemu-utils")
		}
	}
	var steps atomic.Int64
	t.Run("sequences", func(t *testing.T) {
		workers := uint64(2)
		for w := range workers {
			t.Run(fmt.Sprint(w), func(t *testing.T) {
				t.Parallel()
				for seed := *first + w; seed < *first+*runs; seed += workers {
					steps.Add(oneSeed(t, seed))
					if seed%500 == 0 {
						t.Logf("seed %d is done", seed)
					}
				}
			})
		}
	})
	t.Logf("%d sequences of %d steps", *runs, steps.Load())
}

func oneSeed(t *testing.T, seed uint64) int64 {
	s := newSequence(seed)
	done, err := s.run(t)
	if err == nil {
		return done
	}
	log := s.log
	if smaller, e := s.minimise(t); e != nil {
		err, log = e, smaller.log
	}
	t.Errorf("seed %d: %v\nafter\n%s\nagain: go test ./tests/image -count 1 -v -run TestInterchange -image.first=%d -image.runs=1",
		seed, err, strings.Join(log, "\n"), seed)
	return done
}

// sequence is a random run of steps. Without some of them it is still one.
type sequence struct {
	seed  uint64
	steps []step
	log   []string
}

func newSequence(seed uint64) *sequence {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &sequence{seed: seed}
	for range 2 + r.IntN(6) {
		s.steps = append(s.steps, randomStep(r))
	}
	return s
}

// minimise drops steps for as long as what is left still fails.
func (s *sequence) minimise(t *testing.T) (*sequence, error) {
	least := s
	var failure error
	for i := len(s.steps) - 1; i >= 0; i-- {
		try := &sequence{seed: s.seed, steps: slices.Delete(slices.Clone(least.steps), i, i+1)}
		if _, err := try.run(t); err != nil {
			least, failure = try, err
		}
	}
	return least, failure
}

// pair is the images of a running sequence: in one directory, or in two that must stay alike.
type pair struct {
	m       model
	r       *rand.Rand
	scratch string
	dirs    []string
	engines []engine // of each directory; of one directory, those that take turns
	qemu    qemu
	ours    *berth // nil: QEMU alone
	say     func(string)
}

func (s *sequence) run(t *testing.T) (int64, error) {
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = t.TempDir()
	}
	scratch, err := os.MkdirTemp(base, "berth-image")
	if err != nil {
		return 0, err
	}
	if !*keep {
		defer os.RemoveAll(scratch)
	}
	s.log = nil
	p := newPair(rand.New(rand.NewPCG(s.seed, 2)), scratch)
	p.say = func(l string) { s.log = append(s.log, l) }
	if err := errors.Join(writeSources(scratch), p.setup()); err != nil {
		return 0, err
	}
	done := int64(0)
	for _, st := range s.steps {
		task, ok := st.resolve(&p.m)
		if !ok || slices.Contains(strings.Split(*only, ","), fmt.Sprint(st.kind)) {
			continue
		}
		if err := p.perform(task); errors.Is(err, errKnown) {
			t.Logf("seed %d ends here: %v: %v", s.seed, task, err)
			return done, nil
		} else if err != nil {
			return done, err
		}
		done++
	}
	return done, p.finish()
}

func newPair(r *rand.Rand, scratch string) *pair {
	q := qemu{scratch}
	p := &pair{r: r, scratch: scratch, qemu: q}
	p.dirs = []string{filepath.Join(scratch, "ours"), filepath.Join(scratch, "theirs")}
	if *alone {
		p.engines = []engine{q, q}
		return p
	}
	p.ours = &berth{}
	p.engines = []engine{p.ours, q}
	if r.IntN(3) == 0 {
		p.dirs = []string{filepath.Join(scratch, "both")}
	}
	p.m.twins = len(p.dirs) == 2
	return p
}

// setup makes the backing chain and the top image.
func (p *pair) setup() error {
	for _, d := range p.dirs {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	chain := [...]int{0, 0, 0, 1, 1, 2}[p.r.IntN(6)]
	for i := range chain + 1 {
		l := &layer{layout: randomLayout(p.r, i > 0), name: fmt.Sprintf("base%d.qcow2", i), known: true, backing: i - 1}
		if i == 0 && chain > 0 && p.r.IntN(3) == 0 {
			l.layout, l.name = layout{raw: true, cluster: 512, size: l.size}, "base0.raw"
		}
		if i == chain {
			l.name = "top.qcow2"
		}
		if err := p.add(l); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) add(l *layer) error {
	var backing, format string
	below := l.backing
	if below >= 0 {
		b := p.m.layers[below]
		backing, format = "@/"+b.name, b.format()
		l.bytes = append([]byte(nil), b.bytes...)
	}
	l.resize(l.size)
	p.m.layers = append(p.m.layers, l)
	create := task{args: l.create("@/"+l.name, backing, format), touched: []int{p.m.topIndex()}, done: func() {}}
	if err := p.perform(create); err != nil {
		return err
	}
	t, ok := resolveIO(&p.m, p.r)
	if !ok {
		return nil
	}
	return p.perform(t)
}

// perform does a task in every directory, lets the model follow, and compares.
func (p *pair) perform(t task) error {
	turn := 0
	if len(p.dirs) == 1 {
		turn = p.r.IntN(len(p.engines))
		p.say(p.engines[turn].name() + ": " + t.String())
	} else {
		p.say(t.String())
	}
	outcomes, oks, err := p.everywhere(&t, turn)
	if err != nil {
		return err
	}
	if len(outcomes) == 2 && outcomes[0] != outcomes[1] {
		return fmt.Errorf("%s: %s\n%s: %s", p.engines[0].name(), outcomes[0], p.engines[1].name(), outcomes[1])
	}
	if strings.Contains(outcomes[0], "Failed to load snapshot") {
		return fmt.Errorf("%w: QEMU 7.2 has given the image the snapshot's size by then", errKnown)
	}
	if p.say("  " + outcomes[0]); t.args != nil && oks[0] {
		t.done()
	}
	for i, q := range t.requests {
		if oks[i] {
			p.m.top().apply(q)
		}
	}
	if slices.Contains(oks, false) {
		p.plug(t.touched)
	}
	return p.compare(t.touched)
}

// plug frees what a failed step has leaked, which is no more than either may do.
func (p *pair) plug(touched []int) {
	for _, i := range touched {
		l := p.m.layers[i]
		if l.raw {
			continue
		}
		if l.fragile() {
			l.leaky = true
			continue
		}
		for _, d := range p.dirs {
			p.qemu.img([]string{"check", "-q", "-r", "leaks", "-f", "qcow2", filepath.Join(d, l.name)})
		}
	}
}

// everywhere does a task in each directory. The task loses the compressed writes that were refused.
func (p *pair) everywhere(t *task, turn int) (outcomes []string, oks []bool, err error) {
	outcomes = make([]string, len(p.dirs))
	for i := len(p.dirs) - 1; i >= 0; i-- {
		e := p.engines[turn+i]
		if oks, outcomes[i], err = p.one(e, p.dirs[i], *t); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", e.name(), err)
		}
	}
	if t.args == nil {
		t.requests, oks = t.without(oks)
	}
	return outcomes, oks, nil
}

// without returns the requests but for the compressed writes that failed, and how they fared.
func (t task) without(oks []bool) (kept []request, fared []bool) {
	for i, q := range t.requests {
		if oks[i] || q.kind != ioCompressed {
			kept, fared = append(kept, q), append(fared, oks[i])
		}
	}
	return kept, fared
}

func (p *pair) one(e engine, dir string, t task) ([]bool, string, error) {
	if t.args == nil {
		l := p.m.top()
		ok, err := e.io(filepath.Join(dir, l.name), l.format(), p.scratch, t)
		return ok, fmt.Sprint(ok), err
	}
	args := make([]string, len(t.args))
	for i, a := range t.args {
		args[i] = strings.ReplaceAll(a, "@", dir)
	}
	code, out := e.img(args)
	if code < 0 || code > 100 {
		err := fmt.Errorf("crashed: exit status %d: %s", code, out)
		if e.name() == "qemu" && args[0] == "amend" && strings.HasPrefix(args[4], "refcount_bits=") {
			err = fmt.Errorf("%w: %w", errKnown, err) // QEMU 7.2 loses its way, or never ends
		}
		return nil, "", err
	}
	out = nodeName.ReplaceAllString(strings.ReplaceAll(out, dir, "@"), "#block")
	out = clusterAt.ReplaceAllString(out, "Cluster")
	return []bool{code == 0}, fmt.Sprintf("exit status %d: %s", code, layoutLine.ReplaceAllString(out, "")), nil
}

// errKnown is a known fault of QEMU 7.2, after which there is nothing left to compare.
var errKnown = errors.New("known")

// nodeName is what QEMU calls a node that nobody named.
var nodeName = regexp.MustCompile(`#block[0-9]+`)

// clusterAt is where the cluster lies whose refcount is too large to be amended.
var clusterAt = regexp.MustCompile(`Cluster at offset 0x[0-9a-f]+`)

// layoutLine is what check prints about where clusters lie.
var layoutLine = regexp.MustCompile(`(?m)^(Image end offset: .*|.* compressed clusters)\n`)

// compare judges what a step has touched: by both checks, both readers and both descriptions.
func (p *pair) compare(touched []int) error {
	slices.Sort(touched)
	for _, i := range slices.Compact(touched) {
		l := p.m.layers[i]
		for _, d := range p.dirs {
			if err := p.judge(l, filepath.Join(d, l.name), d == p.dirs[0]); err != nil {
				return fmt.Errorf("%s in %s: %w", l.name, filepath.Base(d), err)
			}
		}
		if err := p.alike(l); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// judge checks one image, and reads it by berth, or by QEMU too if it stands alone.
func (p *pair) judge(l *layer, path string, wary bool) error {
	if !l.raw && wary {
		if err := clean(l.leaky, p.qemu, path); err != nil {
			return fmt.Errorf("qemu-img check: %w", err)
		}
	}
	if p.ours == nil {
		return p.reads(p.qemu, l, path, "")
	}
	if !l.raw {
		if err := clean(l.leaky, p.ours, path); err != nil {
			return fmt.Errorf("berth's check: %w", err)
		}
	}
	if len(p.dirs) == 1 {
		if err := p.reads(p.qemu, l, path, ""); err != nil {
			return err
		}
	}
	return errors.Join(p.reads(p.ours, l, path, ""), p.snapshots(p.ours, l, path))
}

func (p *pair) reads(e engine, l *layer, path, snapshot string) error {
	want, known := l.bytes, l.known
	if i := l.find(snapshot); i >= 0 {
		want, known = l.snaps[i].bytes, l.snaps[i].known
	}
	if !known {
		return nil
	}
	got, err := e.read(path, l.format(), snapshot)
	if err != nil {
		return fmt.Errorf("%s reads: %w", e.name(), err)
	}
	if snapshot != "" { // as large as the image is now, not as it was then
		n := min(len(got), len(want))
		got, want = got[:n], want[:n]
	}
	if d := difference(got, want); d != "" {
		return fmt.Errorf("%s reads other contents (snapshot %q): %s", e.name(), snapshot, d)
	}
	return nil
}

func (p *pair) snapshots(e engine, l *layer, path string) error {
	for _, s := range l.snaps {
		if err := p.reads(e, l, path, s.name); err != nil {
			return err
		}
	}
	return nil
}

// clean fails if check finds anything, leaks excepted if there may be some.
func clean(leaky bool, e engine, path string) error {
	var r map[string]any
	code, out := e.img([]string{"check", "--output=json", "-f", "qcow2", path})
	i := strings.Index(out, "{\n")
	if i < 0 || code != 0 && (code != 3 || !leaky) {
		return fmt.Errorf("exit status %d: %s", code, out)
	}
	if err := json.Unmarshal([]byte(out[i:]), &r); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, k := range []string{"corruptions", "leaks", "check-errors"} {
		if n, ok := r[k]; ok && n != 0.0 && (k != "leaks" || !leaky) {
			return errors.New(out)
		}
	}
	return nil
}

// alike compares the twins with each other.
func (p *pair) alike(l *layer) error {
	if len(p.dirs) == 1 || p.ours == nil {
		return nil
	}
	a, b := filepath.Join(p.dirs[0], l.name), filepath.Join(p.dirs[1], l.name)
	if code, out := p.qemu.img([]string{"compare", "-f", l.format(), "-F", l.format(), a, b}); code != 0 && l.known {
		return fmt.Errorf("qemu-img compare: %s", out)
	}
	if l.raw {
		return nil
	}
	x, err := p.ours.bitmaps(a)
	y, e := p.ours.bitmaps(b)
	if err := errors.Join(err, e); err != nil {
		return err
	}
	if x != y {
		return fmt.Errorf("bitmaps are %s, QEMU's %s", x, y)
	}
	if p.r.IntN(3) > 0 {
		return nil
	}
	return p.described(a, b)
}

// described compares what each image is said to be, by berth and by QEMU.
func (p *pair) described(ours, theirs string) error {
	code, text := p.qemu.img([]string{"info", "--output=json", "-f", "qcow2", ours})
	c, own := p.ours.img([]string{"info", "--output=json", "-f", "qcow2", ours})
	if text != own || c != code {
		return fmt.Errorf("berth says (%d) %s, qemu-img (%d) %s", c, own, code, text)
	}
	_, other := p.qemu.img([]string{"info", "--output=json", "-f", "qcow2", theirs})
	a, err := essence(text, p.dirs[0])
	b, e := essence(other, p.dirs[1])
	if err := errors.Join(err, e); err != nil {
		return err
	}
	if !reflect.DeepEqual(a, b) {
		return fmt.Errorf("info of berth's image is %s, of QEMU's %s", text, other)
	}
	return nil
}

// essence is info without what two equal images may differ in: times and allocation.
func essence(text, dir string) (map[string]any, error) {
	var m map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(text, dir, "@")), &m); err != nil {
		return nil, fmt.Errorf("info: %w: %s", err, text)
	}
	delete(m, "actual-size")
	snaps, _ := m["snapshots"].([]any)
	for _, s := range snaps {
		maps.DeleteFunc(s.(map[string]any), func(k string, _ any) bool { return strings.HasPrefix(k, "date-") })
	}
	return m, nil
}

// finish has QEMU read what until here only berth had: snapshots and bitmaps.
func (p *pair) finish() error {
	l := p.m.top()
	path := filepath.Join(p.dirs[0], l.name)
	if err := p.snapshots(p.qemu, l, path); err != nil {
		return err
	}
	if p.ours == nil {
		return nil
	}
	for _, b := range l.bitmaps {
		own, err := p.ours.dirty(path, b)
		theirs, e := p.qemu.dirty(path, b)
		if err := errors.Join(err, e); err != nil {
			return err
		}
		if own != theirs {
			return fmt.Errorf("dirty in %s: berth says %s, QEMU %s", b, own, theirs)
		}
	}
	return nil
}
