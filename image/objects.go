package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"berth/block"
)

// objectTypes are those that qemu-img can make.
var objectTypes = [...]string{
	"authz-list", "authz-list-file", "authz-simple", "main-loop", "pr-manager-helper", "secret", "secret_keyring",
	"thread-context", "throttle-group", "tls-cipher-suites", "tls-creds-anon", "tls-creds-psk", "tls-creds-x509",
}

// objectOption is --object. Objects serve encryption and network protocols,
// neither of which is supported: what uses one is refused by its own name, and
// the object itself is only checked.
func (c *call) objectOption() option {
	return option{long: "object", set: c.object}
}

func (c *call) object(text string) error {
	properties := map[string]string{}
	if strings.HasPrefix(text, "{") {
		var o map[string]any
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return failure("JSON parse error, invalid object")
		}
		for k, v := range o {
			properties[k] = fmt.Sprint(v)
		}
	} else if err := c.objectProperties(text, properties); err != nil {
		return err
	}
	if err := checkProperties(properties); err != nil {
		return err
	}
	id := properties["id"]
	if slices.Contains(c.objects, id) {
		return failure("attempt to add duplicate property '%s' to object (type 'container')", id)
	}
	c.objects = append(c.objects, id)
	return nil
}

// objectProperties reads "type,name=value,…".
func (c *call) objectProperties(text string, p map[string]string) error {
	first := "qom-type"
	for text != "" {
		name, value, rest, flag := splitOption(text, first)
		if flag && isHelp(name) {
			return c.objectHelp(p["qom-type"])
		}
		if flag {
			return failure("Expected '=' after parameter '%s'", name)
		}
		if first != "" && isHelp(value) {
			return c.objectHelp("")
		}
		p[name] = value
		first, text = "", rest
	}
	return nil
}

func (c *call) objectHelp(kind string) error {
	if kind == "" {
		c.printf("List of user creatable objects:\n")
		for _, t := range objectTypes {
			c.printf("  %s\n", t)
		}
		return done
	}
	if kind == "secret" {
		c.printf("secret options:\n")
		for _, o := range []block.Field{{Name: "data"}, {Name: "file"}, {Name: "format", Value: "QCryptoSecretFormat"}, {Name: "iv"}, {Name: "keyid"}} {
			if o.Value == nil {
				o.Value = "string"
			}
			c.printf("  %s=<%s>\n", o.Name, o.Value)
		}
	}
	return done
}

func checkProperties(p map[string]string) error {
	kind, ok := p["qom-type"]
	if !ok {
		return failure("Parameter 'qom-type' is missing")
	}
	if kind == "iothread" {
		return failure("invalid object type: %s", kind)
	}
	if !slices.Contains(objectTypes[:], kind) {
		return failure("Parameter 'qom-type' does not accept value '%s'", kind)
	}
	if _, ok := p["id"]; !ok {
		return failure("Parameter 'id' is missing")
	}
	if kind != "secret" {
		return nil
	}
	for name := range p {
		if !slices.Contains([]string{"qom-type", "id", "data", "file", "format", "iv", "keyid"}, name) {
			return failure("Parameter '%s' is unexpected", name)
		}
	}
	_, data := p["data"]
	_, file := p["file"]
	switch {
	case data && file:
		return failure("'file' and 'data' are mutually exclusive")
	case !data && !file:
		return failure("Either 'file' or 'data' must be provided")
	}
	return nil
}
