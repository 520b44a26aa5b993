package spec

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"berth/internal/suggest"
)

// The fields of Machine describe themselves, to flags and machine files alike:
//
//	json:"hostNodes"        the key in a machine file; a flag's key is host-nodes
//	words:"bind preferred"  the values it may have
//	path:"yes"              a file's name: relative to the machine file in one
//	min:"1"                 the least that a number may be
//	implied:"yes"           the key of a flag's first part that has no "="
//	short:"iops"            another key of the same in a flag
//
// A struct within a struct that is a flag's value has its keys behind its own:
// throttling.iops-total.

// Key is one key of a flag's value, for people and completion.
type Key struct {
	Name    string
	Words   []string // what the value may be, where that is a short list
	Path    bool     // the value is a file's name
	Implied bool     // the first part may be the value alone
}

// Keys returns the keys of a flag whose value becomes v, a struct such as Disk{}.
func Keys(v any) []Key {
	var keys []Key
	for _, f := range flagFieldsOf(reflect.TypeOf(v)) {
		k := Key{Name: f.flag, Words: f.words, Path: f.path, Implied: f.implied}
		if f.kind == reflect.Bool {
			k.Words = []string{"on", "off"}
		}
		keys = append(keys, k)
	}
	return keys
}

// Words returns the values that a field of Machine may have, by its keys in a
// machine file: "accel", "boot.decompress"; none of a field that is not there.
func Words(path string) []string {
	t := reflect.TypeFor[Machine]()
	for more := true; more; {
		var name string
		name, path, more = strings.Cut(path, ".")
		f := byName(fieldsOf(t), name)
		if f == nil {
			return nil
		}
		if !more {
			return f.words
		}
		t = t.FieldByIndex(f.index).Type
	}
	return nil
}

// field is one field of a struct as its tags describe it.
type field struct {
	index   []int  // for reflect's FieldByIndex
	name    string // in a machine file
	flag    string // in a flag's value
	short   string // the same, or ""
	kind    reflect.Kind
	words   []string
	path    bool
	implied bool
	min     int
}

func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Anonymous { // its fields are as good as t's own, as in JSON
			for _, in := range fieldsOf(sf.Type) {
				in.index = append([]int{i}, in.index...)
				fields = append(fields, in)
			}
			continue
		}
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		least, _ := strconv.Atoi(sf.Tag.Get("min"))
		fields = append(fields, field{
			index: []int{i}, name: name, flag: kebab(name), short: sf.Tag.Get("short"), kind: sf.Type.Kind(), words: strings.Fields(sf.Tag.Get("words")),
			path: sf.Tag.Get("path") != "", implied: sf.Tag.Get("implied") != "", min: least,
		})
	}
	return fields
}

// flagFieldsOf is fieldsOf with the fields of structs in the place of those.
func flagFieldsOf(t reflect.Type) []field {
	var fields []field
	for _, f := range fieldsOf(t) {
		ft := t.FieldByIndex(f.index).Type
		if f.kind != reflect.Struct || hasText(ft) {
			fields = append(fields, f)
			continue
		}
		for _, in := range fieldsOf(ft) {
			in.index, in.flag = append(slices.Clone(f.index), in.index...), f.flag+"."+in.flag
			fields = append(fields, in)
		}
	}
	return fields
}

// hasText reports whether values of t are read from text as a whole.
func hasText(t reflect.Type) bool {
	switch reflect.New(t).Interface().(type) {
	case interface{ Set(string) error }, encoding.TextUnmarshaler:
		return true
	}
	return false
}

// kebab turns hostNodes into host-nodes.
func kebab(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// setKeys reads a flag's value, key=value parts with commas between them (a
// comma inside a value doubled), into the struct that into points at; keys that
// are not given keep their values.
func setKeys(s string, into any) error {
	v := reflect.ValueOf(into).Elem()
	fields := flagFieldsOf(v.Type())
	seen := map[string]bool{}
	for i, part := range splitParts(s) {
		key, value, given := strings.Cut(part, "=")
		f := byFlag(fields, key)
		if !given && i == 0 {
			if first := impliedField(fields); first != nil && (f == nil || f.kind != reflect.Bool) {
				f, key, value, given = first, first.flag, part, true
			}
		}
		if f == nil {
			return unknownKey(part, key, given, fields)
		}
		if seen[f.flag] && f.kind != reflect.Slice {
			return fmt.Errorf("%s is given twice", key)
		}
		if err := f.setFlag(v.FieldByIndex(f.index), value, given, !seen[f.flag]); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		seen[f.flag] = true
	}
	return nil
}

// setFlag reads value as a flag has it. A list is begun anew at its first part
// and grows with each further one.
func (f *field) setFlag(v reflect.Value, value string, given, first bool) error {
	switch {
	case f.kind == reflect.Bool && !given:
		v.SetBool(true)
		return nil
	case !given:
		return fmt.Errorf("no value: write %s=VALUE", f.flag)
	case first:
		return f.set(v, value)
	}
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	err := f.set(v, value)
	v.Set(reflect.AppendSlice(old, v))
	return err
}

// set reads value into v and holds it against the words the field may have.
func (f *field) set(v reflect.Value, value string) error {
	if len(f.words) > 0 {
		if err := oneOf(value, f.words); err != nil {
			return err
		}
	}
	if err := setText(v, value); err != nil {
		return err
	}
	if f.kind == reflect.Int && v.Int() < int64(f.min) {
		return fmt.Errorf("%d: at least %d is needed", v.Int(), f.min)
	}
	return nil
}

// setText reads a value of a simple kind, or of a type with a text form.
func setText(v reflect.Value, value string) error {
	switch t := v.Addr().Interface().(type) {
	case interface{ Set(string) error }:
		return t.Set(value)
	case encoding.TextUnmarshaler:
		return t.UnmarshalText([]byte(value))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(value)
	case reflect.Bool:
		on, err := ParseBool(value)
		v.SetBool(on)
		return err
	case reflect.Int64:
		n, err := parseAmount(value)
		v.SetInt(n)
		return err
	case reflect.Int:
		n, err := strconv.Atoi(value)
		v.SetInt(int64(n))
		if err != nil {
			return fmt.Errorf("%q is not a number", value)
		}
	default:
		return fmt.Errorf("%q: its keys are needed here, each on a line of its own", value)
	}
	return nil
}

func byFlag(fields []field, key string) *field {
	for i := range fields {
		if fields[i].flag == key || fields[i].short == key && key != "" {
			return &fields[i]
		}
	}
	return nil
}

func impliedField(fields []field) *field {
	for i := range fields {
		if fields[i].implied {
			return &fields[i]
		}
	}
	return nil
}

func unknownKey(part, key string, given bool, fields []field) error {
	var names, all []string // all: with those that only suggestions have
	file := ""
	for _, f := range fields {
		all = append(all, f.flag)
		if outer, _, inner := strings.Cut(f.flag, "."); !inner {
			names = append(names, f.flag)
		} else if outer += ".…"; !slices.Contains(names, outer) {
			names = append(names, outer)
		}
		if f.path && file == "" {
			file = f.flag
		}
	}
	near := suggest.Closest(key, all)
	switch {
	case !given && near == "" && file != "":
		return fmt.Errorf("%q is not key=value: write %s=%s", part, file, part)
	case !given && near == "":
		return fmt.Errorf("%q is not key=value: the keys are %s", part, strings.Join(names, ", "))
	case near != "":
		return fmt.Errorf("unknown key %q: did you mean %q?", key, near)
	}
	return fmt.Errorf("unknown key %q: the keys are %s", key, strings.Join(names, ", "))
}

// oneOf refuses a value that is none of words.
func oneOf(value string, words []string) error {
	for _, w := range words {
		if value == w {
			return nil
		}
	}
	if near := suggest.Closest(value, words); near != "" && len(value) > 2 { // "4M" is no slip of the hand
		return fmt.Errorf("%q is not known: did you mean %q?", value, near)
	}
	return fmt.Errorf("%q is not known: use %s", value, strings.Join(words, ", "))
}

// splitParts splits at single commas; a doubled comma stands for one.
func splitParts(s string) []string {
	var parts []string
	var cur strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == ',' && i+1 < len(s) && s[i+1] == ',' {
			i++
		} else if s[i] == ',' {
			parts = append(parts, cur.String())
			cur.Reset()
			continue
		}
		cur.WriteByte(s[i])
	}
	return append(parts, cur.String())
}

// ParseBool reads on or off in QEMU's spellings.
func ParseBool(s string) (bool, error) {
	switch s {
	case "on", "true", "yes":
		return true, nil
	case "off", "false", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is not on or off", s)
}
