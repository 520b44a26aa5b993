package pcap

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/netdev"
	"berth/netdev/netdevtest"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.pcap")
	p, err := Create(path, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	out := netdevtest.WithHeader(netdevtest.Frame([6]byte{2}, [6]byte{4}, 60))
	in := netdevtest.WithHeader(netdevtest.Frame([6]byte{4}, [6]byte{2}, longest+10), 1, 1)
	if !p.Out([][]byte{out[:5], out[5:30], out[30:]}) || !p.In(in) || !p.Out(nil) {
		t.Error("a frame was dropped")
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	p.In(in)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ne := binary.NativeEndian
	if want := []byte{2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0}; ne.Uint32(b) != magic || !bytes.Equal(b[4:24], want) {
		t.Errorf("header % x", b[:24])
	}
	b = b[24:]
	for i, want := range [][]byte{out[netdev.HeaderSize:], in[netdev.HeaderSize:], nil} {
		at := time.Unix(int64(ne.Uint32(b)), int64(ne.Uint32(b[4:]))*1000)
		if d := time.Since(at); d < 0 || d > time.Minute {
			t.Errorf("frame %d at %s", i, at)
		}
		kept := want[:min(len(want), longest)]
		if n := int(ne.Uint32(b[8:])); n != len(kept) || int(ne.Uint32(b[12:])) != len(want) || !bytes.Equal(b[16:16+n], kept) {
			t.Errorf("frame %d: %d bytes of %d", i, n, ne.Uint32(b[12:]))
		}
		b = b[16+len(kept):]
	}
	if len(b) != 0 {
		t.Errorf("%d more bytes", len(b))
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// A disk that is full ends the capture, not the network.
func TestFullDisk(t *testing.T) {
	if _, err := Create("/dev/full", nil); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("%v", err)
	}
	said := 0
	p, err := Create(filepath.Join(t.TempDir(), "f"), func(error) { said++ })
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = p.f.Close()
	p.f = full
	for range 3 {
		if !p.In(make([]byte, 100)) {
			t.Error("a frame was dropped")
		}
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
}

// A port whose frames are kept is a port.
func TestPort(t *testing.T) {
	netdevtest.Conformance(t, func(t testing.TB) (netdev.Port, netdevtest.Far) {
		p := netdevtest.NewPipe(netdev.Offloads{})
		f, err := Create(filepath.Join(t.TempDir(), "f"), func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		port := netdev.Around(p, f)
		t.Cleanup(func() { _ = port.Close() })
		return port, p.Far()
	})
}
