package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
)

// qmpClient is a QMP client that keeps the events, and a hand at the guest's console.
type qmpClient struct {
	*testing.T
	hand   *guest.Console
	conn   net.Conn
	in     *json.Decoder
	events []qmpMessage
}

type qmpMessage struct {
	Return json.RawMessage
	Error  *struct{ Class, Desc string }
	Event  string
	Data   map[string]any
}

func (c *qmpClient) next() (m qmpMessage) {
	c.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if err := c.in.Decode(&m); err != nil {
		c.Fatal(err)
	}
	return m
}

// call runs a command; wrong is its error, "" none.
func (c *qmpClient) call(command, arguments, wrong string) string {
	c.Helper()
	if arguments == "" {
		arguments = "{}"
	}
	fmt.Fprintf(c.conn, `{"execute": %q, "arguments": %s}`, command, arguments)
	for {
		m := c.next()
		switch {
		case m.Event != "":
			c.events = append(c.events, m)
			continue
		case m.Error != nil && (wrong == "" || !strings.Contains(m.Error.Desc, wrong)):
			c.Fatalf("%s %s: %s: %s, want %q", command, arguments, m.Error.Class, m.Error.Desc, wrong)
		case m.Error == nil && wrong != "":
			c.Fatalf("%s %s: no error, want %q", command, arguments, wrong)
		}
		return string(m.Return)
	}
}

// await returns once a device's deletion, or another event, has been said.
func (c *qmpClient) await(event, device string) {
	c.Helper()
	for {
		for i, m := range c.events {
			if m.Event == event && (device == "" || m.Data["device"] == device) {
				c.events = append(c.events[:i], c.events[i+1:]...)
				return
			}
		}
		c.events = append(c.events, c.next())
	}
}

// TestDevicesByQMP plugs disk, NIC and balloon in by QEMU's commands, and asks for them back,
// in a guest that looks; and in one that does not, which a reset takes them from.
func TestDevicesByQMP(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "qmp")
	g := startSoft(t, guest.InitrdWith(t, "virtio_balloon"), "orders", "--qmp", "unix:"+socket+",server=on,wait=off")
	if _, _, err := g.hand.Expect(`BERTH-ORDERS ready\r\n`, patience); err != nil {
		t.Fatalf("%v\n%s%s", err, g.hand.Said(), g.errs.String())
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &qmpClient{T: t, conn: conn, in: json.NewDecoder(conn), hand: g.hand}
	c.next() // the greeting
	c.call("qmp_capabilities", "", "")
	path, sum := randomImage(t)
	c.plugAndUnplug(path, sum)
	c.unplugOfNobody(path)
}

func (c *qmpClient) plugAndUnplug(path, sum string) {
	c.Helper()
	c.call("device_add", `{"driver": "virtio-blk-pci", "id": "d", "drive": "n"}`, "can't find value 'n'")
	c.call("blockdev-add", fmt.Sprintf(`{"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": %q}}`, path), "")
	c.call("device_add", `{"driver": "virtio-blk-pci", "id": "d", "drive": "n", "serial": "S1", "bus": "pci.2", "num-queues": "2"}`, "")
	c.call("device_add", `{"driver": "virtio-rng-pci", "id": "d"}`, "Duplicate device ID 'd'")
	c.call("blockdev-del", `{"node-name": "n"}`, "in use")
	c.until("[ -b /dev/vda ]")
	if got := c.order("cat /sys/block/vda/serial; dd if=/dev/vda bs=64k count=16 2>/dev/null | sha256sum"); !strings.HasPrefix(got, "S1"+sum) {
		c.Errorf("the disk reads %s", got)
	}
	c.call("netdev_add", `{"type": "user", "id": "u"}`, "")
	c.call("device_add", `{"driver": "virtio-net-pci", "id": "e", "netdev": "u", "mac": "52:54:00:12:34:56"}`, "")
	c.until("grep -q 52:54:00:12:34:56 /sys/class/net/eth0/address 2>/dev/null")
	c.call("query-balloon", "", "No balloon device has been activated")
	c.call("device_add", `{"driver": "virtio-balloon-pci", "id": "b", "deflate-on-oom": true, "free-page-reporting": "on"}`, "")
	c.until("ls -d /sys/bus/virtio/drivers/virtio_balloon/virtio* >/dev/null 2>&1")
	c.call("balloon", `{"value": 201326592}`, "")
	c.await("BALLOON_CHANGE", "")
	c.call("qom-set", `{"path": "/machine/peripheral/b", "property": "guest-stats-polling-interval", "value": 1}`, "")
	if s := c.call("qom-get", `{"path": "b", "property": "guest-stats"}`, ""); !strings.Contains(s, `"stat-total-memory"`) {
		c.Errorf("guest-stats: %s", s)
	}
	for _, id := range []string{"d", "e", "b"} {
		c.call("device_del", fmt.Sprintf(`{"id": %q}`, id), "")
		c.await("DEVICE_DELETED", id)
		c.call("device_del", fmt.Sprintf(`{"id": %q}`, id), "not found")
	}
	c.until("[ ! -e /sys/block/vda -a ! -e /sys/class/net/eth0 ]")
	c.call("netdev_del", `{"id": "u"}`, "")
	c.call("blockdev-del", `{"node-name": "n"}`, "")
}

// unplugOfNobody asks a halted guest, which does nothing, and resets it.
func (c *qmpClient) unplugOfNobody(path string) {
	c.Helper()
	c.call("blockdev-add", fmt.Sprintf(`{"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": %q}}`, path), "")
	c.call("device_add", `{"driver": "virtio-blk-pci", "id": "d", "drive": "n"}`, "")
	c.until("[ -b /dev/vda ]")
	c.call("stop", "", "")
	c.call("device_del", `{"id": "d"}`, "")
	c.call("device_del", `{"id": "d"}`, "already in the process of unplug")
	c.call("blockdev-del", `{"node-name": "n"}`, "in use")
	c.call("system_reset", "", "")
	c.await("DEVICE_DELETED", "d")
	c.call("blockdev-del", `{"node-name": "n"}`, "")
	c.call("cont", "", "")
	if _, _, err := c.hand.Expect(`BERTH-ORDERS ready\r\n`, patience); err != nil {
		c.Fatal(err)
	}
	c.until("[ ! -e /sys/block/vda ]")
	c.call("quit", "", "")
}

// order has the guest run a line of shell and returns what it said.
func (c *qmpClient) order(line string) string {
	c.Helper()
	out, err := c.hand.Run(line, patience)
	if err != nil {
		c.Fatalf("%v\n%s", err, c.hand.Said())
	}
	return strings.TrimSpace(out)
}

// until has the guest wait for a condition, which the shell says.
func (c *qmpClient) until(condition string) {
	c.Helper()
	c.order(fmt.Sprintf("n=0; until %s; do n=$((n + 1)); [ $n -lt 2000 ] || break; usleep 10000; done; %s", condition, condition))
}

// randomImage makes a raw image of 8 MiB, and returns the sum of its first.
func randomImage(t *testing.T) (path, sum string) {
	t.Helper()
	b := make([]byte, 1<<20)
	_, _ = rand.Read(b)
	path = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat(b, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, fmt.Sprintf("%x", sha256.Sum256(b))
}
