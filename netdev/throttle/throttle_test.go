package throttle

import (
	"testing"
	"testing/synctest"
	"time"

	"berth/netdev"
	"berth/netdev/netdevtest"
)

// Frames pass at the rate, after what may pass at once.
func TestRates(t *testing.T) {
	frame := make([]byte, netdev.HeaderSize+1000)
	for name, c := range map[string]struct {
		limits   Limits
		out      bool
		n        int
		from, to time.Duration
	}{
		"nothing":            {Limits{}, false, 1000, 0, 0},
		"bytes in":           {Limits{BytesIn: Rate{100_000, 10_000}}, false, 110, 990 * time.Millisecond, 1010 * time.Millisecond},
		"bytes out":          {Limits{BytesOut: Rate{100_000, 10_000}}, true, 110, 990 * time.Millisecond, 1010 * time.Millisecond},
		"the other way":      {Limits{BytesOut: Rate{1000, 0}, PacketsOut: Rate{1, 1}}, false, 1000, 0, 0},
		"packets in":         {Limits{PacketsIn: Rate{100, 50}}, false, 250, 1980 * time.Millisecond, 2020 * time.Millisecond},
		"packets out":        {Limits{PacketsOut: Rate{100, 0}}, true, 110, 990 * time.Millisecond, 1010 * time.Millisecond},
		"the stricter one":   {Limits{PacketsIn: Rate{1000, 1}, BytesIn: Rate{100_000, 1}}, false, 101, 980 * time.Millisecond, 1010 * time.Millisecond},
		"more than a second": {Limits{BytesIn: Rate{100, 1}}, false, 4, 2 * time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(c.limits)
				begun := time.Now()
				for range c.n {
					if ok := c.out && l.Out([][]byte{frame[:20], frame[20:]}) || !c.out && l.In(frame); !ok {
						t.Error("dropped")
					}
				}
				if d := time.Since(begun); d < c.from || d > c.to {
					t.Errorf("%d frames took %s, not %s to %s", c.n, d, c.from, c.to)
				}
			})
		})
	}
}

// Idle time is saved up, as far as the burst goes.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Limits{PacketsIn: Rate{10, 5}})
		frame := make([]byte, netdev.HeaderSize+60)
		for range 3 {
			begun := time.Now()
			for range 6 {
				l.In(frame)
			}
			if d := time.Since(begun); d != 0 {
				t.Errorf("a burst took %s", d)
			}
			time.Sleep(time.Minute)
		}
	})
}

// Nothing is held back from a device that is to pause, and from one that is closed.
func TestHastenAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Limits{PacketsOut: Rate{1, 1}})
		frame := [][]byte{make([]byte, 100)}
		l.Out(frame)
		l.Out(frame)
		begun := time.Now()
		go func() {
			time.Sleep(100 * time.Millisecond)
			l.Hasten(true)
		}()
		l.Out(frame)
		if d := time.Since(begun); d != 100*time.Millisecond {
			t.Errorf("hastened after %s", d)
		}
		l.Out(frame)
		l.Hasten(false)
		begun = time.Now()
		go func() {
			time.Sleep(100 * time.Millisecond)
			_ = l.Close()
		}()
		l.Out(frame)
		if d := time.Since(begun); d != 100*time.Millisecond {
			t.Errorf("closed after %s", d)
		}
	})
}

// A limited port is a port.
func TestPort(t *testing.T) {
	netdevtest.Conformance(t, func(t testing.TB) (netdev.Port, netdevtest.Far) {
		p := netdevtest.NewPipe(netdev.Offloads{Checksum: true})
		port := netdev.Around(p, New(Limits{BytesIn: Rate{1 << 30, 0}, PacketsOut: Rate{1 << 20, 0}}))
		t.Cleanup(func() { _ = port.Close() })
		return port, p.Far()
	})
}
