package spec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUserNetKeys: QEMU's keys as they are typed, and the addresses that they mean.
func TestUserNetKeys(t *testing.T) {
	n, err := ParseNIC("user,id=n,net=10.9.0.0/16,dhcpstart=10.9.1.1,hostname=vm,dnssearch=a.org,dnssearch=b.org,restrict=on,ipv6-net=fd00:1::/64," +
		"hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:53-10.9.0.7:53,hostfwd=unix:/run/a-b-:80,guestfwd=tcp:10.9.0.4:1-cmd:cat -u,,,guestfwd=tcp::2-unix:/s-t")
	if err != nil {
		t.Fatal(err)
	}
	l, err := n.Layout()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join([]string{l.Net.String(), l.Host.String(), l.DNS.String(), l.First.String(), l.Net6.String(), l.Host6.String(), l.DNS6.String()}, " "),
		"10.9.0.0/16 10.9.0.2 10.9.0.3 10.9.1.1 fd00:1::/64 fd00:1::2 fd00:1::3"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	if diff := cmp.Diff(Repeated{"a.org", "b.org"}, n.DNSSearch); diff != "" {
		t.Error(diff)
	}
	in, out, err := n.Forwards(l)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range in {
		got = append(got, f.String())
	}
	for _, f := range out {
		got = append(got, f.Server.String()+" "+f.Command+f.Unix)
	}
	want := []string{
		"tcp:0.0.0.0:2222-10.9.1.1:22", "udp:127.0.0.1:53-10.9.0.7:53", "unix:/run/a-b-10.9.1.1:80",
		"10.9.0.4:1 cat -u,", "10.9.0.4:2 /s-t",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUserNetIsChecked(t *testing.T) {
	for in, want := range map[string]string{
		"user,net=10.0.2.0/30":                                  "/8 to /27",
		"user,net=fec0::/64":                                    "give a network such as 10.0.2.0/24",
		"user,net=127.0.0.0/8":                                  "not a network that a guest can have",
		"user,host=10.0.3.2":                                    "give an address within 10.0.2.0/24",
		"user,host=10.0.2.255":                                  "give an address within",
		"user,dns=10.0.2.2":                                     "dns 10.0.2.2 is host already",
		"user,ipv6-net=fd00::/48":                               "of /64 alone",
		"user,ipv4=off,ipv6=off":                                "leave one of them on",
		"user,hostfwd=tcp::22-192.168.1.1:22":                   "not one of its network",
		"user,guestfwd=tcp:10.0.2.2:1-cmd:a":                    "must be a free one",
		"user,guestfwd=tcp::1-cmd:a,guestfwd=tcp::1-cmd:b":      "given twice",
		"user,ipv4=off,hostfwd=tcp::22-:22":                     "not one of its network",
		"user,hostname=a b":                                     "hostname",
		"user,dnssearch=a..b":                                   "parts of up to 63 letters",
		"tap,hostfwd=tcp::22-:22":                               "hostfwd says nothing of type tap: it belongs to user",
		"user,hostfwd=22":                                       "write tcp:[HOSTADDR]:PORT-[GUESTADDR]:PORT",
		"user,hostfwd=tcp:22-:22":                               "give ADDRESS:PORT",
		"user,hostfwd=tcp::99999-:22":                           "a number up to 65535",
		"user,hostfwd=tcp:host:22-:22":                          "is not an IP address",
		"user,hostfwd=sctp::22-:22":                             "use tcp, udp, unix",
		"user,hostfwd=tcp::22-:0":                               "no port of the guest",
		"user,guestfwd=tcp:10.0.2.4:1":                          "write tcp:SERVER:PORT-",
		"user,guestfwd=tcp::1-chardev:a":                        "use tcp, unix, cmd",
		"user,guestfwd=tcp::1-tcp:host":                         "give HOST:PORT",
		"user,hostfwd=unix:" + strings.Repeat("a", 108) + "-:1": "1 to 107 bytes",
	} {
		n, err := ParseNIC(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		m := Default()
		m.Name, m.Boot.Kernel, m.NICs = "n", "k", []NIC{n}
		if err := m.Complete(); err == nil {
			err = m.Validate()
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q", in, err, want)
			}
		} else {
			t.Errorf("%s: %v", in, err)
		}
	}
}
