// Package rundir is the directory of a running VM, where other processes find its pid, sockets, spec and logs.
package rundir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/qmp"
	"berth/spec"
)

// A VM's directory is called as the VM, and holds:
//
//	lock      locked (flock) by the VM's process as long as it lives; in it, its pid
//	spec.json the completed spec
//	qmp       the socket of its QMP monitor, hmp that of the human one
//	console   the socket of its serial port, of a VM in the background
//	log       what berth said, console.log what the guest said, likewise
const (
	lockFile    = "lock"
	specFile    = "spec.json"
	QMPSocket   = "qmp"
	HMPSocket   = "hmp"
	Console     = "console"
	Log         = "log"
	ConsoleText = "console.log"
)

// ErrNotFound says that no VM of that name runs.
var ErrNotFound = errors.New("no VM of that name is running: berth ps lists those that are")

// Root returns the directory of this user's VMs: $BERTH_RUNTIME_DIR, else /run/berth
// of root, berth in $XDG_RUNTIME_DIR of others, /tmp/berth-UID where that is not set.
func Root() string {
	if d := os.Getenv("BERTH_RUNTIME_DIR"); d != "" {
		return d
	}
	if os.Getuid() == 0 {
		return "/run/berth"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "berth")
	}
	return fmt.Sprintf("/tmp/berth-%d", os.Getuid())
}

// Dir is a VM's directory, held by its process.
type Dir struct {
	path string
	lock *os.File
}

// Create makes the directory of the VM name under root. One that a VM left there
// which does not live any more is replaced; of a VM that lives it is an error.
func Create(root, name string) (*Dir, error) {
	if err := private(root); err != nil {
		return nil, err
	}
	for {
		d, err := lockDir(filepath.Join(root, name))
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("a VM %q is running already (berth ps): give this one another --name", name)
		case err != nil:
			return nil, err
		case !d.linked():
			_ = d.lock.Close() // somebody cleaned up before it was locked
			continue
		}
		if err := d.begin(); err != nil {
			return nil, errors.Join(err, d.Remove())
		}
		return d, nil
	}
}

// lockDir makes the directory if it is not there and locks it.
func lockDir(path string) (*Dir, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", lock.Name(), err), lock.Close())
	}
	return &Dir{path, lock}, nil
}

// linked reports that the file that is locked is the one that others find.
func (d *Dir) linked() bool {
	mine, err := d.lock.Stat()
	if err != nil {
		return false
	}
	found, err := os.Stat(d.lock.Name())
	return err == nil && os.SameFile(mine, found)
}

// private makes root, and refuses one that somebody else can write to.
func private(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(root, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: root, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s is not a directory that only its owner, this user, can write to", root)
	}
	return nil
}

// begin clears what another VM left and writes the pid.
func (d *Dir) begin() error {
	old, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, e := range old {
		if e.Name() != lockFile {
			if err := os.RemoveAll(d.Path(e.Name())); err != nil {
				return err
			}
		}
	}
	if err := d.lock.Truncate(0); err != nil {
		return err
	}
	_, err = d.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Path returns the path of one of the directory's files.
func (d *Dir) Path(file string) string { return filepath.Join(d.path, file) }

// WriteSpec keeps the VM's spec for others to read.
func (d *Dir) WriteSpec(m spec.Machine) error {
	b, err := m.JSON()
	if err != nil {
		return err
	}
	return os.WriteFile(d.Path(specFile), b, 0o600)
}

// Remove removes the directory: the VM has ended. A nil Dir is none.
func (d *Dir) Remove() error {
	if d == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(d.path), d.lock.Close())
}

// VM is a running VM as other processes see it.
type VM struct {
	Name  string
	PID   int
	Spec  spec.Machine
	Since time.Time
	path  string
}

// List returns the running VMs under root by name, and removes the directories of
// those that died.
func List(root string) ([]VM, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []VM
	for _, e := range entries {
		v, err := Find(root, e.Name())
		switch {
		case err == nil:
			list = append(list, *v)
		case !errors.Is(err, ErrNotFound):
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b VM) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// Find returns a running VM by its name, or ErrNotFound.
func Find(root, name string) (*VM, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	path := filepath.Join(root, name)
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		// Nobody holds it: its VM died. The directory goes while the lock is held, so
		// that it is nobody else's.
		return nil, errors.Join(fmt.Errorf("%s: %w", name, ErrNotFound), os.RemoveAll(path))
	}
	v := &VM{Name: name, path: path, Spec: spec.Default()}
	b, err := os.ReadFile(lock.Name())
	if err != nil {
		return nil, err
	}
	if v.PID, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound) // about to begin
	}
	if st, err := lock.Stat(); err == nil {
		v.Since = st.ModTime()
	}
	if err := v.Spec.ReadFile(v.Path(specFile)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound) // likewise
	}
	return v, nil
}

// Path returns the path of one of the VM's files.
func (v *VM) Path(file string) string { return filepath.Join(v.path, file) }

// Monitor connects to the VM's QMP monitor; events as with qmp.Dial.
func (v *VM) Monitor(ctx context.Context, events func(qmp.ClientEvent)) (*qmp.Client, error) {
	c, err := qmp.Dial(ctx, v.Path(QMPSocket), events)
	if err != nil {
		return nil, fmt.Errorf("%s: its monitor does not answer: %w", v.Name, err)
	}
	return c, nil
}

// Wait returns when the VM's process has ended, or ctx.
func (v *VM) Wait(ctx context.Context) error {
	fd, err := unix.PidfdOpen(v.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", v.Name, err)
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for %s: %w", v.Name, err)
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// Kill ends the VM's process without asking it.
func (v *VM) Kill() error {
	fd, err := unix.PidfdOpen(v.PID, 0)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	// The descriptor stands for one process; whether that is the VM's still is seen
	// by the lock that it holds.
	if now, err := Find(filepath.Dir(v.path), v.Name); err != nil || now.PID != v.PID {
		return nil
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}
