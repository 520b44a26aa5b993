package qmp

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestQueries asks everything that can be asked without arguments: what QEMU answers,
// berth answers, and what fails does so with the same class.
func TestQueries(t *testing.T) {
	needQEMU(t)
	ours, theirs := startBoth(t, &session{}, buildBerth(t))
	schema, peers := schemaOf(t, ours), schemaOf(t, theirs)
	for name, e := range schema {
		if e["meta-type"] != "command" || name == "qmp_capabilities" || !isQuery(schema, e) || peers[name] == nil {
			continue
		}
		text := fmt.Sprintf(`{"execute": %q}`, name)
		a, err := ours.command(text)
		b, err2 := theirs.command(text)
		if err != nil || err2 != nil {
			t.Fatalf("%s: berth: %v; QEMU: %v", name, err, err2)
		}
		if x, y := classOf(a), classOf(b); x != y {
			t.Errorf("%s: %s, QEMU has %s", name, x, y)
		}
	}
}

// isQuery reports that a command needs no argument and answers something.
func isQuery(s entities, e map[string]any) bool {
	_, args := fieldsOf(s[e["arg-type"].(string)])
	for _, f := range args {
		if !f.optional {
			return false
		}
	}
	ret := s[e["ret-type"].(string)]
	if ret["meta-type"] != "object" {
		return true
	}
	names, _ := fieldsOf(ret)
	return len(names) > 0
}

func classOf(answer map[string]any) string {
	e, ok := answer["error"].(map[string]any)
	if !ok {
		return "success"
	}
	return e["class"].(string)
}

// TestEveryCommandIsInASession: what a session has nothing of, testdata/elsewhere says
// where it is tested: "COMMAND | WHERE".
func TestEveryCommandIsInASession(t *testing.T) {
	needQEMU(t)
	p := startPeer(t, &session{}, buildBerth(t), berthArgs())
	p.reconnect(t)
	defer p.unexpected()
	used := map[string]bool{}
	paths, _ := filepath.Glob("testdata/*.qmp")
	execute := regexp.MustCompile(`"execute": *"([^"]*)"`)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if m := execute.FindStringSubmatch(line); m != nil && line[0] != '#' {
				used[m[1]] = true
			}
		}
	}
	var missing []string
	for name, e := range schemaOf(t, p) {
		if e["meta-type"] == "command" && !used[name] {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	judge(t, "testdata/elsewhere", missing, readListed(t, "testdata/elsewhere"))
}
