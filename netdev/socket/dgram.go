package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/netdev"
)

// Datagram is a port whose frames are datagrams, without headers, of a Unix or a UDP socket.
type Datagram struct {
	conn   net.PacketConn
	peer   unix.Sockaddr // nil: the socket is connected
	own    string        // a Unix socket's name, which goes with the port
	closed atomic.Bool

	mu     sync.Mutex
	out    sender
	pieces [][]byte
}

// receiveBuffer is what a UDP socket is to hold, in bytes, if the host allows.
const receiveBuffer = 4 << 20

// NewDatagram makes the port: frames come to local and go to remote. If remote is a
// group's address, frames come from all of the group, and local says by which of the
// host's addresses, if any. A local descriptor is a socket that may be connected.
func NewDatagram(local, remote Address) (*Datagram, error) {
	d := &Datagram{}
	var err error
	switch {
	case local.Network == "fd":
		err = d.inherit(local.FD)
	case remote.Network == "unix":
		d.peer = &unix.SockaddrUnix{Name: remote.Path}
		err = d.bindUnix(local.Path)
	default:
		err = d.bindInet(local, remote)
	}
	if err == nil {
		err = d.prepare()
	}
	if err != nil {
		if d.conn != nil {
			err = errors.Join(err, d.conn.Close())
		}
		return nil, fmt.Errorf("netdev/socket: %s to %s: %w", local, remote, err)
	}
	return d, nil
}

func (d *Datagram) inherit(fd int) error {
	f := file(fd)
	defer f.Close()
	var err error
	d.conn, err = net.FilePacketConn(f)
	return err
}

// bindUnix makes the socket at path. One that a process left there is replaced.
func (d *Datagram) bindUnix(path string) error {
	if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	d.conn, d.own = c, path
	return os.Chmod(path, 0o600)
}

// bindInet makes a UDP socket, or one of a group.
func (d *Datagram) bindInet(local, remote Address) error {
	to, err := net.ResolveUDPAddr("udp", remote.String())
	if err != nil {
		return err
	}
	if d.peer, err = sockaddr(to); err != nil {
		return err
	}
	if to.IP.IsMulticast() {
		return d.join(to, local)
	}
	at, err := net.ResolveUDPAddr("udp", local.String())
	if err != nil {
		return err
	}
	d.conn, err = net.ListenUDP("udp", at)
	return err
}

// join makes a socket of a group, which other processes of this host may be of too.
func (d *Datagram) join(group *net.UDPAddr, local Address) error {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(err, cerr)
	}}
	c, err := config.ListenPacket(context.Background(), "udp4", group.String())
	if err != nil {
		return err
	}
	d.conn = c
	request := &unix.IPMreq{Multiaddr: [4]byte(group.IP.To4())}
	if local.Host != "" {
		ip := net.ParseIP(local.Host).To4()
		if ip == nil {
			return fmt.Errorf("%s is no IPv4 address of this host", local.Host)
		}
		request.Interface = [4]byte(ip)
	}
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptIPMreq(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, request)
		if err == nil {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1)
		}
		if err == nil && local.Host != "" {
			err = unix.SetsockoptInet4Addr(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, request.Interface)
		}
	})
	return errors.Join(err, cerr)
}

func sockaddr(a *net.UDPAddr) (unix.Sockaddr, error) {
	if ip := a.IP.To4(); ip != nil {
		return &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}, nil
	}
	if len(a.IP) != 16 {
		return nil, fmt.Errorf("port %s has no host", strconv.Itoa(a.Port))
	}
	zone := 0
	if a.Zone != "" {
		i, err := net.InterfaceByName(a.Zone)
		if err != nil {
			return nil, err
		}
		zone = i.Index
	}
	return &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP), ZoneId: uint32(zone)}, nil
}

func (d *Datagram) prepare() error {
	if u, ok := d.conn.(*net.UDPConn); ok {
		_ = u.SetReadBuffer(receiveBuffer)
	}
	var err error
	d.out, err = newSender(d.conn)
	d.out.peer = d.peer
	return err
}

// Receive implements netdev.Port.
func (d *Datagram) Receive(p []byte) (int, error) {
	clear(p[:netdev.HeaderSize])
	for {
		n, _, err := d.conn.ReadFrom(p[netdev.HeaderSize:])
		switch {
		case err == nil && n > 0:
			return netdev.HeaderSize + n, nil
		case d.closed.Load():
			return 0, io.EOF
		case err == nil, passes(err):
		default:
			return 0, fmt.Errorf("netdev/socket: %w", err)
		}
	}
}

// passes reports whether an error is what somebody on the way said, by ICMP, of a frame of
// ours: who is not there now may come yet, and anybody may say so.
func passes(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.EMSGSIZE, unix.EPROTO:
		return true
	}
	return false
}

// Send implements netdev.Port. A peer that is not there, or takes nothing, has no frame.
func (d *Datagram) Send(frame [][]byte) error {
	if d.closed.Load() {
		return net.ErrClosed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pieces = strip(d.pieces[:0], frame)
	if length(d.pieces) >= minFrame {
		_, _ = d.out.write(merged(d.pieces)) // whatever it says, the frame is sent or lost
	}
	clear(d.pieces)
	return nil
}

// Close implements netdev.Port.
func (d *Datagram) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	err := d.conn.Close()
	if d.own != "" {
		if rerr := os.Remove(d.own); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
