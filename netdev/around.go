package netdev

import "errors"

// Between is something on the cable of a port. Frames have headers. Its methods are called
// by several goroutines at a time.
type Between interface {
	// Out is shown a frame from the guest, In one for it; false drops the frame.
	Out(frame [][]byte) bool
	In(frame []byte) bool
	// Close ends what Out and In wait for, and is called before the port is closed.
	Close() error
}

// Around returns port with b on the cable, of all ways if it has several. It can do what
// port can; b is closed with it.
func Around(port Port, b Between) Port {
	a := &around{Port: port, b: b}
	if m, ok := port.(Multiqueue); ok {
		for _, w := range m.Ports() {
			a.ways = append(a.ways, &around{Port: w, b: b})
		}
	} else {
		a.ways = []Port{a}
	}
	return a
}

type around struct {
	Port
	b    Between
	ways []Port
}

func (a *around) Send(frame [][]byte) error {
	if !a.b.Out(frame) {
		return nil
	}
	return a.Port.Send(frame)
}

func (a *around) Receive(p []byte) (int, error) {
	for {
		n, err := a.Port.Receive(p)
		if err != nil || a.b.In(p[:n]) {
			return n, err
		}
	}
}

// Close implements Port.
func (a *around) Close() error { return errors.Join(a.b.Close(), a.Port.Close()) }

// Offloads implements Offloader.
func (a *around) Offloads() Offloads {
	if o, ok := a.Port.(Offloader); ok {
		return o.Offloads()
	}
	return Offloads{}
}

// SetOffloads implements Offloader.
func (a *around) SetOffloads(set Offloads) error {
	if o, ok := a.Port.(Offloader); ok {
		return o.SetOffloads(set)
	}
	return nil
}

// Ports implements Multiqueue.
func (a *around) Ports() []Port { return a.ways }

// Use implements Multiqueue.
func (a *around) Use(n int) error {
	if m, ok := a.Port.(Multiqueue); ok {
		return m.Use(n)
	}
	return nil
}

// Hasten has nothing on the cable hold frames back while it is on (virtio.Hastener).
func (a *around) Hasten(on bool) {
	for _, x := range []any{a.b, a.Port} {
		if h, ok := x.(interface{ Hasten(on bool) }); ok {
			h.Hasten(on)
		}
	}
}
