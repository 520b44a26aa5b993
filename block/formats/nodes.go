package formats

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	"berth/block/pool"
	"berth/block/raw"
)

// DescriptorSets are the sets of descriptors that "/dev/fdset/N" names. Open returns
// a copy of the descriptor of set id that has the access mode of flags, and what is
// to be called when that is closed; the error is a syscall.Errno. It may be called
// from any goroutine.
type DescriptorSets interface {
	Open(id int64, flags int) (file *os.File, closed func(), err error)
}

// Nodes are a VM's block nodes by their names. What is open once can be named by
// what is opened later. Safe for concurrent use; whatever opens or closes files
// waits for them, and keeps others waiting.
type Nodes struct {
	sets DescriptorSets

	mu    sync.Mutex
	list  []*Node // in the order in which they were opened
	count int     // of names that were made
}

// NewNodes returns a set without nodes. sets may be nil: there are none.
func NewNodes(sets DescriptorSets) *Nodes { return &Nodes{sets: sets} }

// Each calls f with every node in the order in which they were opened. Nothing is
// opened or closed meanwhile, so f must not want to.
func (s *Nodes) Each(f func(*Node)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.list {
		f(n)
	}
}

// Find returns the node of that name, or nil.
func (s *Nodes) Find(name string) *Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(name)
}

func (s *Nodes) find(name string) *Node {
	for _, n := range s.list {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// device is the root of the block device of that name, or nil.
func (s *Nodes) device(name string) *Node {
	for _, n := range s.list {
		for _, u := range n.users {
			if u.device == name && name != "" {
				return n
			}
		}
	}
	return nil
}

// lookup is the node that a reference means: a device's root, or by its own name.
func (s *Nodes) lookup(name string) *Node {
	if n := s.device(name); n != nil {
		return n
	}
	return s.find(name)
}

func (s *Nodes) add(n *Node) { s.list = append(s.list, n) }

// freshName is that of a node whose user gave it none.
func (s *Nodes) freshName() string {
	s.count++
	return fmt.Sprintf("#block%d%02d", s.count-1, rand.IntN(100))
}

// Add opens an image as o says, which Delete closes. Nothing is done with it until
// somebody attaches to its node or opens another node above it.
func (s *Nodes) Add(o Options) error {
	o.Unused = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Values["node-name"] == "" {
		return errors.New("'node-name' must be specified for the root node")
	}
	n, err := s.openLocked(o)
	if err != nil {
		return err
	}
	n.leave(n.opener)
	n.monitored = true
	return nil
}

// Delete closes a node that was added, if nobody uses it.
func (s *Nodes) Delete(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.find(name)
	switch {
	case n == nil:
		return fmt.Errorf("Failed to find node with node-name='%s'", name)
	case slices.ContainsFunc(n.users, func(u *user) bool { return u.role == "root" }):
		return fmt.Errorf("Node %s is in use", name)
	case n.backs() != nil:
		return fmt.Errorf("Node '%s' is busy: node is used as backing hd of '%s'", name, n.backs().of)
	case !n.monitored:
		return fmt.Errorf("Node %s is not owned by the monitor", name)
	case n.refs > 1:
		return fmt.Errorf("Block device %s is in use", name)
	}
	n.monitored = false
	return n.release()
}

// Close closes the nodes that were added and have not been deleted. Nobody is attached
// to them any more.
func (s *Nodes) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for {
		// The newest first: those below another were there before it.
		i := len(s.list) - 1
		for i >= 0 && (!s.list[i].monitored || s.list[i].refs > 1) {
			i--
		}
		if i < 0 {
			return err
		}
		s.list[i].monitored = false
		err = errors.Join(err, s.list[i].release())
	}
}

// backs is a user whose backing image n is, or nil.
func (n *Node) backs() *user {
	for _, u := range n.users {
		if u.role == "backing" {
			return u
		}
	}
	return nil
}

// user is who does something with a node.
type user struct {
	who    string // as errors say it: "node 'a'", "block device 'b'"
	of     string // the node's name, if it is one
	device string // the block device's name, if it is one
	role   string // what the node is to it: "file", "data-file", "backing", "extents", "root"
	perms
}

// child is a node below another, and what that other does with it.
type child struct {
	*Node
	user *user
}

// total is what all users together do with n.
func (n *Node) total() (p perms) {
	for _, u := range n.users {
		p.uses |= u.uses
		p.denies |= u.denies
	}
	return p
}

// conflict is an error if one user does what another does not allow, the newest
// first (block.c, bdrv_parent_perms_conflict).
func (n *Node) conflict() error {
	for i := len(n.users) - 1; i >= 0; i-- {
		for j := len(n.users) - 1; j >= 0; j-- {
			a, b := n.users[i], n.users[j]
			if both := b.uses & a.denies; i != j && both != 0 {
				return fmt.Errorf("Permission conflict on node '%s': permissions '%s' are both required by %s (uses node '%s' as '%s' child) and unshared by %s (uses node '%s' as '%s' child).",
					n.Name, permNames(both), b.who, n.Name, b.role, a.who, n.Name, a.role)
			}
		}
	}
	return nil
}

func permNames(p raw.Perm) string {
	var names []string
	for one := raw.Perm(1); one <= raw.PermAll; one <<= 1 {
		if p&one != 0 {
			names = append(names, one.String())
		}
	}
	return strings.Join(names, ", ")
}

// asks is what n does with a child in that role, given what its users do with it.
func (n *Node) asks(role string) perms {
	p := n.total()
	switch role {
	case "file":
		p = p.below(n.Driver, n.values, n.in)
	case "data-file":
		p = p.data()
	case "backing":
		p = p.backing()
	case "extents":
		p = perms{uses: raw.PermRead, denies: raw.PermWrite | raw.PermResize}
	}
	if n.in.forceShare {
		p.denies = 0
	}
	return p
}

// user is n as the user of a child.
func (n *Node) user(role string) *user {
	return &user{who: fmt.Sprintf("node '%s'", n.Name), of: n.Name, role: role, perms: n.asks(role)}
}

// link makes n a user of c.
func (n *Node) link(c *Node, role string) error {
	u := n.user(role)
	if err := c.join(u); err != nil {
		return err
	}
	n.children = append(n.children, child{c, u})
	return nil
}

// join makes u a user of n, if what it does is allowed and all files below can be
// locked for it.
func (n *Node) join(u *user) error {
	n.users = append(n.users, u)
	var undo undo
	if err := n.settle(&undo); err != nil {
		undo.run()
		n.leave(u)
		return err
	}
	return nil
}

// leave takes u from n's users. The files' locks stay until settle.
func (n *Node) leave(u *user) {
	n.users = slices.DeleteFunc(n.users, func(x *user) bool { return x == u })
}

// undo is what has been done and may have to be undone.
type undo []func()

func (u *undo) run() {
	for _, f := range slices.Backward(*u) {
		f()
	}
}

// settle has n and all below it be used, and the files locked, as its users want.
func (n *Node) settle(u *undo) error {
	if err := n.conflict(); err != nil {
		return err
	}
	p := n.total()
	if n.ReadOnly && p.uses&(raw.PermWrite|raw.PermResize) != 0 {
		return errors.New("Block node is read-only")
	}
	if f, ok := n.Image.(*raw.File); ok {
		return n.relock(f, p, u)
	}
	for _, c := range n.children {
		had := c.user.perms
		c.user.perms = n.asks(c.user.role)
		*u = append(*u, func() { c.user.perms = had })
		if err := c.settle(u); err != nil {
			return err
		}
	}
	return nil
}

// relock locks n's file for p.
func (n *Node) relock(f *raw.File, p perms, u *undo) error {
	if err := n.reopen(f, p.uses&(raw.PermWrite|raw.PermResize) != 0, u); err != nil {
		return err
	}
	had := f.Lock()
	if err := f.Relock(p.lock(n.in)); err != nil {
		return lockError(n.Filename, err)
	}
	*u = append(*u, func() { _ = f.Relock(had) }) // what was had is allowed
	return nil
}

// hold counts one more who needs n.
func (n *Node) hold() {
	n.refs++
	if f, ok := n.Image.(*raw.File); ok && n.File == nil {
		f.Hold()
	}
}

// reopen opens the file of an automatic node anew if it is to be written from now
// on, or no more.
func (n *Node) reopen(f *raw.File, write bool, u *undo) error {
	if !n.auto || write != f.ReadOnly() {
		return nil
	}
	o := raw.FileOptions{ReadOnly: !write, Direct: n.in.direct, Unlocked: true}
	other, err := n.nodes.openPath(n.Filename, n.Driver, o)
	switch {
	case err != nil && write:
		return err
	case err != nil: // it stays as it is, which does no harm
		return nil
	}
	*u = append(*u, func() { _ = n.reopen(f, !write, &undo{}) }) // it was open so
	return f.Replace(other)
}

// Close ends what Nodes.Open began. The last to close a node closes all below it
// that nobody else needs, from the top: what an image holds in memory is written
// while what it stands on is still there.
func (n *Node) Close() error {
	n.nodes.mu.Lock()
	defer n.nodes.mu.Unlock()
	n.leave(n.opener)
	return n.release()
}

// release takes one from those who need n.
func (n *Node) release() error {
	if f, ok := n.Image.(*raw.File); ok && n.File == nil {
		return errors.Join(f.Close(), n.drop())
	}
	return n.drop()
}

// drop is release where n's file, if it is a file's node, has been closed already.
func (n *Node) drop() error {
	if n.refs--; n.refs > 0 {
		return n.settle(&undo{})
	}
	n.nodes.list = slices.DeleteFunc(n.nodes.list, func(x *Node) bool { return x == n })
	for _, c := range n.children {
		c.leave(c.user)
	}
	if n.File == nil {
		return nil
	}
	return n.closeImage()
}

// closeImage closes n's image, which closes the files that it was given itself, and
// what only n needed.
func (n *Node) closeImage() (err error) {
	opened := n.Image != nil
	if opened {
		err = n.Image.Close()
	} else {
		err = n.File.release()
	}
	for _, c := range n.children {
		switch {
		case c.user.role == "backing":
			err = errors.Join(err, c.release())
		case opened || c.user.role == "extents": // closed by the image, or by who could not open it
			err = errors.Join(err, c.drop())
		}
	}
	return err
}

// mayResize has n's size be changed by who uses it, or by somebody beside them, until done.
func (n *Node) mayResize() (done func(), err error) {
	n.nodes.mu.Lock()
	defer n.nodes.mu.Unlock()
	var undo undo
	if i := slices.IndexFunc(n.users, func(u *user) bool { return u.role == "root" }); i >= 0 {
		u, had := n.users[i], n.users[i].uses
		u.uses |= raw.PermResize
		undo = append(undo, func() { u.uses = had })
	} else {
		u := &user{who: "block device ''", role: "root", perms: perms{uses: raw.PermResize}}
		n.users = append(n.users, u)
		undo = append(undo, func() { n.leave(u) })
	}
	if err := n.settle(&undo); err != nil {
		undo.run()
		return nil, err
	}
	return func() {
		n.nodes.mu.Lock()
		defer n.nodes.mu.Unlock()
		undo.run()
	}, nil
}

// Use is a device's part in a node.
type Use struct {
	n *Node
	u *user
}

// Attach makes a device a user of a node that was added: it reads, and writes unless
// readOnly, and keeps others from writing. path is its place in QEMU's tree of objects,
// by which errors name it.
func (n *Node) Attach(path string, readOnly bool) (*Use, error) {
	n.nodes.mu.Lock()
	defer n.nodes.mu.Unlock()
	p := Options{ReadOnly: readOnly, NoShare: true}.perms()
	u := &user{who: fmt.Sprintf("block device '%s'", path), role: "root", perms: p}
	if err := n.join(u); err != nil {
		return nil, err
	}
	n.hold()
	return &Use{n, u}, nil
}

// Close ends it.
func (u *Use) Close() error {
	u.n.nodes.mu.Lock()
	defer u.n.nodes.mu.Unlock()
	u.n.leave(u.u)
	return u.n.release()
}

// Disk makes a disk of the node, which ends the use when it is closed.
func (u *Use) Disk(o pool.Options) *pool.Disk { return u.n.disk(o, u.Close) }
