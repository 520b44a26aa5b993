package monitor

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write docs/qmp.md anew")

const manual = "../docs/qmp.md"

const manualHead = `# QMP as berth speaks it

The commands and events of a running VM, made from the table that checks and runs them
(go generate ./monitor; berth monitor --qmp --help prints the same). The protocol is
QEMU's, and so are names, arguments and answers, of QEMU 7.2: what differs is listed with its
reason in tests/qmp/testdata, in schema and behind the exclamation marks of the sessions.

"name?" is optional. "when X is Y" names members that are there only then.

`

//go:generate go test -run TestManual -update .

// TestManual: docs/qmp.md is what the table says.
func TestManual(t *testing.T) {
	text, err := Documentation()
	if err != nil {
		t.Fatal(err)
	}
	want := manualHead + text
	if *update {
		if err := os.WriteFile(manual, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/qmp.md is out of date: run go generate ./monitor")
	}
}
