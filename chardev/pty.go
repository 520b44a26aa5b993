package chardev

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// PTY is a Port whose other end is a pseudo-terminal, in raw mode: who opens its
// path is connected. While nobody has it open, what is written is dropped.
type PTY struct {
	teller
	fd        *FD // the master, which is ours
	path      string
	connected atomic.Bool
}

var _ Plug = (*PTY)(nil)

// look again, in milliseconds, whether somebody has opened the terminal: the
// master tells that by itself only of who leaves.
const lookAgain = 200

// NewPTY makes a pseudo-terminal that its owner alone may open (pts(4)).
func NewPTY() (*PTY, error) {
	p, err := openPTY()
	if err != nil {
		return nil, fmt.Errorf("pty: %w", err)
	}
	return p, nil
}

func openPTY() (*PTY, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	path, err := prepare(master)
	if err != nil {
		return nil, errors.Join(err, unix.Close(master))
	}
	f, err := NewFD(master, master)
	if err != nil {
		return nil, errors.Join(err, unix.Close(master))
	}
	f.owned = true
	return &PTY{fd: f, path: path}, nil
}

// prepare unlocks the terminal behind master, makes it raw and returns its path.
// It is opened once: only from then on does the master know of nobody there.
func prepare(master int) (path string, err error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return "", err
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return "", err
	}
	path = fmt.Sprintf("/dev/pts/%d", n)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	// What cfmakeraw(3) does.
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return path, unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// Path returns the terminal's name, such as /dev/pts/3.
func (p *PTY) Path() string { return p.path }

// OnConnect implements Plug. Who comes is noticed by a Read that waits.
func (p *PTY) OnConnect(f func(connected bool)) {
	p.to(f)
	if p.connected.Load() {
		p.say(true)
	}
}

// Connected implements Plug, as of the last look.
func (p *PTY) Connected() bool { return p.connected.Load() }

func (p *PTY) plugged(connected bool) {
	p.connected.Store(connected)
	p.say(connected)
}

// Read implements Port. It goes on with the next who opens the terminal.
func (p *PTY) Read(b []byte) (int, error) {
	if err := p.fd.enter(); err != nil {
		return 0, err
	}
	defer p.fd.leave()
	wait := 0 // at first whoever is there is noticed
	for {
		got, err := p.fd.poll(p.fd.in, unix.POLLIN, wait)
		if err != nil {
			return 0, err
		}
		wait = -1
		if got&unix.POLLIN != 0 {
			if n, err := unix.Read(p.fd.in, b); err == nil && n > 0 {
				p.plugged(true)
				return n, nil
			}
		}
		if got&(unix.POLLHUP|unix.POLLERR) == 0 {
			p.plugged(true)
			continue
		}
		p.plugged(false)
		if _, err := p.fd.poll(-1, 0, lookAgain); err != nil {
			return 0, err
		}
		wait = 0
	}
}

// Write implements Port.
func (p *PTY) Write(b []byte) (int, error) {
	if err := p.fd.enter(); err != nil {
		return 0, err
	}
	defer p.fd.leave()
	for done := 0; done < len(b); {
		got, err := p.fd.poll(p.fd.out, unix.POLLOUT, -1)
		if err != nil {
			return done, err
		}
		if got&(unix.POLLHUP|unix.POLLERR) != 0 {
			break // nobody is there
		}
		n, err := unix.Write(p.fd.out, b[done:min(len(b), done+pipeBuf)])
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EIO) {
			return done, fmt.Errorf("pty: %w", os.NewSyscallError("write", err))
		}
		done += max(n, 0)
	}
	return len(b), nil
}

// Close implements Port; the terminal is gone with it.
func (p *PTY) Close() error { return p.fd.Close() }
