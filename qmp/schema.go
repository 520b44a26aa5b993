package qmp

import (
	"reflect"
	"slices"
	"strconv"
)

// SchemaInfo is one entity of QEMU's introspection (docs/devel/qapi-code-gen,
// "Client JSON Protocol introspection").
type SchemaInfo struct {
	Name      string           `json:"name"`
	Meta      MetaType         `json:"meta-type" qmp:"tag"`
	Builtin   *SchemaBuiltin   `json:"-" qmp:"case=builtin"`
	Enum      *SchemaEnum      `json:"-" qmp:"case=enum"`
	Array     *SchemaArray     `json:"-" qmp:"case=array"`
	Object    *SchemaObject    `json:"-" qmp:"case=object"`
	Alternate *SchemaAlternate `json:"-" qmp:"case=alternate"`
	Command   *SchemaCommand   `json:"-" qmp:"case=command"`
	Event     *SchemaEvent     `json:"-" qmp:"case=event"`
}

// MetaType is a kind of entity.
type MetaType string

// Values implements Enum.
func (MetaType) Values() []string {
	return []string{"builtin", "enum", "array", "object", "alternate", "command", "event"}
}

// JSONType is what JSON knows of a built-in type.
type JSONType string

// Values implements Enum.
func (JSONType) Values() []string {
	return []string{"string", "number", "int", "boolean", "null", "object", "array", "value"}
}

// SchemaBuiltin is the rest of a built-in type.
type SchemaBuiltin struct {
	JSON JSONType `json:"json-type"`
}

// SchemaEnum is the rest of an enum.
type SchemaEnum struct {
	Members []SchemaEnumMember `json:"members"`
	Values  []string           `json:"values"`
}

// SchemaEnumMember is a value of an enum.
type SchemaEnumMember struct {
	Name string `json:"name"`
}

// SchemaArray is the rest of an array.
type SchemaArray struct {
	Element string `json:"element-type"`
}

// SchemaObject is the rest of an object.
type SchemaObject struct {
	Members  []SchemaMember  `json:"members"`
	Tag      string          `json:"tag,omitempty"`
	Variants []SchemaVariant `json:"variants,omitempty"`
}

// SchemaMember is a member of an object. One with a default, which is always
// null, is optional.
type SchemaMember struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Default any    `json:"default,omitempty"`
}

// SchemaVariant is a case of an object.
type SchemaVariant struct {
	Case string `json:"case"`
	Type string `json:"type"`
}

// SchemaAlternate is the rest of an alternate.
type SchemaAlternate struct {
	Members []SchemaAlternative `json:"members"`
}

// SchemaAlternative is a type that an alternate may have.
type SchemaAlternative struct {
	Type string `json:"type"`
}

// SchemaCommand is the rest of a command.
type SchemaCommand struct {
	Arg      string `json:"arg-type"`
	Ret      string `json:"ret-type"`
	AllowOOB bool   `json:"allow-oob,omitempty"`
}

// SchemaEvent is the rest of an event.
type SchemaEvent struct {
	Arg string `json:"arg-type"`
}

// schemer lists a table's entities. Types that are not built in are known by
// numbers: their names are nobody's business.
type schemer struct {
	t     *Table
	list  []SchemaInfo
	names map[*shape]string
	built map[string]bool
}

func (t *Table) makeSchema() []SchemaInfo {
	s := schemer{t: t, names: map[*shape]string{}, built: map[string]bool{}}
	for _, c := range t.commands {
		args, returns := s.shape(c.args), s.shape(c.returns)
		s.list = append(s.list, SchemaInfo{
			Name: c.Name, Meta: "command",
			Command: &SchemaCommand{Arg: s.name(args), Ret: s.name(returns), AllowOOB: c.OOB},
		})
	}
	for _, e := range t.events {
		s.list = append(s.list, SchemaInfo{Name: e.Name, Meta: "event", Event: &SchemaEvent{Arg: s.name(s.shape(e.data))}})
	}
	// The entities of types follow those of commands, as QEMU has them.
	slices.SortStableFunc(s.list, func(a, b SchemaInfo) int { return rank(a.Meta) - rank(b.Meta) })
	return s.list
}

func rank(m MetaType) int {
	switch m {
	case "command":
		return 0
	case "event":
		return 1
	}
	return 2
}

// shape is that of a type that NewTable has seen.
func (s *schemer) shape(t reflect.Type) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return s.t.shapes[t]
}

// name is what the schema calls a type, which it lists at the first time.
func (s *schemer) name(sh *shape) string {
	if n, ok := s.names[sh]; ok {
		return n
	}
	if n, json := builtin(sh); n != "" {
		s.names[sh] = n
		if !s.built[n] {
			s.built[n] = true
			s.list = append(s.list, SchemaInfo{Name: n, Meta: "builtin", Builtin: &SchemaBuiltin{json}})
		}
		return n
	}
	if sh.kind == kindArray {
		n := "[" + s.name(sh.elem) + "]"
		s.names[sh] = n
		s.list = append(s.list, SchemaInfo{Name: n, Meta: "array", Array: &SchemaArray{s.name(sh.elem)}})
		return n
	}
	n := strconv.Itoa(len(s.names))
	s.names[sh] = n
	s.list = append(s.list, SchemaInfo{Name: n, Meta: "object"}) // keeps its place: types may name themselves
	at := len(s.list) - 1
	info := s.entity(sh)
	info.Name = n
	s.list[at] = info
	return n
}

func builtin(sh *shape) (name string, json JSONType) {
	switch sh.kind {
	case kindString:
		return "str", "string"
	case kindInt:
		return "int", "int"
	case kindNumber:
		return "number", "number"
	case kindBool:
		return "bool", "boolean"
	case kindNull:
		return "null", "null"
	case kindAny:
		return "any", "value"
	}
	return "", ""
}

func (s *schemer) entity(sh *shape) SchemaInfo {
	switch sh.kind {
	case kindEnum:
		e := &SchemaEnum{Values: sh.values}
		for _, v := range sh.values {
			e.Members = append(e.Members, SchemaEnumMember{v})
		}
		return SchemaInfo{Meta: "enum", Enum: e}
	case kindAlternate:
		a := &SchemaAlternate{}
		for _, c := range sh.cases {
			a.Members = append(a.Members, SchemaAlternative{s.name(c.shape)})
		}
		return SchemaInfo{Meta: "alternate", Alternate: a}
	}
	o := &SchemaObject{Tag: sh.tag, Members: []SchemaMember{}}
	for _, m := range sh.members {
		sm := SchemaMember{Name: m.name, Type: s.name(m.shape)}
		if m.optional {
			sm.Default = Null{}
		}
		o.Members = append(o.Members, sm)
	}
	for _, c := range sh.cases {
		o.Variants = append(o.Variants, SchemaVariant{c.value, s.name(c.shape)})
	}
	return SchemaInfo{Meta: "object", Object: o}
}
