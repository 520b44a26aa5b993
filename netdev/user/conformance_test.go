package user

import (
	"io"
	"os"
	"testing"
	"time"

	"berth/netdev"
	"berth/netdev/netdevtest"
)

// wire is the end of the cable that is inside the network.
type wire struct {
	n      *Network
	frames chan []byte
}

func (w wire) Send(f []byte) error {
	w.n.link.push(netdevtest.WithHeader(f))
	return nil
}

func (w wire) Receive(p []byte) (int, error) {
	select {
	case f := <-w.frames:
		return copy(p, f), nil
	case <-w.n.ctx.Done():
		return 0, io.EOF
	case <-time.After(5 * time.Second):
		return 0, os.ErrDeadlineExceeded
	}
}

func TestConformance(t *testing.T) {
	netdevtest.Conformance(t, func(t testing.TB) (netdev.Port, netdevtest.Far) {
		w := wire{frames: make(chan []byte, 4096)}
		n, err := New(Config{UserLayout: layout(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		n.stray = func(f []byte) {
			select {
			case w.frames <- f:
			default:
			}
		}
		w.n = n
		return n, w
	})
}
