package virtio_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestClausesNameTests: the tests that docs/devices.md names are there.
func TestClausesNameTests(t *testing.T) {
	doc, err := os.ReadFile("../docs/devices.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, root := range []string{".", "../guestmem", "../tests"} {
		err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") && filepath.Base(filepath.Dir(path)) != "virtiotest" {
				return err
			}
			b, err := os.ReadFile(path)
			tests.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, clauses, _ := strings.Cut(string(doc), "## Virtio's clauses")
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(clauses, -1)
	if len(named) < 50 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, n := range named {
		if !strings.Contains(tests.String(), "func "+n[1]+"(") {
			t.Errorf("there is no test %s", n[1])
		}
	}
	for _, n := range regexp.MustCompile(`"([^"\n]+)"`).FindAllStringSubmatch(clauses, -1) {
		if !strings.Contains(tests.String(), `{"`+n[1]+`",`) {
			t.Errorf("the suite has no %q", n[1])
		}
	}
}
