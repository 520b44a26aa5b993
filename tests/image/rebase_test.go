package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestRebaseKeepsZeros rebases images whose zeros nothing stores: those past the end of a small backing
// image, and those of an image without one. A new backing image must not show there.
func TestRebaseKeepsZeros(t *testing.T) {
	const size = 1456640
	for _, compat := range []string{"0.10", "1.1"} {
		for _, backing := range []string{"small.qcow2", ""} {
			t.Run(fmt.Sprint(compat, backing), func(t *testing.T) {
				dir := t.TempDir()
				path := func(n string) string { return filepath.Join(dir, n) }
				do := func(args ...string) {
					t.Helper()
					if code, out := (berth{}).img(args); code != 0 {
						t.Fatalf("%v: %s", args, out)
					}
				}
				if err := os.WriteFile(path("base.raw"), bytes.Repeat([]byte{6}, 395776), 0o600); err != nil {
					t.Fatal(err)
				}
				do("create", "-f", "qcow2", "-b", path("base.raw"), "-F", "raw", path("small.qcow2"), "116224")
				top := layout{cluster: 131072, refcount: 16, v2: compat == "0.10", prealloc: "off", size: size}
				if backing != "" {
					backing = path(backing)
				}
				do(top.create(path("top.qcow2"), backing, "qcow2")...)
				before, err := berth{}.read(path("top.qcow2"), "qcow2", "")
				if err != nil {
					t.Fatal(err)
				}
				do("rebase", "-f", "qcow2", "-b", path("base.raw"), "-F", "raw", path("top.qcow2"))
				after, err := berth{}.read(path("top.qcow2"), "qcow2", "")
				if err != nil {
					t.Fatal(err)
				}
				if d := difference(after, before); d != "" {
					t.Error(d)
				}
			})
		}
	}
}
