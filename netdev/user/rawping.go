package user

import (
	"encoding/binary"
	"math/rand/v2"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// rawPing has a raw socket do what one of the kernel's ping sockets does: requests go
// out with an identifier of the flow's own, and only replies with it come in.
type rawPing struct {
	v4 bool
	id uint16
}

// pingSocket opens a socket for echo requests. net.ipv4.ping_group_range may not
// let this process have one; a privileged one has a raw socket then.
func pingSocket(family, proto int) (fd int, raw *rawPing, err error) {
	const flags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|flags, proto); err == nil {
		return fd, nil, nil
	}
	fd, err = unix.Socket(family, unix.SOCK_RAW|flags, proto)
	return fd, &rawPing{v4: family == unix.AF_INET, id: uint16(rand.Uint32())}, err
}

// request is the guest's message as it goes out. The kernel makes IPv6's checksum.
func (r *rawPing) request(p []byte) []byte {
	m := append([]byte(nil), p...)
	binary.BigEndian.PutUint16(m[4:], r.id)
	if r.v4 {
		m[2], m[3] = 0, 0
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
	}
	return m
}

// reply is the message in what came in, or nil if it is for somebody else.
func (r *rawPing) reply(p []byte) []byte {
	if r.v4 { // with its IP header in front
		if len(p) < header.IPv4MinimumSize || len(p) < int(header.IPv4(p).HeaderLength()) {
			return nil
		}
		p = p[header.IPv4(p).HeaderLength():]
	}
	if len(p) < header.ICMPv4MinimumSize || binary.BigEndian.Uint16(p[4:]) != r.id {
		return nil
	}
	return p
}
