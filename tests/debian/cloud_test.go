package debian

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
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
    ssh_authorized_keys: [KEY]
    sudo: ALL=(ALL) NOPASSWD:ALL
locale: C.UTF-8
ssh_genkeytypes: [ed25519]
manage_etc_hosts: true
runcmd:
  - echo "$(hostname) was here" >/srv/proof
`

// TestCloudInitAndAgent boots Debian with what its user wrote for cloud-init, which
// ends as done with a user, a key, a host name and a command's work; QEMU's guest
// agent, by which all this is seen, runs commands and freezes the file systems. On the
// user network the guest has its addresses by DHCP and by the router's word, names,
// a download from a server of the host's, and berth ssh leads into it.
func TestCloudInitAndAgent(t *testing.T) {
	d := find(t)
	dir := t.TempDir()
	key := newKey(t, dir)
	user, port, disk := filepath.Join(dir, "user-data.yaml"), filepath.Join(dir, "agent"), filepath.Join(dir, "disk.img")
	if err := os.WriteFile(user, []byte(strings.ReplaceAll(userData, "KEY", publicKey(t, key))), 0o600); err != nil {
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
	cmd.Env = append(os.Environ(), "BERTH_RUNTIME_DIR="+filepath.Join(dir, "run"))
	cmd.Args = append(args, "--name", "cloudy", "--nic", "user", "--cloud-init", user+",ssh-key="+key+".pub",
		"--port", "name=org.qemu.guest_agent.0,socket="+port+",server=on")
	m := start(t, cmd)
	if err := m.cloudy(port, publicKey(t, key), newSite(t)); err != nil {
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

func publicKey(t *testing.T, key string) string {
	t.Helper()
	b, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (m *vm) cloudy(port, public string, web site) error {
	a, err := reach(port, bootLimit)
	if err != nil {
		return err
	}
	defer a.conn.Close()
	for _, q := range []question{
		{"cloud-init status --wait", "status: done\n"},
		{"hostname", "cloudy\n"},
		{"cat /srv/proof", "cloudy was here\n"},
		{"id -un op; sudo -l -U op", "NOPASSWD: ALL"},
		{"cat /home/debian/.ssh/authorized_keys", public},
		{"ip -4 -o addr show scope global", "10.0.2.15/24"},
		{"for i in $(seq 100); do ip -6 -o addr | grep fec0 && break; sleep 0.2; done", "fec0::"},
		{"cat /etc/resolv.conf", "nameserver 10.0.2.3\n"},
		{"ping -c 1 10.0.2.2 && ping -6 -c 1 fec0::2", "0% packet loss"},
		{"python3 -c 'import urllib.request as u, hashlib as h; print(h.sha256(u.urlopen(\"" + web.url + "\").read()).hexdigest())'", web.sum + "\n"},
	} {
		got, err := a.run(q.command, stepLimit)
		if err != nil {
			return err
		}
		if !strings.Contains(got, q.answer) {
			return fmt.Errorf("%s: %q, which does not contain %q", q.command, got, q.answer)
		}
	}
	for _, user := range []string{"debian", "op"} {
		if err := m.ssh(user); err != nil {
			return err
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

// ssh runs a command in the guest by berth ssh.
func (m *vm) ssh(user string) error {
	cmd := exec.Command(m.cmd.Path, "ssh", user+"@cloudy", "id -un; sudo id -un; hostname")
	cmd.Env = m.cmd.Env
	out, err := cmd.CombinedOutput()
	if want := user + "\nroot\ncloudy\n"; err != nil || string(out) != want {
		return fmt.Errorf("berth ssh: %q, want %q: %w", out, want, err)
	}
	return nil
}

// site is a server of the host's, at an address that is not its loopback's.
type site struct{ url, sum string }

func newSite(t *testing.T) site {
	t.Helper()
	body := make([]byte, 20<<20)
	for i := range body {
		body[i] = byte(i * i >> 7)
	}
	address := ""
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip := a.(*net.IPNet).IP; ip.To4() != nil && !ip.IsLoopback() {
			address = ip.String()
		}
	}
	if address == "" {
		t.Skip("the host has no address but its loopback's")
	}
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return site{"http://" + l.Addr().String() + "/", fmt.Sprintf("%x", sha256.Sum256(body))}
}
