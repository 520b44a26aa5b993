package main

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"berth/rundir"
)

// A guest that writes without end does not fill its host's disk; the latest is kept.
func TestConsoleLogIsBounded(t *testing.T) {
	d, err := rundir.Create(t.TempDir(), "vm")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Remove() }()
	c, err := newLoggedConsole(d)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	line := bytes.Repeat([]byte("x"), 1<<16)
	for i := range 3 * maxConsoleLog / len(line) {
		if _, err := c.Write(fmt.Appendf(line, "%d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(d.Path(rundir.ConsoleText))
	if err != nil || len(b) > maxConsoleLog || len(b) < maxConsoleLog/2 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	last := fmt.Appendf(nil, "x%d\n", 3*maxConsoleLog/len(line)-1)
	if !bytes.HasSuffix(b, last) {
		t.Errorf("ends in %q", b[len(b)-20:])
	}
}
