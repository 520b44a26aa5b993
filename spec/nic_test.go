package spec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNIC(t *testing.T) {
	inet := func(host, port string) SocketAddress { return SocketAddress{Type: "inet", Host: host, Port: port} }
	for in, want := range map[string]NIC{
		"none": {Type: "none"},
		"tap,ifname=tap0,script=no,downscript=no,model=virtio-net-pci,macaddr=52:54:00:00:00:01": {Type: "tap", IfName: "tap0", Model: "virtio", MAC: "52:54:00:00:00:01"},
		"type=tap,fds=3:4,vhost=off":                     {Type: "tap", FDs: FDs{3, 4}},
		"tap,fd=3":                                       {Type: "tap", FDs: FDs{3}},
		"bridge,br=br0,mtu=9000,queues=2":                {Type: "bridge", Bridge: "br0", MTU: 9000, Queues: 2},
		"stream,addr.type=unix,addr.path=/a,,b,server":   {Type: "stream", Server: true, Addr: SocketAddress{Type: "unix", Path: "/a,b"}},
		"socket,listen=:1234":                            {Type: "stream", Server: true, Addr: inet("", "1234")},
		"socket,id=n,connect=[::1]:1234":                 {Type: "stream", ID: "n", Addr: inet("::1", "1234")},
		"socket,localaddr=127.0.0.1:1,udp=127.0.0.1:2":   {Type: "dgram", Local: inet("127.0.0.1", "1"), Remote: inet("127.0.0.1", "2")},
		"socket,mcast=230.0.0.1:1234":                    {Type: "dgram", Remote: inet("230.0.0.1", "1234")},
		"dgram,local.path=a,remote.path=b,bps_in=10M":    {Type: "dgram", Local: SocketAddress{Path: "a"}, Remote: SocketAddress{Path: "b"}, Limits: FrameLimits{BPSIn: 10 << 20}},
		"stream,addr.path=a,limits.pps-out=5,pcap=f.cap": {Type: "stream", Addr: SocketAddress{Path: "a"}, Limits: FrameLimits{PPSOut: 5}, Pcap: "f.cap"},
	} {
		got, err := ParseNIC(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
	for in, want := range map[string]string{
		"":                        "use user, tap",
		"brigde,br=a":             `did you mean "bridge"?`,
		"mac=1":                   "no type",
		"tap,script=/etc/qemu-up": "script=no",
		"socket,listen=1234":      "give HOST:PORT",
		"tap,model=e1000":         `"e1000" is not known: use virtio`,
		"tap,fds=a":               "not the number",
		"tap,ifnam=a":             `did you mean "ifname"?`,
		"tap,vhost=on":            "leave it out",
		"tap,queues=0":            "at least 1 is needed",
	} {
		if _, err := ParseNIC(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseNIC(%q): %v; want %q", in, err, want)
		}
	}
}

// machineWith is a machine with NICs as they are typed, completed.
func machineWith(t *testing.T, name string, nics ...string) *Machine {
	t.Helper()
	m := Default()
	m.Name, m.Boot.Kernel = name, "k"
	for _, s := range nics {
		n, err := ParseNIC(s)
		if err != nil {
			t.Fatal(err)
		}
		m.NICs = append(m.NICs, n)
	}
	if err := m.Complete(); err != nil {
		t.Fatal(err)
	}
	return &m
}

func TestNICsAreChecked(t *testing.T) {
	for in, want := range map[string]string{
		"tap,mac=52:54:00:12:34":                    "six bytes",
		"tap,mac=53:54:00:12:34:56":                 "first byte must be even",
		"tap,mac=00:00:00:00:00:00":                 "is no address",
		"tap,mtu=67":                                "68 to 65535",
		"tap,queues=17":                             "1 to 16",
		"tap,id=1":                                  "a letter first",
		"tap,ifname=abcdefghijklmnop":               "up to 15",
		"tap,fds=3:4,queues=3":                      "one a queue",
		"tap,fds=3,br=a":                            "leave ifname and br out",
		"tap,server":                                "server says nothing of type tap: it belongs to stream",
		"stream,ifname=a":                           "ifname says nothing of type stream: it belongs to tap and bridge",
		"bridge":                                    "br=NAME",
		"stream":                                    "addr.path=PATH",
		"stream,addr.type=inet,addr.port=70000":     "up to 65535",
		"stream,addr.path=a,addr.port=1":            "more than type unix needs",
		"stream,server,addr.path=a,reconnect=1":     "reconnect says nothing",
		"stream,addr.type=fd,addr.str=x":            "number of an open descriptor",
		"dgram":                                     "no address",
		"dgram,local.path=a":                        "needed both",
		"dgram,remote.host=127.0.0.1,remote.port=1": "needed both",
		"dgram,local.path=a,remote.host=h,remote.port=1": "different types",
		"tap,bps_in_burst=1":                             "says nothing without limits.bps-in",
	} {
		m := machineWith(t, "a", in)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", in, err, want)
		}
	}
	for _, in := range [][]string{
		{"tap"}, {"bridge,br=a"}, {"socket,listen=:1"}, {"socket,mcast=230.0.0.1:1"}, {"dgram,local.type=fd,local.str=3"}, {"none"}, {"user", "user", "tap"},
	} {
		if err := machineWith(t, "a", in...).Validate(); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
	for want, in := range map[string][]string{
		"that of another NIC": {"tap,mac=52:54:00:00:00:01", "tap,mac=52:54:00:00:00:01"},
		"of that id already":  {"tap,id=a", "tap,id=a"},
		"at most 8":           {"tap", "tap", "tap", "tap", "tap", "tap", "tap", "tap", "tap"},
	} {
		if err := machineWith(t, "a", in...).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", in, err, want)
		}
	}
}

// A NIC's address follows from the VM's name and the NIC's place, and differs from all others'.
func TestGeneratedMAC(t *testing.T) {
	a, b := machineWith(t, "web", "tap", "tap"), machineWith(t, "db", "tap")
	if again := machineWith(t, "web", "tap", "tap"); a.NICs[0].MAC != again.NICs[0].MAC {
		t.Error("another address at the next start")
	}
	if a.NICs[0].MAC == a.NICs[1].MAC || a.NICs[0].MAC == b.NICs[0].MAC || !strings.HasPrefix(a.NICs[0].MAC, "52:54:00:") {
		t.Errorf("%s, %s, %s", a.NICs[0].MAC, a.NICs[1].MAC, b.NICs[0].MAC)
	}
	if taken := machineWith(t, "web", "tap", "tap,mac="+a.NICs[0].MAC); taken.NICs[0].MAC == a.NICs[0].MAC {
		t.Error("an address that was given is generated too")
	}
	if a.NICs[0].ID != "net0" || a.NICs[1].ID != "net1" {
		t.Errorf("IDs %s, %s", a.NICs[0].ID, a.NICs[1].ID)
	}
	if n := machineWith(t, "web", "none").NICs; n != nil {
		t.Errorf("none is %v", n)
	}
}
