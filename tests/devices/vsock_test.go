package devices

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/spec"
)

// peer builds the guest's program.
func peer(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "peer")
	cmd := exec.Command("go", "build", "-o", path, "./peer")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// connect reaches a port of the guest as a program of the host does.
func connect(path string, port int) (*net.UnixConn, *bufio.Reader, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
	if err != nil {
		return nil, nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	_, err = fmt.Fprintf(c, "CONNECT %d\n", port)
	if err == nil {
		var line string
		if line, err = r.ReadString('\n'); err == nil && !strings.HasPrefix(line, "OK ") {
			err = fmt.Errorf("answer %q", line)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c, r, nil
}

// TestVSock connects programs of host and guest both ways; all bytes arrive.
func TestVSock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	v := bootWith(t, []string{"vmw_vsock_virtio_transport"}, map[string]string{peer(t): "/bin/peer"}, func(m *spec.Machine) {
		m.VSock = spec.VSock{CID: 42, Socket: path}
	})
	v.order("/bin/peer echo 1234 >/dev/ttyS0 2>&1 & :")

	if c, _, err := connect(path, 99); err == nil {
		t.Error("somebody listens on port 99")
		_ = c.Close()
	}
	for begun := time.Now(); ; {
		c, _, err := connect(path, 1234)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Since(begun) > patience {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := echoed(path, 1<<20); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()

	const size = 16 << 20
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + "_52"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		sum := sha256.New()
		if n, err := io.Copy(sum, c); err != nil || n != size {
			t.Errorf("%d bytes came: %v", n, err)
		}
		_, _ = io.WriteString(c, hex.EncodeToString(sum.Sum(nil)))
	}()
	begun := time.Now()
	v.order("/bin/peer send 52 %d", size)
	t.Logf("%d MiB from the guest at %.0f MiB/s", size>>20, size/float64(mib)/time.Since(begun).Seconds())
	if out := v.order("/bin/peer send 53 1 || true"); !strings.Contains(out, "reset") {
		t.Errorf("nobody listens on port 53: %s", out)
	}
}

// echoed sends n bytes to the guest's echo and compares what comes back.
func echoed(path string, n int) error {
	c, r, err := connect(path, 1234)
	if err != nil {
		return err
	}
	defer c.Close()
	want := make([]byte, n)
	_, _ = rand.Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(r)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(got, want):
		return fmt.Errorf("%d bytes came back, not the %d that were sent", len(got), len(want))
	}
	return <-sent
}
