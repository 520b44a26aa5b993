package qmp

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// differences says where a, of berth's, is not as b, of QEMU's: in members, the
// types of values and errors' classes, or also in values and texts.
func differences(a, b any, values bool) []string {
	c := comparison{values: values}
	c.compare("", a, b)
	slices.Sort(c.found)
	return slices.Compact(c.found)
}

type comparison struct {
	values bool
	found  []string
}

func (c *comparison) add(path, format string, args ...any) {
	if path == "" {
		path = "."
	}
	c.found = append(c.found, strings.TrimPrefix(path, ".")+": "+fmt.Sprintf(format, args...))
}

func (c *comparison) compare(path string, a, b any) {
	if ka, kb := kind(a), kind(b); ka != kb {
		c.add(path, "%s, QEMU has %s", ka, kb)
		return
	}
	switch a := a.(type) {
	case map[string]any:
		c.objects(path, a, b.(map[string]any))
	case []any:
		c.arrays(path, a, b.([]any))
	default:
		if (c.values || path == ".error.class") && a != b {
			c.add(path, "%s, QEMU has %s", encode(a), encode(b))
		}
	}
}

func (c *comparison) objects(path string, a, b map[string]any) {
	for _, k := range slices.Sorted(maps.Keys(a)) {
		at := path + "." + k
		if v, ok := b[k]; ok {
			c.compare(at, a[k], v)
		} else {
			c.add(at, "not in QEMU's")
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			c.add(path+"."+k, "not in berth's")
		}
	}
}

// arrays compares lists element by element. Where there are more of one than of
// the other, those that the shorter lacks are compared with its first.
func (c *comparison) arrays(path string, a, b []any) {
	at := path + "[]"
	if len(a) != len(b) {
		c.add(at, "%d elements, QEMU has %d", len(a), len(b))
	}
	if len(a) == 0 || len(b) == 0 {
		return
	}
	for i := range max(len(a), len(b)) {
		x, y := a[0], b[0]
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		c.compare(at, x, y)
	}
}

// kind is the type of a JSON value.
func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "number"
		}
		return "integer"
	case []any:
		return "array"
	}
	return "object"
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// eventDifferences says which events only one of the two has emitted.
func eventDifferences(ours, theirs map[string]bool) (found []string) {
	for e := range ours {
		if !theirs[e] {
			found = append(found, "event "+e+": not of QEMU's")
		}
	}
	for e := range theirs {
		if !ours[e] {
			found = append(found, "event "+e+": not of berth's")
		}
	}
	return found
}
