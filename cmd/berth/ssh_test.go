package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"berth/rundir"
	"berth/spec"
)

func TestForwardedWayIn(t *testing.T) {
	for text, want := range map[string]string{
		"tcp:127.0.0.1:2222-:22": "127.0.0.1 2222", "tcp::2222-10.0.2.15:22": "127.0.0.1 2222", "tcp:0.0.0.0:22-:22": "127.0.0.1 22",
		"tcp:[::1]:2222-:22": "::1 2222", "udp::2222-:22": "", "tcp::2222-:80": "", "unix:/s-:22": "", "nonsense": "",
	} {
		got := ""
		if w := forwarded(spec.NIC{UserNet: spec.UserNet{HostFwd: spec.Repeated{"tcp::80-:80", text}}}); w != nil {
			got = w.host + " " + w.port
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestSSHArguments(t *testing.T) {
	key := filepath.Join(t.TempDir(), "id")
	v := rundir.VM{Name: "web"}
	w := way{host: "127.0.0.1", port: "2222"}
	args := sshArguments(&v, &w, "op", []string{"uptime", "-p"})
	if !slices.Equal(args[len(args)-7:], []string{"-p", "2222", "-l", "op", "127.0.0.1", "uptime", "-p"}) || !slices.Contains(args, "HostKeyAlias=web") {
		t.Errorf("%q", args)
	}
	v.Spec.CloudInit.SSHKey = key + ".pub"
	if slices.Contains(sshArguments(&v, &w, "", nil), "-i") {
		t.Error("a private key that is not there is given")
	}
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	args = sshArguments(&v, &w, "", nil)
	if i := slices.Index(args, "-i"); i < 0 || args[i+1] != key {
		t.Errorf("%q", args)
	}
}
