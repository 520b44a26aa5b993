package qmp

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// entities are a schema's, by name.
type entities map[string]map[string]any

// TestSchema compares berth's commands and events with QEMU's: each is one of
// QEMU's, with arguments and answers of the same types. testdata/schema lists the
// differences: "NAME: DIFFERENCE | REASON".
func TestSchema(t *testing.T) {
	needQEMU(t)
	ours, theirs := startBoth(t, &session{}, buildBerth(t))
	a, b := schemaOf(t, ours), schemaOf(t, theirs)
	var found []string
	for name, e := range a {
		meta := e["meta-type"]
		if meta != "command" && meta != "event" {
			continue
		}
		q, ok := b[name]
		if !ok || q["meta-type"] != meta {
			found = append(found, fmt.Sprintf("%s: not in QEMU's", name))
			continue
		}
		c := typeComparison{ours: a, theirs: b, name: name, seen: map[[2]string]bool{}}
		c.compare("arguments", e["arg-type"].(string), q["arg-type"].(string))
		if meta == "command" {
			c.compare("return", e["ret-type"].(string), q["ret-type"].(string))
			if e["allow-oob"] != q["allow-oob"] {
				c.add("allow-oob", "%v, QEMU has %v", e["allow-oob"], q["allow-oob"])
			}
		}
		found = append(found, c.found...)
	}
	slices.Sort(found)
	judge(t, "testdata/schema", slices.Compact(found), readListed(t, "testdata/schema"))
	for _, p := range []*peer{ours, theirs} {
		sameCommands(t, p, schemaOf(t, p))
	}
}

// sameCommands checks that query-commands lists what the schema has.
func sameCommands(t *testing.T, p *peer, s entities) {
	t.Helper()
	m, err := p.command(`{"execute": "query-commands"}`)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for name, e := range s {
		if e["meta-type"] == "command" {
			left[name] = true
		}
	}
	for _, c := range m["return"].([]any) {
		name := c.(map[string]any)["name"].(string)
		if !left[name] {
			t.Errorf("%s: query-commands has %s, the schema has not", p.name, name)
		}
		delete(left, name)
	}
	if len(left) > 0 {
		t.Errorf("%s: query-commands lacks %v", p.name, left)
	}
}

func schemaOf(t *testing.T, p *peer) entities {
	t.Helper()
	m, err := p.command(`{"execute": "query-qmp-schema"}`)
	if err != nil {
		t.Fatal(err)
	}
	s := entities{}
	for _, e := range m["return"].([]any) {
		e := e.(map[string]any)
		s[e["name"].(string)] = e
	}
	return s
}

func readListed(t *testing.T, path string) (list []listed) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if text := strings.TrimSpace(in.Text()); text != "" && text[0] != '#' {
			l, err := parseListed(text)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			list = append(list, l)
		}
	}
	return list
}

// typeComparison compares the types of one command or event.
type typeComparison struct {
	ours, theirs entities
	name         string
	seen         map[[2]string]bool // pairs of types, which may name themselves
	found        []string
}

func (c *typeComparison) add(path, format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf("%s: %s: %s", c.name, path, fmt.Sprintf(format, args...)))
}

func (c *typeComparison) compare(path, a, b string) {
	if c.seen[[2]string{a, b}] {
		return
	}
	c.seen[[2]string{a, b}] = true
	x, y := c.ours[a], c.theirs[b]
	kind := x["meta-type"].(string)
	if kind != y["meta-type"] {
		c.add(path, "%s, QEMU has %s", describe(x), describe(y))
		return
	}
	switch kind {
	case "builtin":
		if a != b {
			c.add(path, "%s, QEMU has %s", a, b)
		}
	case "enum":
		c.sets(path, "value", stringsOf(x["values"]), stringsOf(y["values"]))
	case "array":
		c.compare(path+"[]", x["element-type"].(string), y["element-type"].(string))
	case "alternate":
		c.alternates(path, x, y)
	case "object":
		c.objects(path, x, y)
	}
}

func describe(e map[string]any) string {
	if e["meta-type"] == "builtin" {
		return e["name"].(string)
	}
	return e["meta-type"].(string)
}

func stringsOf(v any) (list []string) {
	for _, s := range v.([]any) {
		list = append(list, s.(string))
	}
	return list
}

// sets compares two lists whose order says nothing.
func (c *typeComparison) sets(path, what string, a, b []string) {
	for _, l := range []struct {
		has, lacks []string
		whose      string
	}{{a, b, "QEMU's"}, {b, a, "berth's"}} {
		var only []string
		for _, s := range l.has {
			if !slices.Contains(l.lacks, s) {
				only = append(only, s)
			}
		}
		if slices.Sort(only); len(only) > 0 {
			c.add(path, "%s not in %s: %s", what, l.whose, strings.Join(only, " "))
		}
	}
}

// alternates compares the alternatives of the same kind.
func (c *typeComparison) alternates(path string, x, y map[string]any) {
	kinds := func(s entities, e map[string]any) (names []string, types map[string]string) {
		types = map[string]string{}
		for _, m := range e["members"].([]any) {
			t := m.(map[string]any)["type"].(string)
			d := describe(s[t])
			names, types[d] = append(names, d), t
		}
		return names, types
	}
	a, ta := kinds(c.ours, x)
	b, tb := kinds(c.theirs, y)
	c.sets(path, "alternative", a, b)
	for _, k := range a {
		if tb[k] != "" {
			c.compare(path, ta[k], tb[k])
		}
	}
}

// field is a member of an object.
type field struct {
	typ      string
	optional bool
}

func fieldsOf(e map[string]any) (names []string, fields map[string]field) {
	fields = map[string]field{}
	for _, m := range e["members"].([]any) {
		m := m.(map[string]any)
		_, optional := m["default"]
		n := m["name"].(string)
		names, fields[n] = append(names, n), field{m["type"].(string), optional}
	}
	return names, fields
}

func (c *typeComparison) objects(path string, x, y map[string]any) {
	a, fa := fieldsOf(x)
	b, fb := fieldsOf(y)
	c.sets(path, "member", a, b)
	for _, n := range a {
		q, ok := fb[n]
		if !ok {
			continue
		}
		if at := path + "." + n; q.optional != fa[n].optional {
			c.add(at, "optional is %v, QEMU has %v", fa[n].optional, q.optional)
		}
		c.compare(path+"."+n, fa[n].typ, q.typ)
	}
	c.variants(path, x, y)
}

// variants compares cases. One that berth has not, whose value it has not or
// that adds no member, is no difference of its own.
func (c *typeComparison) variants(path string, x, y map[string]any) {
	cases := func(s entities, e map[string]any) map[string]string {
		types := map[string]string{}
		list, _ := e["variants"].([]any)
		for _, v := range list {
			v := v.(map[string]any)
			t := v["type"].(string)
			if o := s[t]; len(o["members"].([]any)) > 0 || o["variants"] != nil {
				types[v["case"].(string)] = t
			}
		}
		return types
	}
	a, b := cases(c.ours, x), cases(c.theirs, y)
	if len(a) > 0 && x["tag"] != y["tag"] {
		c.add(path, "tag %v, QEMU has %v", x["tag"], y["tag"])
		return
	}
	for _, k := range slices.Sorted(maps.Keys(a)) { // the first of those that are alike is the one that is told of
		t := a[k]
		if b[k] == "" {
			c.add(path, "case %s has members, QEMU's has none", k)
			continue
		}
		c.compare(path+"("+k+")", t, b[k])
	}
	if tag, ok := x["tag"].(string); ok {
		_, fields := fieldsOf(x)
		for _, v := range stringsOf(c.ours[fields[tag].typ]["values"]) {
			if b[v] != "" && a[v] == "" {
				c.add(path, "case %s has no members, QEMU's has", v)
			}
		}
	}
}
