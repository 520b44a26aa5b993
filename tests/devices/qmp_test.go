package devices

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
)

// client is a QMP client that keeps the events.
type client struct {
	*testing.T
	conn   net.Conn
	in     *json.Decoder
	events []message
}

type message struct {
	Return json.RawMessage
	Error  *struct{ Class, Desc string }
	Event  string
	Data   map[string]any
}

func (c *client) next() (m message) {
	c.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if err := c.in.Decode(&m); err != nil {
		c.Fatal(err)
	}
	return m
}

// call runs a command; wrong is its error, "" none.
func (c *client) call(command, arguments, wrong string) string {
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
func (c *client) await(event, device string) {
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

// TestQMP plugs disk, NIC and balloon in by QEMU's commands, and asks for them back,
// in a guest that looks; and in one that does not, which a reset takes them from.
func TestQMP(t *testing.T) {
	dir := t.TempDir()
	berth := filepath.Join(dir, "berth")
	build := exec.Command("go", "build", "-o", berth, "berth/cmd/berth")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f := guest.Need(t)
	socket := filepath.Join(dir, "qmp")
	cmd := exec.Command(berth, "run", "--accel", "soft", "--memory", "256M", "--kernel", f.Kernel, "--initrd", guest.InitrdWith(t, "virtio_balloon"),
		"--append", "console=ttyS0 quiet berth.script=orders", "--qmp", "unix:"+socket+",server=on,wait=off")
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	v := &vm{T: t, hand: guest.NewConsole(screen, keys)}
	if _, _, err := v.hand.Expect(`BERTH-ORDERS ready\r\n`, patience); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{T: t, conn: conn, in: json.NewDecoder(conn)}
	c.next() // the greeting
	c.call("qmp_capabilities", "", "")
	path, sum := image(t)
	c.plugAndUnplug(v, path, sum)
	c.unplugOfNobody(v, path)
}

func (c *client) plugAndUnplug(v *vm, path, sum string) {
	c.Helper()
	c.call("device_add", `{"driver": "virtio-blk-pci", "id": "d", "drive": "n"}`, "can't find value 'n'")
	c.call("blockdev-add", fmt.Sprintf(`{"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": %q}}`, path), "")
	c.call("device_add", `{"driver": "virtio-blk-pci", "id": "d", "drive": "n", "serial": "S1", "bus": "pci.2", "num-queues": "2"}`, "")
	c.call("device_add", `{"driver": "virtio-rng-pci", "id": "d"}`, "Duplicate device ID 'd'")
	c.call("blockdev-del", `{"node-name": "n"}`, "in use")
	v.await("[ -b /dev/vda ]")
	if got := v.order("cat /sys/block/vda/serial; dd if=/dev/vda bs=64k count=16 2>/dev/null | sha256sum"); !strings.HasPrefix(got, "S1"+sum) {
		c.Errorf("the disk reads %s", got)
	}
	c.call("netdev_add", `{"type": "user", "id": "u"}`, "")
	c.call("device_add", `{"driver": "virtio-net-pci", "id": "e", "netdev": "u", "mac": "52:54:00:12:34:56"}`, "")
	v.await("grep -q 52:54:00:12:34:56 /sys/class/net/eth0/address 2>/dev/null")
	c.call("query-balloon", "", "No balloon device has been activated")
	c.call("device_add", `{"driver": "virtio-balloon-pci", "id": "b", "deflate-on-oom": true, "free-page-reporting": "on"}`, "")
	v.await("ls -d /sys/bus/virtio/drivers/virtio_balloon/virtio* >/dev/null 2>&1")
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
	v.await("[ ! -e /sys/block/vda -a ! -e /sys/class/net/eth0 ]")
	c.call("netdev_del", `{"id": "u"}`, "")
	c.call("blockdev-del", `{"node-name": "n"}`, "")
}

// unplugOfNobody asks a halted guest, which does nothing, and resets it.
func (c *client) unplugOfNobody(v *vm, path string) {
	c.Helper()
	c.call("blockdev-add", fmt.Sprintf(`{"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": %q}}`, path), "")
	c.call("device_add", `{"driver": "virtio-blk-pci", "id": "d", "drive": "n"}`, "")
	v.await("[ -b /dev/vda ]")
	c.call("stop", "", "")
	c.call("device_del", `{"id": "d"}`, "")
	c.call("device_del", `{"id": "d"}`, "already in the process of unplug")
	c.call("blockdev-del", `{"node-name": "n"}`, "in use")
	c.call("system_reset", "", "")
	c.await("DEVICE_DELETED", "d")
	c.call("blockdev-del", `{"node-name": "n"}`, "")
	c.call("cont", "", "")
	if _, _, err := v.hand.Expect(`BERTH-ORDERS ready\r\n`, patience); err != nil {
		c.Fatal(err)
	}
	v.await("[ ! -e /sys/block/vda ]")
	c.call("quit", "", "")
}
