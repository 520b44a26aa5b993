package formats

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"berth/block"
)

// within takes the options of the child called name out of v: those that begin
// with "name.".
func within(v map[string]string, name string) map[string]string {
	child := map[string]string{}
	for k, x := range v {
		if rest, ok := strings.CutPrefix(k, name+"."); ok {
			child[rest] = x
			delete(v, k)
		}
	}
	return child
}

// pop takes an option out of v.
func pop(v map[string]string, name string) (string, bool) {
	x, ok := v[name]
	delete(v, name)
	return x, ok
}

// popBool takes a boolean out of v.
func popBool(v map[string]string, name string, otherwise bool) (bool, error) {
	x, ok := pop(v, name)
	if !ok {
		return otherwise, nil
	}
	text, err := canonical(block.Option{Name: name, Type: block.OptBool}, x)
	return text == "on", err
}

// runtime lists the options that images of a format are opened with.
func runtime(format string) []block.Option {
	switch format {
	case "raw":
		return []block.Option{{Name: "offset", Type: block.OptSize}, {Name: "size", Type: block.OptSize}}
	case "qcow2":
		return []block.Option{
			{Name: "lazy-refcounts", Type: block.OptBool},
			{Name: "pass-discard-request", Type: block.OptBool},
			{Name: "pass-discard-snapshot", Type: block.OptBool},
			{Name: "pass-discard-other", Type: block.OptBool},
			{Name: "overlap-check"},
			{Name: "overlap-check.template"},
			{Name: "overlap-check.main-header", Type: block.OptBool},
			{Name: "overlap-check.active-l1", Type: block.OptBool},
			{Name: "overlap-check.active-l2", Type: block.OptBool},
			{Name: "overlap-check.refcount-table", Type: block.OptBool},
			{Name: "overlap-check.refcount-block", Type: block.OptBool},
			{Name: "overlap-check.snapshot-table", Type: block.OptBool},
			{Name: "overlap-check.inactive-l1", Type: block.OptBool},
			{Name: "overlap-check.inactive-l2", Type: block.OptBool},
			{Name: "overlap-check.bitmap-directory", Type: block.OptBool},
			{Name: "cache-size", Type: block.OptSize},
			{Name: "l2-cache-size", Type: block.OptSize},
			{Name: "l2-cache-entry-size", Type: block.OptSize},
			{Name: "refcount-cache-size", Type: block.OptSize},
			{Name: "cache-clean-interval", Type: block.OptNumber},
		}
	case "vpc":
		return []block.Option{{Name: "force_size_calc"}}
	}
	return nil
}

// formatValues takes the format's own options out of v, in canonical form.
func formatValues(format string, v map[string]string) (block.Values, error) {
	values := block.Values{}
	for _, o := range runtime(format) {
		x, ok := pop(v, o.Name)
		if !ok {
			continue
		}
		text, err := canonical(o, x)
		if err != nil {
			return nil, err
		}
		values[o.Name] = text
	}
	return values, nil
}

// unused refuses what nobody has taken out of v.
func unused(v map[string]string, kind, name, verb string) error {
	if len(v) == 0 {
		return nil
	}
	first := slices.Sorted(maps.Keys(v))[0]
	return fmt.Errorf("Block %s '%s' %s support the option '%s'", kind, name, verb, first)
}

// canonical checks a value against the option's type and returns its one form.
func canonical(o block.Option, value string) (string, error) {
	switch o.Type {
	case block.OptBool:
		switch value {
		case "on", "yes", "true", "y":
			return "on", nil
		case "off", "no", "false", "n":
			return "off", nil
		}
		return "", fmt.Errorf("Parameter '%s' expects 'on' or 'off'", o.Name)
	case block.OptNumber:
		n, err := strconv.ParseUint(value, 0, 63)
		if err != nil {
			return "", fmt.Errorf("Parameter '%s' expects a number", o.Name)
		}
		return strconv.FormatUint(n, 10), nil
	case block.OptSize:
		n, ok := parseSize(value)
		if !ok {
			return "", &hinted{
				text: fmt.Sprintf("Parameter '%s' expects a non-negative number below 2^64", o.Name),
				hint: "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.\n",
			}
		}
		return strconv.FormatUint(n, 10), nil
	}
	return value, nil
}

// parseSize reads a size in bytes: digits and a suffix, a power of 1024.
func parseSize(s string) (uint64, bool) {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("BKMGTPE", s[len(s)-1]&^0x20); i >= 0 && !strings.HasPrefix(s, "0x") {
			shift, s = 10*i, s[:len(s)-1]
		}
	}
	base := 10
	if strings.HasPrefix(s, "0x") {
		base, s = 16, s[2:]
	}
	n, err := strconv.ParseUint(s, base, 64)
	if err != nil || n<<shift>>shift != n {
		return 0, false
	}
	return n << shift, true
}
