package guest

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestConsole drives a host's shell as it would a guest's.
func TestConsole(t *testing.T) {
	cmd := exec.Command("sh", "-c", `
		read line; printf 'host login: '; read name; printf 'Password: '; read password; printf 'Login timed out after 60 seconds.\n'
		printf 'host login: '; read name; printf 'Password: '; read password; [ "$name/$password" = me/secret ] || exit
		printf '$ '; read line; printf '$ '; read line
		exec sh`)
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := NewConsole(screen, keys)
	const limit = 20 * time.Second
	if err := c.Login("me", "secret", limit); err != nil {
		t.Fatalf("%v; it said %q", err, c.Said())
	}
	if out, err := c.Run("echo one; printf 'two\\r\\n' >&2", limit); err != nil || out != "one\ntwo\n" {
		t.Errorf("%q %v", out, err)
	}
	if out, err := c.Run("echo three; (exit 7)", limit); err == nil || !strings.Contains(err.Error(), "status 7: three") {
		t.Errorf("%q %v", out, err)
	}
	if err := c.Type("exit\n"); err != nil {
		t.Error(err)
	}
	if err := c.ExpectEnd(limit); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

func TestExpect(t *testing.T) {
	screen, guest := io.Pipe()
	c := NewConsole(screen, io.Discard)
	go func() {
		for _, s := range []string{"one t", "wo three", " four"} {
			_, _ = io.WriteString(guest, s)
		}
	}()
	const limit = 20 * time.Second
	before, groups, err := c.Expect(`t(w)o `, limit)
	if err != nil || before != "one " || len(groups) != 2 || groups[1] != "w" {
		t.Errorf("%q %q %v", before, groups, err)
	}
	if _, _, err := c.Expect("one", time.Millisecond); err == nil || !strings.Contains(err.Error(), "within") {
		t.Errorf("what was read matched again: %v", err)
	}
	if err := c.ExpectEnd(time.Millisecond); err == nil {
		t.Error("an open console has ended")
	}
	_ = guest.Close()
	if _, _, err := c.Expect("five", limit); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("waited for what cannot come: %v", err)
	}
	if before, _, err := c.Expect("four", limit); err != nil || before != "three " {
		t.Errorf("%q %v", before, err)
	}
}
