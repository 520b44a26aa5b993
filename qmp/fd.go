package qmp

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFDs is how many descriptors one message may bring: the kernel's SCM_MAX_FD.
const maxFDs = 253

// descriptors are those that came with the latest bytes of a Unix socket.
type descriptors struct {
	mu  sync.Mutex
	fds []int
}

// read is conn.Read that keeps descriptors.
func (d *descriptors) read(conn net.Conn, p []byte) (int, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return conn.Read(p)
	}
	oob := make([]byte, unix.CmsgSpace(maxFDs*4))
	n, oobn, _, _, err := u.ReadMsgUnix(p, oob)
	if err != nil {
		return 0, err
	}
	if fds := parseFDs(oob[:oobn]); len(fds) > 0 {
		d.close()
		d.mu.Lock()
		d.fds = fds
		d.mu.Unlock()
	}
	return n, err
}

func parseFDs(oob []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds
}

func (d *descriptors) take() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.fds) == 0 {
		return -1
	}
	fd := d.fds[0]
	d.fds = d.fds[1:]
	return fd
}

func (d *descriptors) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, fd := range d.fds {
		_ = unix.Close(fd)
	}
	d.fds = nil
}
