package qmp

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// decoder fills Go values from the wire's, and complains as QEMU does.
type decoder struct {
	path []step
	// text has a string stand for a number or a boolean where one of these is wanted.
	text bool
}

// step is a name or, if that is empty, an index on the way to a value.
type step struct {
	name  string
	index int
}

// name is how errors call the value at hand.
func (d *decoder) name() string {
	s := ""
	for _, p := range d.path {
		switch {
		case p.name == "":
			s += "[" + strconv.Itoa(p.index) + "]"
		case s == "":
			s = p.name
		default:
			s += "." + p.name
		}
	}
	return s
}

// own is the name of the value at hand alone, "null" for an element.
func (d *decoder) own() string { return cmp.Or(d.path[len(d.path)-1].name, "null") }

func (d *decoder) wrongType(expected string) error {
	return fmt.Errorf("Invalid parameter type for '%s', expected: %s", d.name(), expected)
}

// within decodes v as the part of the value at hand that s leads to.
func (d *decoder) within(s step, sh *shape, to reflect.Value, v any) error {
	d.path = append(d.path, s)
	defer func() { d.path = d.path[:len(d.path)-1] }()
	return d.value(sh, to, v)
}

// target is what to points at in the end, made where it is nil.
func target(to reflect.Value) reflect.Value {
	for to.Kind() == reflect.Pointer {
		if to.IsNil() {
			to.Set(reflect.New(to.Type().Elem()))
		}
		to = to.Elem()
	}
	return to
}

func (d *decoder) value(sh *shape, to reflect.Value, v any) error {
	to = target(to)
	if s, ok := v.(string); ok && d.text {
		v = sh.fromText(s)
	}
	switch sh.kind {
	case kindAny:
		if v != nil {
			to.Set(reflect.ValueOf(v))
		}
	case kindNull:
		if v != nil {
			return d.wrongType("null")
		}
	case kindBool:
		b, ok := v.(bool)
		if !ok {
			return d.wrongType("boolean")
		}
		to.SetBool(b)
	case kindString, kindEnum:
		s, ok := v.(string)
		if !ok {
			return d.wrongType("string")
		}
		if sh.kind == kindEnum && !slices.Contains(sh.values, s) {
			return fmt.Errorf("Parameter '%s' does not accept value '%s'", d.own(), s)
		}
		to.SetString(s)
	case kindInt, kindNumber:
		return d.number(to, v)
	case kindArray:
		return d.array(sh, to, v)
	case kindObject:
		m, ok := v.(map[string]any)
		if !ok {
			return d.wrongType("object")
		}
		return d.object(sh, to, m)
	case kindAlternate:
		return d.alternate(sh, to, v)
	}
	return nil
}

// fromText is what a string stands for; one that is none stays, for the complaint.
func (sh *shape) fromText(s string) any {
	switch sh.kind {
	case kindBool:
		switch s {
		case "on", "yes", "true", "y":
			return true
		case "off", "no", "false", "n":
			return false
		}
	case kindInt, kindNumber:
		if n, err := strconv.ParseInt(s, 0, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(s, 0, 64); err == nil {
			return n
		}
	}
	return s
}

func (d *decoder) number(to reflect.Value, v any) error {
	switch to.Kind() {
	case reflect.Float64:
		switch n := v.(type) {
		case int64:
			to.SetFloat(float64(n))
		case uint64:
			to.SetFloat(float64(n))
		case float64:
			to.SetFloat(n)
		default:
			return d.wrongType("number")
		}
	case reflect.Uint64:
		switch n := v.(type) {
		case int64: // negative ones too, as ever
			to.SetUint(uint64(n))
		case uint64:
			to.SetUint(n)
		default:
			return fmt.Errorf("Parameter '%s' expects uint64", d.name())
		}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		n, ok := v.(int64)
		if !ok {
			return d.wrongType("integer")
		}
		if n < 0 || to.OverflowUint(uint64(n)) {
			return fmt.Errorf("Parameter '%s' expects %s", d.own(), to.Kind())
		}
		to.SetUint(uint64(n))
	default:
		n, ok := v.(int64)
		if !ok {
			return d.wrongType("integer")
		}
		if to.OverflowInt(n) {
			return fmt.Errorf("Parameter '%s' expects %s", d.own(), to.Kind())
		}
		to.SetInt(n)
	}
	return nil
}

func (d *decoder) array(sh *shape, to reflect.Value, v any) error {
	list, ok := v.([]any)
	if !ok {
		return d.wrongType("array")
	}
	to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
	for i, e := range list {
		if err := d.within(step{index: i}, sh.elem, to.Index(i), e); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) object(sh *shape, to reflect.Value, m map[string]any) error {
	left := maps.Clone(m)
	if err := d.members(sh, to, left); err != nil {
		return err
	}
	if sh.rest != nil {
		to.FieldByIndex(sh.rest).Set(reflect.ValueOf(left))
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(left)) {
		d.path = append(d.path, step{name: k})
		err := fmt.Errorf("Parameter '%s' is unexpected", d.name())
		d.path = d.path[:len(d.path)-1]
		return err
	}
	return nil
}

// members takes the members of sh out of left.
func (d *decoder) members(sh *shape, to reflect.Value, left map[string]any) error {
	value := ""
	for _, m := range sh.members {
		v, ok := left[m.name]
		if !ok {
			if m.optional {
				continue
			}
			d.path = append(d.path, step{name: m.name})
			err := fmt.Errorf("Parameter '%s' is missing", d.name())
			d.path = d.path[:len(d.path)-1]
			return err
		}
		delete(left, m.name)
		if err := d.within(step{name: m.name}, m.shape, to.FieldByIndex(m.index), v); err != nil {
			return err
		}
		if m.name == sh.tag {
			value, _ = v.(string)
		}
	}
	if c := sh.variant(value); sh.tag != "" && c != nil {
		return d.members(c.shape, target(to.FieldByIndex(c.index)), left)
	}
	return nil
}

// alternate decodes v as the first alternative that has its JSON type.
func (d *decoder) alternate(sh *shape, to reflect.Value, v any) error {
	for _, c := range sh.cases {
		if c.shape.accepts(v) {
			return d.value(c.shape, to.FieldByIndex(c.index), v)
		}
	}
	return d.wrongType(sh.typ.Name())
}

// accepts reports that v has the JSON type of the shape.
func (sh *shape) accepts(v any) bool {
	ok := false
	switch sh.kind {
	case kindString, kindEnum:
		_, ok = v.(string)
	case kindBool:
		_, ok = v.(bool)
	case kindArray:
		_, ok = v.([]any)
	case kindObject:
		_, ok = v.(map[string]any)
	case kindNull:
		ok = v == nil
	case kindInt, kindNumber:
		switch v.(type) {
		case int64, uint64:
			ok = true
		case float64:
			ok = sh.kind == kindNumber
		}
	}
	return ok
}
