package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"berth/internal/suggest"
)

// maxFile bounds a machine file, in bytes.
const maxFile = 1 << 20

// ReadFile reads the machine file at path, YAML or JSON, over what m holds. A
// file's name in it is relative to its own folder. Errors name file and line.
func (m *Machine) ReadFile(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("machine file %s: %w", path, errors.Unwrap(err))
	case !st.Mode().IsRegular():
		return fmt.Errorf("machine file %s: is not a regular file", path)
	case st.Size() > maxFile:
		return fmt.Errorf("machine file %s: larger than %s: not a machine file", path, FormatSize(maxFile))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("machine file %s: %w", path, errors.Unwrap(err))
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("machine file %s: %w", path, err)
	}
	return m.decode(path, dir, b)
}

// decode reads a machine file's text. JSON is read as the YAML that it is.
func (m *Machine) decode(path, dir string, b []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return syntaxError(path, err)
	}
	if len(doc.Content) == 0 {
		return fmt.Errorf("machine file %s: is empty", path)
	}
	d := decoder{path: path, dir: dir}
	return d.mapping(doc.Content[0], reflect.ValueOf(m).Elem(), "the machine")
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxError puts the parser's complaint into the form of our own.
func syntaxError(path string, err error) error {
	text := err.Error()
	at := yamlLine.FindStringSubmatch(text)
	if at == nil {
		return fmt.Errorf("machine file %s: %w", path, err)
	}
	if at[1] != "" {
		path += ":" + at[1]
	}
	return fmt.Errorf("machine file %s: %s", path, text[len(at[0]):])
}

// decoder reads nodes of a machine file into fields of Machine.
type decoder struct{ path, dir string }

func (d *decoder) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("machine file %s:%d: %w", d.path, n.Line, fmt.Errorf(format, args...))
}

// mapping reads a node of keys into the struct v; what names it in errors.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, what string) error {
	if n.Kind != yaml.MappingNode {
		return d.errorf(n, "%s: its keys are expected here", what)
	}
	fields := fieldsOf(v.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		f := byName(fields, key.Value)
		if f == nil {
			return d.unknown(key, what, fields)
		}
		if line := seen[f.name]; line != 0 {
			return d.errorf(key, "%s is given on line %d already", f.name, line)
		}
		seen[f.name] = key.Line
		if err := d.value(value, v.FieldByIndex(f.index), f); err != nil {
			return err
		}
	}
	return nil
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// value reads a node into the field v, which f describes.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f *field) error {
	switch {
	case v.Type() == reflect.TypeFor[Chars]() && n.Kind != yaml.SequenceNode: // the only one
		only := reflect.MakeSlice(v.Type(), 1, 1)
		v.Set(only)
		return d.value(n, only.Index(0), f)
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && (n.Value != "null" || !takesNull(v, f)):
		return d.errorf(n, "%s has no value", f.name)
	case n.Kind == yaml.ScalarNode:
		if err := f.set(v, n.Value); err != nil {
			return d.errorf(n, "%s: %w", f.name, err)
		}
		d.relative(v, f)
		if v.Kind() == reflect.Struct { // in its flag's form
			for _, part := range fieldsOf(v.Type()) {
				d.relative(v.FieldByIndex(part.index), &part)
			}
		}
		return nil
	case v.Kind() == reflect.Struct:
		return d.mapping(n, v, f.name)
	case v.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		return d.sequence(n, v, f)
	}
	return d.errorf(n, "%s: one value is expected here", f.name)
}

// takesNull reports whether null is one of the field's words, which YAML takes
// for the lack of one.
func takesNull(v reflect.Value, f *field) bool {
	if v.Kind() == reflect.Struct {
		if first := impliedField(fieldsOf(v.Type())); first != nil {
			f = first
		}
	}
	return slices.Contains(f.words, "null")
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, f *field) error {
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		elem := *f
		elem.name, elem.kind = fmt.Sprintf("%s[%d]", f.name, i), list.Index(i).Kind()
		if err := d.value(resolve(c), list.Index(i), &elem); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

// relative takes names of files to be relative to the machine file's folder.
func (d *decoder) relative(v reflect.Value, f *field) {
	if !f.path {
		return
	}
	join := func(s reflect.Value) {
		if p := s.String(); p != "" && !filepath.IsAbs(p) {
			s.SetString(filepath.Join(d.dir, p))
		}
	}
	if v.Kind() == reflect.String {
		join(v)
		return
	}
	for i := range v.Len() {
		join(v.Index(i))
	}
}

func byName(fields []field, name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func (d *decoder) unknown(key *yaml.Node, what string, fields []field) error {
	var names []string
	for _, f := range fields {
		if f.flag == key.Value {
			return d.errorf(key, "unknown key %q: write it %q", key.Value, f.name)
		}
		names = append(names, f.name)
	}
	if near := suggest.Closest(key.Value, names); near != "" {
		return d.errorf(key, "unknown key %q: did you mean %q?", key.Value, near)
	}
	return d.errorf(key, "unknown key %q: the keys of %s are %s", key.Value, what, strings.Join(names, ", "))
}

// JSON returns m as a machine file in JSON.
func (m *Machine) JSON() ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(m)
	return []byte(b.String()), err
}

// YAML returns m as a machine file in YAML, with the keys in JSON's order.
func (m *Machine) YAML() ([]byte, error) {
	b, err := m.JSON()
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	plain(&doc)
	var out strings.Builder
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, err
	}
	return []byte(out.String()), e.Close()
}

// plain drops JSON's quotes and braces; the encoder puts back the quotes that are needed.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}
