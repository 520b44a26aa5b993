package monitor

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/machine"
	"berth/qmp"
)

// descriptors are the files that clients have passed on: in sets, which disks name
// as "/dev/fdset/N", and by names of their own. Safe for concurrent use.
//
// A descriptor of a set stays until it is removed, or until no client is left and no
// disk has a copy of one of the set's; copies live as long as who opened them. Nothing
// is closed while the guest is halted, as with QEMU: who set the VM up may come again.
type descriptors struct {
	mu    sync.Mutex
	sets  []*fdSet // by ID
	named map[string]int
}

type fdSet struct {
	id     int64
	fds    []setFD
	copies int // that are open
}

type setFD struct {
	fd      int
	opaque  *string
	removed bool
}

type (
	fdSetInfo struct {
		ID  int64    `json:"fdset-id"`
		FDs []fdInfo `json:"fds"`
	}
	fdInfo struct {
		FD     int64   `json:"fd"`
		Opaque *string `json:"opaque"`
	}
	addFD struct {
		ID     *int64  `json:"fdset-id"`
		Opaque *string `json:"opaque"`
	}
	addedFD struct {
		ID int64 `json:"fdset-id"`
		FD int64 `json:"fd"`
	}
	removeFD struct {
		ID int64  `json:"fdset-id"`
		FD *int64 `json:"fd"`
	}
	namedFD struct {
		Name string `json:"fdname"`
	}
)

// descriptorCommands are those about descriptors that come over the socket.
func (m *Monitor) descriptorCommands() []qmp.Command {
	d := &m.descriptors
	return []qmp.Command{
		qmp.Define("add-fd", "Keeps the descriptor that comes with the command, in a new set or in one that there is. A disk's file \"/dev/fdset/N\" is a copy of the set's descriptor with the access mode that the disk needs.",
			func(c *qmp.Call, a *addFD) (addedFD, error) { return d.add(c.Session.TakeFD(), a) }),
		qmp.Define("remove-fd", "Gives up a set's descriptors, or one of them. Copies that disks have stay open.",
			func(_ *qmp.Call, a *removeFD) (qmp.None, error) { return qmp.None{}, d.remove(a, m.runs()) }),
		qmp.Define("query-fdsets", "The sets of descriptors.", func(*qmp.Call, *qmp.None) ([]fdSetInfo, error) { return d.list(), nil }),
		qmp.Define("getfd", "Keeps the descriptor that comes with the command under a name, in place of one that has it already.",
			func(c *qmp.Call, a *namedFD) (qmp.None, error) { return qmp.None{}, d.keep(c.Session.TakeFD(), a.Name) }),
		qmp.Define("closefd", "Closes the descriptor of a name.", func(_ *qmp.Call, a *namedFD) (none qmp.None, err error) {
			fd, err := d.take(a.Name)
			if err == nil {
				err = unix.Close(fd)
			}
			return none, err
		}),
	}
}

// runs reports that the guest is not halted.
func (m *Monitor) runs() (yes bool) {
	if m.vm == nil { // nothing has been attached
		return false
	}
	_ = m.vm.Do(func() error { // one that has ended does not run
		yes = m.vm.Status() == machine.Running
		return nil
	})
	return yes
}

// errNoFD is the answer to a command without the descriptor that it is about.
var errNoFD = fmt.Errorf("No file descriptor supplied via SCM_RIGHTS")

func (d *descriptors) add(fd int, a *addFD) (added addedFD, err error) {
	switch {
	case fd < 0:
		return added, errNoFD
	case a.ID != nil && *a.ID < 0:
		_ = unix.Close(fd) // nobody has it
		return added, fmt.Errorf("Parameter 'fdset-id' expects a non-negative value")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.set(a.ID)
	s.fds = append(s.fds, setFD{fd: fd, opaque: a.Opaque})
	return addedFD{s.id, int64(fd)}, nil
}

// set is the set with an ID, or a new one with the lowest that is free. mu is held.
func (d *descriptors) set(id *int64) *fdSet {
	free := int64(0)
	for _, s := range d.sets {
		if id != nil && s.id == *id {
			return s
		}
		if s.id == free {
			free++
		}
	}
	if id != nil {
		free = *id
	}
	s := &fdSet{id: free}
	d.sets = append(d.sets, s)
	slices.SortFunc(d.sets, func(a, b *fdSet) int { return cmp.Compare(a.id, b.id) })
	return s
}

func (d *descriptors) remove(a *removeFD, running bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := fmt.Sprintf("fdset-id:%d", a.ID)
	if a.FD != nil {
		what += fmt.Sprintf(", fd:%d", *a.FD)
	}
	missing := fmt.Errorf("File descriptor named '%s' not found", what)
	i := slices.IndexFunc(d.sets, func(s *fdSet) bool { return s.id == a.ID })
	if i < 0 {
		return missing
	}
	s, found := d.sets[i], a.FD == nil
	for k := range s.fds {
		if a.FD == nil || int64(s.fds[k].fd) == *a.FD {
			s.fds[k].removed, found = true, true
		}
	}
	if !found {
		return missing
	}
	d.clean(s, running, false)
	return nil
}

// clean closes what a set does not need any more, and drops a set that has nothing.
// mu is held.
func (d *descriptors) clean(s *fdSet, running, alone bool) {
	s.fds = slices.DeleteFunc(s.fds, func(f setFD) bool {
		if !running || !f.removed && (s.copies > 0 || !alone) {
			return false
		}
		_ = unix.Close(f.fd) // nothing was written through it
		return true
	})
	if len(s.fds) == 0 && s.copies == 0 {
		d.sets = slices.DeleteFunc(d.sets, func(x *fdSet) bool { return x == s })
	}
}

// alone is that no client is left.
func (d *descriptors) alone(running bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range slices.Clone(d.sets) {
		d.clean(s, running, true)
	}
}

// list describes the sets, the highest ID first, as QEMU does.
func (d *descriptors) list() (list []fdSetInfo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range slices.Backward(d.sets) {
		info := fdSetInfo{ID: s.id}
		for _, f := range s.fds {
			info.FDs = append(info.FDs, fdInfo{int64(f.fd), f.opaque})
		}
		list = append(list, info)
	}
	return list
}

// Open implements formats.DescriptorSets.
func (d *descriptors) Open(id int64, flags int) (*os.File, func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.sets, func(s *fdSet) bool { return s.id == id })
	if i < 0 {
		return nil, nil, syscall.ENOENT
	}
	s := d.sets[i]
	for _, f := range s.fds {
		has, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
		if err != nil || has&unix.O_ACCMODE != flags&unix.O_ACCMODE {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err == nil && has&unix.O_DIRECT != flags&unix.O_DIRECT {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, has&^unix.O_DIRECT|flags&unix.O_DIRECT)
		}
		if err != nil {
			return nil, nil, err
		}
		s.copies++
		return os.NewFile(uintptr(fd), fmt.Sprintf("/dev/fdset/%d", id)), func() { d.closed(s) }, nil
	}
	return nil, nil, syscall.EACCES
}

// closed is that a copy of one of s's descriptors has been closed.
func (d *descriptors) closed(s *fdSet) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.copies--
	d.clean(s, false, false)
}

func (d *descriptors) keep(fd int, name string) error {
	switch {
	case fd < 0:
		return errNoFD
	case name != "" && name[0] >= '0' && name[0] <= '9':
		_ = unix.Close(fd) // nobody has it
		return fmt.Errorf("Parameter 'fdname' expects a name not starting with a digit")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.named[name]; ok {
		_ = unix.Close(old) // nothing was written through it
	}
	if d.named == nil {
		d.named = map[string]int{}
	}
	d.named[name] = fd
	return nil
}

// take returns the descriptor of a name, which is the caller's from then on.
func (d *descriptors) take(name string) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fd, ok := d.named[name]
	if !ok {
		return -1, fmt.Errorf("File descriptor named '%s' not found", name)
	}
	delete(d.named, name)
	return fd, nil
}
