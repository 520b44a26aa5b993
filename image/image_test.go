package image

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"berth/block/formats"
)

func tool(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = Main(context.Background(), args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), status
}

// TestName: as berth image, the program calls itself that.
func TestName(t *testing.T) {
	_, errs, status := tool(t, "berth image", "nonsense")
	if want := "berth image: Command not found: nonsense\nTry 'berth image --help' for more information\n"; errs != want || status != 1 {
		t.Errorf("%q, status %d; want %q, 1", errs, status, want)
	}
	out, _, status := tool(t, "berth image", "--help")
	if !strings.Contains(out, "\nusage: berth image [standard options] command") || status != 0 {
		t.Errorf("help: %q, status %d", out, status)
	}
}

// TestComplete: what a shell offers.
func TestComplete(t *testing.T) {
	for _, c := range []struct {
		args  []string
		typed string
		words string
		files bool
	}{
		{nil, "re", "rebase resize", false},
		{[]string{"info"}, "--b", "--backing-chain", false},
		{[]string{"info", "--output"}, "j", "human json", false},
		{[]string{"info"}, "x", "", true},
	} {
		words, files := Complete(c.args, c.typed)
		if got := strings.Join(words, " "); got != c.words || files != c.files {
			t.Errorf("%q %q: %q %t, want %q %t", c.args, c.typed, got, files, c.words, c.files)
		}
	}
}

// TestDictionaryOrder: members come as QEMU's dictionaries have them.
func TestDictionaryOrder(t *testing.T) {
	d := description{formats.ImageInfo{Filename: "a", Format: "qcow2", Size: 1, Allocated: 1}}
	d.ClusterSize = 65536
	var names []string
	for _, f := range dictionaryOrder(d.object()) {
		names = append(names, f.Name)
	}
	if got, want := strings.Join(names, " "), "virtual-size filename cluster-size format actual-size dirty-flag"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}

// TestQuoteJSON: all but printable ASCII is escaped, as QEMU does.
func TestQuoteJSON(t *testing.T) {
	for in, want := range map[string]string{
		"a<b>&": `"a<b>&"`, "\"\\\n\x01\x7f": `"\"\\\n\u0001\u007F"`, "ü😀": `"\u00FC\uD83D\uDE00"`, "\xff": `"\uFFFD"`,
	} {
		if got := quoteJSON(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
