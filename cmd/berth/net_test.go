package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"berth/tests/guest"
)

// outside is an address of this host that is not loopback's: a guest gets to that alone.
func outside(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr().String()
		}
	}
	t.Skip("this host has no address of IPv4 but loopback's")
	return ""
}

// listenOutside listens at an address that guests get to.
func listenOutside(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(outside(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// freePort is a port of loopback's that nobody has just now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestUserNetworkOnSoft boots Debian's kernel on a user network. It gets its addresses, a name,
// a file of the host's, an echo, and somebody from outside gets a file of its own.
func TestUserNetworkOnSoft(t *testing.T) {
	file := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{1}).Read(file)
	web := &httptest.Server{Listener: listenOutside(t), Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(file) })}}
	web.Start()
	defer web.Close()
	echo := listenOutside(t)
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	in := freePort(t)
	g := startSoft(t, guest.Need(t).Initrd, "net", "--nic", fmt.Sprintf("user,hostname=vm,hostfwd=tcp:127.0.0.1:%d-:80", in))
	step := func(want string) []string {
		t.Helper()
		_, groups, err := g.hand.Expect(`BERTH-NET `+want+`\r\n`, patience)
		if err != nil {
			t.Fatalf("%v\n%s%s", err, g.hand.Said(), g.errs.String())
		}
		return groups
	}
	say := func(line string) {
		t.Helper()
		if err := g.hand.Type(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	step(`lease 10\.0\.2\.15/24 10\.0\.2\.2 10\.0\.2\.3 vm`)
	step(`ipv6 via fe80::2`)
	step(`ping ok`)
	say(name())
	step(`name ok`)
	say(web.URL + "/file")
	if got := step(`fetched ([0-9a-f]+)`)[1]; got != fmt.Sprintf("%x", sha256.Sum256(file)) {
		t.Errorf("the file came as %s", got)
	}
	host, port, _ := net.SplitHostPort(echo.Addr().String())
	say(host + " " + port)
	step(`echo ok`)
	want := step(`serving ([0-9a-f]+)`)[1]
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", in))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	r.Body.Close()
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); err != nil || got != want {
		t.Errorf("the guest's file came as %s, %d bytes, %v", got, len(b), err)
	}
	private, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	go func() {
		if c, err := private.Accept(); err == nil {
			_, _ = io.WriteString(c, "open\n")
			c.Close()
		}
	}()
	say(fmt.Sprint(private.Addr().(*net.TCPAddr).Port))
	step(`loopback closed`)
	step(`ok`)
	t.Logf("%.1f CPU-seconds", g.end(t))
}

// name is one that this host's name servers know; - is none.
func name() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	const known = "deb.debian.org"
	if _, err := net.DefaultResolver.LookupHost(ctx, known); err != nil {
		return "-"
	}
	return known
}
