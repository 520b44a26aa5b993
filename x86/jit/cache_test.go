package jit

import (
	"os"
	"strings"
	"testing"

	"berth/x86/decode"
)

// No mapping of the process may be written and executed, while code is there.
func TestNoMappingIsWritableAndExecutable(t *testing.T) {
	if !Available() {
		t.Skip("the host runs no translated code")
	}
	c, err := New(1<<20, Layout{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	code := []byte{0x48, 0x01, 0xd8, 0xeb, 0xfb} // add rax, rbx; jmp back
	if _, ok := c.Translate(code, 0, 0, decode.Mode64, false, false); !ok {
		t.Fatal("not translated")
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(maps)) {
		perms := strings.Fields(line)[1]
		if strings.Contains(line, "berth-jit") {
			seen++
		}
		if perms[1] == 'w' && perms[2] == 'x' {
			t.Errorf("writable and executable: %s", line)
		}
	}
	if seen != 2 {
		t.Errorf("the cache has %d mappings, want 2", seen)
	}
}
