package chardev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// FD is a Port on two file descriptors, such as standard input and output. It
// waits in poll(2), so Close ends a blocked Read; it works for descriptors in
// blocking and non-blocking mode.
type FD struct {
	in, out int
	owned   bool   // in and out are closed with the port
	wake    [2]int // a pipe: readable once closed

	mu     sync.Mutex // guards what follows
	users  int        // calls in progress
	closed bool
}

// NewFD returns a port that reads from in and writes to out; either may be -1
// for none. The descriptors stay the caller's.
func NewFD(in, out int) (*FD, error) {
	f := &FD{in: in, out: out}
	if err := unix.Pipe2(f.wake[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("chardev: %w", os.NewSyscallError("pipe2", err))
	}
	return f, nil
}

// NewFile returns a port that writes to the file at path, which is made if it is not
// there, and begun anew if not more is to be appended, and has nothing to read. A FIFO
// must have a reader.
func NewFile(path string, more bool) (*FD, error) {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	if more {
		flags |= unix.O_APPEND
	} else {
		flags |= unix.O_TRUNC
	}
	out, err := unix.Open(path, flags, 0o600)
	if errors.Is(err, unix.ENXIO) {
		err = errors.New("nobody reads it")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f, err := NewFD(-1, out)
	if err != nil {
		return nil, errors.Join(err, unix.Close(out))
	}
	f.owned = true
	return f, nil
}

// NewFIFO returns a port on the FIFOs path.in, which it reads, and path.out, which
// it writes, or on path both ways where those are not there, as QEMU's pipe. What
// nobody reads yet stays in the FIFO; a full one holds the writer back.
func NewFIFO(path string) (*FD, error) {
	in, err := openFIFO(path + ".in")
	if errors.Is(err, unix.ENOENT) {
		if in, err = openFIFO(path); err != nil {
			return nil, err
		}
		return ownFDs(in, in)
	}
	if err != nil {
		return nil, err
	}
	out, err := openFIFO(path + ".out")
	if err != nil {
		return nil, errors.Join(err, unix.Close(in))
	}
	return ownFDs(in, out)
}

// openFIFO opens a FIFO such that neither opening it nor its end ever waits for another process.
func openFIFO(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("pipe %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return -1, errors.Join(fmt.Errorf("pipe %s: is not a FIFO: make one with mkfifo", path), unix.Close(fd))
	}
	return fd, nil
}

// ownFDs is NewFD with descriptors that become the port's.
func ownFDs(in, out int) (*FD, error) {
	f, err := NewFD(in, out)
	if err != nil {
		err = errors.Join(err, unix.Close(in))
		if out != in {
			err = errors.Join(err, unix.Close(out))
		}
		return nil, err
	}
	f.owned = true
	return f, nil
}

func (f *FD) enter() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.users++
	return nil
}

func (f *FD) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users--
	f.release()
}

// release closes the pipe, and what is ours, after Close, once nobody uses it.
func (f *FD) release() {
	if f.closed && f.users == 0 && f.wake[0] >= 0 {
		_ = unix.Close(f.wake[0])
		f.wake[0] = -1
		if f.owned {
			f.closeFDs()
		}
	}
}

func (f *FD) closeFDs() {
	_ = unix.Close(f.out)
	if f.in >= 0 && f.in != f.out {
		_ = unix.Close(f.in)
	}
}

// ready waits until fd has one of events; os.ErrClosed says that Close came first.
func (f *FD) ready(fd int, events int16) error {
	_, err := f.poll(fd, events, -1)
	return err
}

// poll waits until fd has one of events, or has ended, and returns what it has;
// after timeout milliseconds, if that is not negative, nothing. os.ErrClosed says
// that Close came first.
func (f *FD) poll(fd int, events int16, timeout int) (int16, error) {
	fds := []unix.PollFd{{Fd: int32(f.wake[0]), Events: unix.POLLIN}, {Fd: int32(fd), Events: events}}
	for {
		switch n, err := unix.Poll(fds, timeout); {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("chardev: %w", os.NewSyscallError("poll", err))
		case fds[0].Revents != 0:
			return 0, os.ErrClosed
		case fds[1].Revents != 0 || n == 0 && timeout >= 0:
			return fds[1].Revents, nil
		}
	}
}

// Read implements Port.
func (f *FD) Read(p []byte) (int, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.leave()
	for {
		if err := f.ready(f.in, unix.POLLIN); err != nil {
			return 0, err
		}
		switch n, err := unix.Read(f.in, p); {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return 0, fmt.Errorf("chardev: %w", os.NewSyscallError("read", err))
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write implements Port. Into a blocking descriptor it writes pieces that fit
// what poll calls writable, so that Close is noticed.
func (f *FD) Write(p []byte) (int, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.leave()
	if f.out < 0 {
		return len(p), nil
	}
	done := 0
	for done < len(p) {
		if err := f.ready(f.out, unix.POLLOUT); err != nil {
			return done, err
		}
		n, err := unix.Write(f.out, p[done:min(len(p), done+pipeBuf)])
		if err != nil && err != unix.EINTR && err != unix.EAGAIN {
			return done, fmt.Errorf("chardev: %w", os.NewSyscallError("write", err))
		}
		done += max(n, 0)
	}
	return done, nil
}

// pipeBuf is PIPE_BUF: what a pipe that polls writable takes without blocking.
const pipeBuf = 4096

// Close implements Port. Descriptors given to NewFD stay open.
func (f *FD) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		_ = unix.Close(f.wake[1]) // wake[0] polls as hung up
		f.release()
	}
	return nil
}
