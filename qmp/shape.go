package qmp

import (
	"fmt"
	"reflect"
	"strings"
)

// Values on the wire are Go values whose types say what QEMU's schema says:
//
//	struct                 object; an embedded struct's members are its own
//	pointer, omitempty     an optional member
//	string type with Values() []string    enum
//	field `qmp:"tag"`      the member that decides which of the fields
//	field `qmp:"case=X"`   (pointers to structs) has the further members
//	struct with an Alternate    one of its pointer fields, by the JSON type
//	any                    any value
//	field `qmp:"rest"`     map[string]any: members that have no name of their own
//
// Members are called what `json:"…"` says.

// Enum is a string of which only some values are valid.
type Enum interface{ Values() []string }

// Alternate marks a struct as one of several types of value. It is embedded.
type Alternate struct{}

// Null is an alternative that is JSON's null.
type Null struct{}

type kind uint8

const (
	kindString kind = iota
	kindInt
	kindNumber
	kindBool
	kindNull
	kindAny
	kindEnum
	kindArray
	kindObject
	kindAlternate
)

// shape is what a type looks like on the wire.
type shape struct {
	kind    kind
	typ     reflect.Type // without pointers
	values  []string     // of an enum
	elem    *shape       // of an array
	members []member     // of an object
	tag     string       // the member that decides between cases
	cases   []variant    // of an object by tag, of an alternate
	rest    []int        // field of an object
}

type member struct {
	name     string
	shape    *shape
	optional bool
	index    []int
}

// variant is a case of an object or an alternative of an alternate.
type variant struct {
	value string
	shape *shape
	index []int
}

// shapes makes each type's shape once.
type shapes map[reflect.Type]*shape

func (s shapes) of(t reflect.Type) (*shape, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if sh := s[t]; sh != nil {
		return sh, nil
	}
	sh := &shape{typ: t}
	s[t] = sh
	if err := s.fill(sh, t); err != nil {
		return nil, fmt.Errorf("qmp: %s: %w", t, err)
	}
	return sh, nil
}

func (s shapes) fill(sh *shape, t reflect.Type) (err error) {
	if e, ok := reflect.Zero(t).Interface().(Enum); ok && t.Kind() == reflect.String {
		sh.kind, sh.values = kindEnum, e.Values()
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		sh.kind = kindString
	case reflect.Bool:
		sh.kind = kindBool
	case reflect.Float64:
		sh.kind = kindNumber
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Int:
		sh.kind = kindInt
	case reflect.Interface:
		sh.kind = kindAny
	case reflect.Slice:
		sh.kind = kindArray
		sh.elem, err = s.of(t.Elem())
	case reflect.Struct:
		if t == reflect.TypeFor[Null]() {
			sh.kind = kindNull
			return nil
		}
		sh.kind = kindObject
		err = s.fields(sh, t, nil)
	default:
		err = fmt.Errorf("no value of the wire is a %s", t.Kind())
	}
	return err
}

// fields adds the fields of t, which lies at index of sh's own type.
func (s shapes) fields(sh *shape, t reflect.Type, index []int) error {
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(append([]int{}, index...), i)
		note, _ := f.Tag.Lookup("qmp")
		value, isCase := strings.CutPrefix(note, "case=")
		switch {
		case f.Type == reflect.TypeFor[Alternate]():
			sh.kind = kindAlternate
			continue
		case f.Anonymous:
			if err := s.fields(sh, f.Type, at); err != nil {
				return err
			}
			continue
		case note == "rest":
			sh.rest = at
			continue
		}
		fs, err := s.of(f.Type)
		if err != nil {
			return err
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case isCase, sh.kind == kindAlternate:
			sh.cases = append(sh.cases, variant{value, fs, at})
			continue
		case name == "" || name == "-":
			return fmt.Errorf("field %s has no name on the wire", f.Name)
		case note == "tag":
			sh.tag = name
		}
		sh.members = append(sh.members, member{name, fs, f.Type.Kind() == reflect.Pointer || strings.Contains(options, "omit"), at})
	}
	return nil
}

// variant returns the case of an object for the value of its tag, or nil.
func (sh *shape) variant(value string) *variant {
	for i := range sh.cases {
		if sh.cases[i].value == value {
			return &sh.cases[i]
		}
	}
	return nil
}
