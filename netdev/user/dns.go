package user

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// answerTime is how long one name server has for an answer, before the next one is asked.
const answerTime = 3 * time.Second

// hostResolvers are the name servers of /etc/resolv.conf, up to three as libc has it; without
// any the host's own.
func hostResolvers() []netip.AddrPort {
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return resolversOf("")
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 64<<10))
	return resolversOf(string(b))
}

func resolversOf(conf string) []netip.AddrPort {
	var all []netip.AddrPort
	for line := range strings.Lines(conf) {
		if w := strings.Fields(line); len(w) >= 2 && w[0] == "nameserver" && len(all) < 3 {
			if a, err := netip.ParseAddr(w[1]); err == nil {
				all = append(all, netip.AddrPortFrom(a, 53))
			}
		}
	}
	if len(all) == 0 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53))
	}
	return all
}

// query has the host's name servers answer the guest's, one after the other. What comes while
// maxQueries are under way is dropped: the guest asks again.
func (n *Network) query(f flow, p []byte) {
	select {
	case n.queries <- struct{}{}:
	default:
		return
	}
	q := append([]byte(nil), p...)
	if !n.background(func() {
		defer func() { <-n.queries }()
		n.ask(f, q)
	}) {
		<-n.queries
	}
}

func (n *Network) ask(f flow, q []byte) {
	if len(q) < 12 { // a header's size
		return
	}
	for _, server := range n.cfg.Resolvers() {
		b := buffers.Get().(*[65536]byte)
		size := exchange(n.ctx, server, q, b[:])
		if size > 0 {
			if r, err := n.route(f.far.Addr(), f.guest.Addr()); err == nil {
				n.sendUDP(r, f.far.Port(), f.guest.Port(), b[:size])
				r.Release()
			}
		}
		buffers.Put(b)
		if size > 0 || n.ctx.Err() != nil {
			return
		}
	}
}

// exchange asks one server, and puts its answer into b; 0: there is none.
func exchange(ctx context.Context, server netip.AddrPort, q, b []byte) int {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return 0
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.Write(q); err != nil {
		return 0
	}
	for {
		k, err := c.Read(b)
		switch {
		case err != nil:
			return 0
		case k >= 12 && b[0] == q[0] && b[1] == q[1] && b[2]&0x80 != 0:
			return k
		}
	}
}
