package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestSummaryNamesWhatIsLost(t *testing.T) {
	rows := []*row{
		{name: "fast", taken: [2]cost{{wall: 1, cpu: 1, memory: 3 << 20}, {wall: 4, cpu: 4, memory: 1 << 20}}},
		{name: "slow", taken: [2]cost{{wall: 1, cpu: 1, memory: 1 << 20}, {wall: 0.25, cpu: 0.25, memory: 1 << 20}}},
	}
	s := summary(rows)
	for _, want := range []string{"mean of 2 rows: 1.00x", "lost: slow\n", "memory: fast\n"} {
		if !strings.Contains(s, want) {
			t.Errorf("summary does not say %q:\n%s", want, s)
		}
	}
	if !strings.Contains(rows[1].line(), "LOST") || strings.Contains(rows[0].line(), "LOST") {
		t.Errorf("lines: %s%s", rows[0].line(), rows[1].line())
	}
}

// Commands run in the folder, and are given names in it: a relative one would be another there.
func TestFolderIsAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	name, err := newFolder(".")
	if err != nil || !filepath.IsAbs(name) {
		t.Errorf("folder %q, %v", name, err)
	}
}
