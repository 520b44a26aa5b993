package formats

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The most that a "json:" name may be. A name stored in an image has 1023
// bytes; users write a few hundred.
const (
	maxJSON  = 64 << 10 // bytes
	maxDepth = 32       // objects and lists within one another
)

// parseJSON reads the options of a "json:…" name, flattened: a member b of the
// object a is called "a.b", a list's elements "a.0", "a.1". Booleans are "on"
// and "off"; null is the empty string.
func parseJSON(name string) (map[string]string, error) {
	text := strings.TrimPrefix(name, "json:")
	const failed = "Could not parse the JSON options: "
	if len(text) > maxJSON {
		return nil, fmt.Errorf(failed+"more than %d bytes", maxJSON)
	}
	if strings.TrimSpace(text) == "" {
		return nil, errors.New(failed + "Expecting a JSON value")
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	values := map[string]string{}
	object, err := flatten(d, "", values, 0)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("Expecting at most one JSON value")
		}
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New(failed + "JSON parse error, premature EOI")
	case err != nil:
		return nil, fmt.Errorf(failed+"%w", err)
	case !object:
		return nil, errors.New("Invalid JSON object given")
	}
	return values, nil
}

// flatten reads one value called name into values.
func flatten(d *json.Decoder, name string, values map[string]string, depth int) (object bool, err error) {
	t, err := d.Token()
	if err != nil {
		return false, syntax(err)
	}
	if depth > maxDepth {
		return false, fmt.Errorf("JSON parse error, nesting is deeper than %d", maxDepth)
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return true, flattenObject(d, name, values, depth)
		}
		return false, flattenList(d, name, values, depth)
	case bool:
		values[name] = "off"
		if t {
			values[name] = "on"
		}
	case nil:
		values[name] = ""
	default:
		values[name] = fmt.Sprint(t)
	}
	return false, nil
}

func syntax(err error) error {
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return errors.New("JSON parse error, " + s.Error())
	}
	return err
}

func flattenObject(d *json.Decoder, name string, values map[string]string, depth int) error {
	if name != "" {
		name += "."
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return syntax(err)
		}
		key, ok := t.(string)
		if !ok {
			return errors.New("JSON parse error, key is not a string in object")
		}
		if seen[key] {
			return errors.New("JSON parse error, duplicate key")
		}
		seen[key] = true
		if _, err := flatten(d, name+key, values, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return syntax(err)
}

func flattenList(d *json.Decoder, name string, values map[string]string, depth int) error {
	if name != "" {
		name += "."
	}
	for i := 0; d.More(); i++ {
		if _, err := flatten(d, name+strconv.Itoa(i), values, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return syntax(err)
}

// Flatten is what a "json:…" name of the object m would say, as Options.Values have
// it. Values are those that m's type knows of JSON: strings, booleans, numbers, nil,
// []any and map[string]any.
func Flatten(m map[string]any) map[string]string {
	values := map[string]string{}
	for k, v := range m {
		flattenValue(k, v, values)
	}
	return values
}

func flattenValue(name string, v any, values map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			flattenValue(name+"."+k, x, values)
		}
	case []any:
		for i, x := range v {
			flattenValue(name+"."+strconv.Itoa(i), x, values)
		}
	case bool:
		values[name] = "off"
		if v {
			values[name] = "on"
		}
	case nil:
		values[name] = ""
	default:
		values[name] = fmt.Sprint(v)
	}
}
