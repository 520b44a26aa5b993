package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// controllers are what VMs are limited with, by cgroup v2's names.
func controllers() []string { return []string{"cpu", "cpuset", "io", "memory"} }

// mounts are the places where file systems of a type are mounted, with their
// own options (proc_pid_mountinfo(5)).
func (h *host) mounts(fstype string) (places, options []string, err error) {
	s, err := h.text("proc/self/mountinfo")
	for l := range strings.Lines(s) {
		left, right, _ := strings.Cut(l, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) >= 5 && len(r) >= 3 && r[0] == fstype {
			places, options = append(places, l[4]), append(options, r[2])
		}
	}
	return places, options, err
}

const boundless = "guests' use of processors, memory and disks cannot all be limited"

func cgroupMounted(h *host) Check {
	c := Check{Name: "cgroup-v2", Title: "cgroup v2", Status: OK}
	places, _, err := h.mounts("cgroup2")
	if err != nil {
		return h.blind(c, err)
	}
	held := h.heldByVersion1()
	switch {
	case len(held) > 0:
		c.Status, c.Finding = Warn, "version 1 holds "+strings.Join(held, ", ")
	case len(places) == 0:
		c.Status, c.Finding = Warn, "not mounted"
	default:
		c.Finding = "mounted at " + places[0]
		return c
	}
	c.Meaning = boundless
	c.Remedy = "boot with systemd.unified_cgroup_hierarchy=1"
	if len(held) == 0 {
		c.Remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
	}
	return c
}

// heldByVersion1 are the controllers that cgroup v1 has mounted, which v2 has not then.
func (h *host) heldByVersion1() []string {
	var held []string
	_, options, _ := h.mounts("cgroup")
	for _, o := range options {
		for name := range strings.SplitSeq(o, ",") {
			name = strings.Replace(name, "blkio", "io", 1)
			if slices.Contains(controllers(), name) {
				held = append(held, name)
			}
		}
	}
	slices.Sort(held)
	return held
}

func cgroupControllers(h *host) Check {
	c := Check{Name: "cgroup-controllers", Title: "cgroup controllers", Status: OK}
	places, _, err := h.mounts("cgroup2")
	if err != nil {
		return h.blind(c, err)
	}
	if len(places) == 0 || len(h.heldByVersion1()) > 0 {
		c.Status, c.Finding = Warn, notChecked+"version 2 has none of them"
		return c
	}
	dir, err := h.ownCgroup(places[0])
	if err != nil {
		return h.blind(c, err)
	}
	s, err := h.text(path.Join(dir, "cgroup.controllers"))
	if err != nil {
		return h.blind(c, err)
	}
	var missing []string
	for _, name := range controllers() {
		if !slices.Contains(strings.Fields(s), name) {
			missing = append(missing, name)
		}
	}
	refused := reason(h.usable(path.Join(dir, "cgroup.subtree_control")))
	switch {
	case len(missing) > 0:
		c.Status, c.Finding = Warn, "/"+dir+" lacks "+strings.Join(missing, ", ")
	case refused != nil:
		c.Status, c.Finding = Warn, fmt.Sprintf("/%s is not for this user to divide (%v)", dir, refused)
	default:
		c.Finding = strings.Join(controllers(), ", ") + " in /" + dir
		return c
	}
	c.Meaning = boundless
	c.Remedy = "run as root, or put Delegate=cpu cpuset io memory pids under [Service] of user@.service (systemctl edit)"
	if uid, err := h.uid(); err == nil && uid == 0 {
		c.Remedy = "boot without cgroup_disable= and cgroup_no_v1=; in a container, delegate them to it"
	}
	return c
}

// ownCgroup is the group that this user may make groups in: root's is the whole
// tree, another user's what systemd keeps for its services, or else the
// process's own.
func (h *host) ownCgroup(mount string) (string, error) {
	mount = strings.TrimPrefix(mount, "/")
	uid, err := h.uid()
	if err != nil || uid == 0 {
		return mount, err
	}
	dir := path.Join(mount, fmt.Sprintf("user.slice/user-%d.slice/user@%d.service", uid, uid))
	if _, err := fs.Stat(h.root, dir); err == nil {
		return dir, nil
	}
	s, err := h.text("proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for l := range strings.Lines(s) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(l), "0::"); ok {
			return path.Join(mount, own), nil
		}
	}
	return "", errors.New("/proc/self/cgroup tells of no cgroup v2")
}

// uid is this process's effective user (proc_pid_status(5)).
func (h *host) uid() (int, error) {
	s, err := h.text("proc/self/status")
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(s) {
		rest, ok := strings.CutPrefix(l, "Uid:")
		if f := strings.Fields(rest); ok && len(f) >= 2 {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New("/proc/self/status has no line Uid")
}
