package debian

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
)

const userData = `#cloud-config
users:
  - default
  - name: op
    shell: /bin/bash
    sudo: ALL=(ALL) NOPASSWD:ALL
locale: C.UTF-8
ssh_genkeytypes: [ed25519]
manage_etc_hosts: true
runcmd:
  - echo "$(hostname) was here" >/srv/proof
`

// TestCloudInitAndAgent boots Debian with what its user wrote for cloud-init, which
// ends as done with a user, a key, a host name and a command's work; QEMU's guest
// agent, by which all this is seen, runs commands and freezes the file systems.
func TestCloudInitAndAgent(t *testing.T) {
	d := find(t)
	dir := t.TempDir()
	key := newKey(t, dir)
	user, port, disk := filepath.Join(dir, "user-data.yaml"), filepath.Join(dir, "agent"), filepath.Join(dir, "disk.img")
	if err := os.WriteFile(user, []byte(userData), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.CopyDisk(disk); err != nil {
		t.Fatal(err)
	}
	cmd := berth(t)(d.Debian, disk)
	var args []string // without the seed of the others
	for i := 0; i < len(cmd.Args); i++ {
		if strings.Contains(cmd.Args[i], d.Seed) {
			args = args[:len(args)-1]
			continue
		}
		args = append(args, cmd.Args[i])
	}
	cmd.Args = append(args, "--name", "cloudy", "--cloud-init", user+",ssh-key="+key+".pub",
		"--port", "name=org.qemu.guest_agent.0,socket="+port+",server=on")
	m := start(t, cmd)
	if err := m.cloudy(port, key); err != nil {
		t.Fatalf("after %.0f CPU-seconds (%.0f s): %v\nIts console:\n%s\nIts standard error:\n%s", m.cpu(), time.Since(m.started).Seconds(), err, m.console.Said(), m.errs.String())
	}
	if err := guest.CheckDisk(disk); err != nil {
		t.Error(err)
	}
	t.Logf("%.0f CPU-seconds", m.cpu())
}

// newKey makes an SSH key in dir and returns its file.
func newKey(t *testing.T, dir string) string {
	t.Helper()
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "op@test", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return key
}

func (m *vm) cloudy(port, key string) error {
	a, err := reach(port, bootLimit)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return err
	}
	for _, q := range []question{
		{"cloud-init status --wait", "status: done\n"},
		{"hostname", "cloudy\n"},
		{"cat /srv/proof", "cloudy was here\n"},
		{"id -un op; sudo -l -U op", "NOPASSWD: ALL"},
		{"cat /home/debian/.ssh/authorized_keys", strings.TrimSpace(string(public))},
	} {
		got, err := a.run(q.command, stepLimit)
		if err != nil {
			return err
		}
		if !strings.Contains(got, q.answer) {
			return fmt.Errorf("%s: %q, which does not contain %q", q.command, got, q.answer)
		}
	}
	if err := a.freeze(); err != nil {
		return err
	}
	if err := a.do("guest-shutdown", nil, nil); err != nil && !strings.Contains(err.Error(), "EOF") {
		return err
	}
	return m.wait()
}

// freeze freezes the file systems and lets them go.
func (a *agent) freeze() error {
	var frozen, thawed int
	var status string
	if err := a.do("guest-fsfreeze-freeze", nil, &frozen); err != nil {
		return err
	}
	err := a.do("guest-fsfreeze-status", nil, &status)
	if err := a.do("guest-fsfreeze-thaw", nil, &thawed); err != nil {
		return err
	}
	if err != nil || status != "frozen" || frozen < 1 || thawed != frozen {
		return fmt.Errorf("%d file systems frozen, %d thawed, status %q (%w)", frozen, thawed, status, err)
	}
	return nil
}
