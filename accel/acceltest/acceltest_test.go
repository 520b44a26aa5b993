package acceltest

import (
	"path/filepath"
	"testing"
)

func TestProgramsAreTheirSources(t *testing.T) {
	sources, err := filepath.Glob("testdata/*.asm")
	if err != nil {
		t.Fatal(err)
	}
	Reassemble(t, sources...)
}
