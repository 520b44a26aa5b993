package floors

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "berth/"

// line returns the line of Order that names pkg; a name ending in /... covers its subtree.
func line(pkg string) int {
	for n, l := range strings.Split(Order, "\n") {
		l, _, _ = strings.Cut(l, "#")
		for _, f := range strings.Fields(l) {
			if f == pkg || (strings.HasSuffix(f, "/...") && strings.HasPrefix(pkg, strings.TrimSuffix(f, "..."))) {
				return n
			}
		}
	}
	return -1
}

func TestPackagesImportOnlyLowerFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "berth/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(l)
		pkg := strings.TrimPrefix(f[0], module)
		at := line(pkg)
		if at < 0 {
			t.Errorf("%s stands on no floor: add it to Order", pkg)
			continue
		}
		for _, imp := range f[1:] {
			if low, ours := strings.CutPrefix(imp, module); ours && line(low) >= at {
				t.Errorf("%s imports %s, which is not on a lower floor", pkg, low)
			}
		}
	}
}
