package qmp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
)

// encoder writes Go values by their shapes, members in the order in which their
// types name them.
type encoder struct {
	out    bytes.Buffer
	shapes shapes
}

func (e *encoder) value(sh *shape, v reflect.Value) error {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch sh.kind {
	case kindArray:
		return e.array(sh, v)
	case kindObject:
		e.out.WriteByte('{')
		first := true
		if err := e.members(sh, v, &first); err != nil {
			return err
		}
		e.out.WriteByte('}')
		return nil
	case kindAlternate:
		for _, c := range sh.cases {
			if f := v.FieldByIndex(c.index); !f.IsNil() {
				return e.value(c.shape, f)
			}
		}
		return fmt.Errorf("qmp: %s is none of its alternatives", sh.typ)
	case kindNull:
		e.out.WriteString("null")
	case kindAny:
		return e.any(v)
	default:
		return e.plain(v)
	}
	return nil
}

// any writes a value of which its type says nothing: of the wire, or one that has
// a shape.
func (e *encoder) any(v reflect.Value) error {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if !v.IsValid() {
		e.out.WriteString("null")
		return nil
	}
	if v.Kind() == reflect.Map {
		return e.plain(v)
	}
	sh, err := e.shapes.of(v.Type())
	if err != nil {
		return err
	}
	return e.value(sh, v)
}

func (e *encoder) array(sh *shape, v reflect.Value) error {
	e.out.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			e.out.WriteString(", ")
		}
		if err := e.value(sh.elem, v.Index(i)); err != nil {
			return err
		}
	}
	e.out.WriteByte(']')
	return nil
}

func (e *encoder) members(sh *shape, v reflect.Value, first *bool) error {
	value := ""
	for _, m := range sh.members {
		f := v.FieldByIndex(m.index)
		if m.optional && f.IsZero() {
			continue
		}
		if m.name == sh.tag {
			value = f.String()
		}
		if !*first {
			e.out.WriteString(", ")
		}
		*first = false
		e.out.WriteString(strconv.Quote(m.name) + ": ")
		if err := e.value(m.shape, f); err != nil {
			return err
		}
	}
	if c := sh.variant(value); sh.tag != "" && c != nil {
		if f := v.FieldByIndex(c.index); !f.IsNil() {
			return e.members(c.shape, f.Elem(), first)
		}
	}
	return nil
}

// plain writes what encoding/json writes as QEMU does.
func (e *encoder) plain(v reflect.Value) error {
	enc := json.NewEncoder(&e.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v.Interface()); err != nil {
		return err
	}
	e.out.Truncate(e.out.Len() - 1) // its line end
	return nil
}
