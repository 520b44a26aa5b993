package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// host is what the checks look at. Names of files are as in package fs: no leading slash.
type host struct {
	root        fs.FS
	usable      func(name string) error
	randomReady func() bool
	cpu         cpu
}

func newHost(o Options) *host {
	h := &host{root: o.Root, usable: o.Usable, randomReady: o.RandomReady}
	if h.root == nil {
		h.root = os.DirFS("/")
	}
	if h.usable == nil {
		h.usable = func(name string) error { return unix.Access("/"+name, unix.R_OK|unix.W_OK) }
	}
	if h.randomReady == nil {
		h.randomReady = func() bool {
			_, err := unix.Getrandom(make([]byte, 1), unix.GRND_NONBLOCK)
			return !errors.Is(err, unix.EAGAIN)
		}
	}
	h.cpu = readCPU(h)
	return h
}

// text is a file's content without the space around it.
func (h *host) text(name string) (string, error) {
	b, err := fs.ReadFile(h.root, name)
	return strings.TrimSpace(string(b)), err
}

// number is a file's content as a number.
func (h *host) number(name string) (uint64, error) {
	s, err := h.text(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/%s holds %q, not a number", name, s)
	}
	return n, nil
}

// exists is also true of what this user may not look at.
func (h *host) exists(name string) bool {
	_, err := fs.Stat(h.root, name)
	return err == nil || !errors.Is(err, fs.ErrNotExist)
}

// names are a directory's entries; none if there is no such directory.
func (h *host) names(dir string) []string {
	entries, _ := fs.ReadDir(h.root, dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// module is a parameter of a loaded kernel module; "" if it is not there.
func (h *host) module(name, parameter string) string {
	s, _ := h.text(path.Join("sys/module", name, "parameters", parameter))
	return s
}

// kvmModule is the loaded half of KVM that is the processor's, "" if there is none.
func (h *host) kvmModule() string {
	for _, m := range []string{"kvm_intel", "kvm_amd"} {
		if h.exists("sys/module/" + m) {
			return m
		}
	}
	return ""
}

// bootParameter reports whether the kernel's command line has one of the words.
func (h *host) bootParameter(words ...string) bool {
	line, _ := h.text("proc/cmdline")
	for _, f := range strings.Fields(line) {
		if slices.Contains(words, f) {
			return true
		}
	}
	return false
}

// meminfo is the values of /proc/meminfo in KiB.
func (h *host) meminfo() (map[string]uint64, error) {
	s, err := h.text("proc/meminfo")
	return keyed(s), err
}

// keyed reads lines "Key: value kB".
func keyed(s string) map[string]uint64 {
	m := map[string]uint64{}
	for l := range strings.Lines(s) {
		key, rest, _ := strings.Cut(l, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			m[strings.TrimSpace(key)], _ = strconv.ParseUint(f[0], 10, 64)
		}
	}
	return m
}

// blind makes c say why it could not be checked. That /proc or /sys is missing
// altogether is the usual reason in a container.
func (h *host) blind(c Check, err error) Check {
	c.Status, c.Meaning, c.Remedy = Warn, "", ""
	var at *fs.PathError
	if !errors.As(err, &at) {
		c.Finding = notChecked + err.Error()
		return c
	}
	tree, _, _ := strings.Cut(at.Path, "/")
	if errors.Is(err, fs.ErrNotExist) && len(h.names(tree)) == 0 {
		c.Finding = notChecked + "/" + tree + " is not mounted here"
		return c
	}
	c.Finding = fmt.Sprintf("%s/%s: %v", notChecked, at.Path, at.Err)
	if errors.Is(err, fs.ErrPermission) {
		c.Remedy = "run berth doctor as root"
	}
	return c
}

// blindTo is blind for checks of what may lawfully be absent: it says why the
// whole tree (proc, sys) cannot be looked at, if that is so.
func (h *host) blindTo(c Check, tree string) (Check, bool) {
	entries, err := fs.ReadDir(h.root, tree)
	if err == nil && len(entries) > 0 {
		return c, false
	}
	if err == nil {
		err = &fs.PathError{Op: "open", Path: tree, Err: fs.ErrNotExist}
	}
	return h.blind(c, err), true
}

// yes is how the kernel writes a parameter that is on.
func yes(parameter string) bool { return parameter == "Y" || parameter == "1" }

// chosen is the word in brackets of a file that lists its choices: "always [madvise] never".
func chosen(s string) string {
	_, s, _ = strings.Cut(s, "[")
	s, _, _ = strings.Cut(s, "]")
	return s
}

// gib writes KiB in a unit that people read.
func gib(kib uint64) string {
	if kib < 1<<10 {
		return fmt.Sprintf("%d KiB", kib)
	}
	if kib < 1<<20 {
		return fmt.Sprintf("%d MiB", kib>>10)
	}
	return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
}
