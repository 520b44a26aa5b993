package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// scarce is the share of RAM, one in this many, below which what is available is worth a warning.
const scarce = 20

func memoryFree(h *host) Check {
	c := Check{Name: "memory-free", Title: "memory", Status: OK}
	m, err := h.meminfo()
	if err != nil {
		return h.blind(c, err)
	}
	c.Finding = fmt.Sprintf("%s available of %s", gib(m["MemAvailable"]), gib(m["MemTotal"]))
	if m["MemAvailable"] < m["MemTotal"]/scarce {
		c.Status = Warn
		c.Meaning = "guests take what they are given only as they touch it: one that starts now may be killed later for want of memory"
		c.Remedy = "stop something, or give guests less (--memory)"
	}
	return c
}

// overcommit looks at vm.overcommit_memory (proc_sys_vm(5)): in mode 2 a mapping
// counts in full, touched or not.
func overcommit(h *host) Check {
	c := Check{Name: "memory-overcommit", Title: "overcommit", Status: OK, Finding: "vm.overcommit_memory="}
	mode, err := h.text("proc/sys/vm/overcommit_memory")
	if err != nil {
		return h.blind(c, err)
	}
	c.Finding += mode
	if mode != "2" {
		return c
	}
	m, err := h.meminfo()
	if err != nil {
		return h.blind(c, err)
	}
	left := m["CommitLimit"] - min(m["Committed_AS"], m["CommitLimit"])
	c.Status = Warn
	c.Finding += ": memory counts when it is asked for; " + gib(left) + " may still be asked for"
	c.Meaning = "a guest whose --memory is more than that does not start, whatever is free"
	c.Remedy = "sysctl vm.overcommit_memory=0, or a larger vm.overcommit_ratio"
	return c
}

func swap(h *host) Check {
	c := Check{Name: "swap", Title: "swap", Status: OK}
	m, err := h.meminfo()
	if err != nil {
		return h.blind(c, err)
	}
	total, free := m["SwapTotal"], m["SwapFree"]
	if total == 0 {
		c.Finding = "none"
		return c
	}
	c.Finding = fmt.Sprintf("%s free of %s", gib(free), gib(total))
	if free < total/4 {
		c.Status = Warn
		c.Meaning = "guests whose memory is swapped out stand still for as long as it takes to read it back"
		c.Remedy = "stop something, or give guests less (--memory)"
	}
	return c
}

// ksm looks at kernel same-page merging (Documentation/admin-guide/mm/ksm.rst).
func ksm(h *host) Check {
	c := Check{Name: "ksm", Title: "same-page merging (KSM)", Status: OK, Finding: "off"}
	run, err := h.text("sys/kernel/mm/ksm/run")
	switch {
	case errors.Is(err, fs.ErrNotExist) && h.exists("sys/kernel/mm"):
		c.Finding = "the kernel has none"
	case err != nil:
		return h.blind(c, err)
	case run == "1":
		sharing, _ := h.number("sys/kernel/mm/ksm/pages_sharing")
		c.Status, c.Finding = Warn, "on, saves "+gib(sharing*4)
		c.Meaning = "less memory is needed, but a guest can find out by timing which pages another one holds"
		c.Remedy = "where guests do not trust one another: echo 2 >/sys/kernel/mm/ksm/run"
	}
	return c
}

func transparentHugePages(h *host) Check {
	c := Check{Name: "thp", Title: "transparent huge pages", Status: OK}
	s, err := h.text("sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || !h.exists("sys/kernel/mm")) {
		return h.blind(c, err)
	}
	if c.Finding = chosen(s); c.Finding != "" && c.Finding != "never" {
		return c
	}
	c.Status = Warn
	c.Meaning = "guests' memory is made of pages of 4 KiB: what uses much of it runs slower"
	c.Remedy = "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled"
	if err != nil {
		c.Finding, c.Remedy = "the kernel has none", "reserve huge pages and use --memory …,hugepages=on"
	}
	return c
}

func hugePages2M(h *host) Check { return hugePages(h, "2M", 2<<10) }
func hugePages1G(h *host) Check { return hugePages(h, "1G", 1<<20) }

// hugePages looks at the pool of pages of kib KiB (Documentation/admin-guide/mm/hugetlbpage.rst).
func hugePages(h *host, size string, kib uint64) Check {
	c := Check{Name: "hugepages-" + strings.ToLower(size), Title: "pool of " + size + " pages", Status: OK}
	pool := fmt.Sprintf("hugepages/hugepages-%dkB", kib)
	total, err := h.number("sys/kernel/mm/" + pool + "/nr_hugepages")
	switch {
	case errors.Is(err, fs.ErrNotExist) && h.exists("sys/kernel/mm"):
		c.Finding = "the kernel or the processor has none"
		return c
	case err != nil:
		return h.blind(c, err)
	case total == 0:
		c.Finding = "none reserved (sysctl vm.nr_hugepages=N does)"
		if size == "1G" {
			c.Finding = "none reserved (boot with hugepagesz=1G hugepages=N)"
		}
		return c
	}
	free, _ := h.number("sys/kernel/mm/" + pool + "/free_hugepages")
	promised, _ := h.number("sys/kernel/mm/" + pool + "/resv_hugepages")
	free -= min(free, promised)
	c.Finding = fmt.Sprintf("%d of %d free (%s)", free, total, gib(free*kib))
	var nodes []string
	for _, n := range h.nodes() {
		dir := fmt.Sprintf("sys/devices/system/node/node%d/%s/", n, pool)
		onNode, _ := h.number(dir + "nr_hugepages")
		freeOnNode, _ := h.number(dir + "free_hugepages")
		nodes = append(nodes, fmt.Sprintf("node %d: %d of %d", n, freeOnNode, onNode))
	}
	if len(nodes) > 1 {
		c.Finding += "; " + strings.Join(nodes, ", ")
	}
	return c
}

// nodes are the numbers of the host's NUMA nodes, ascending.
func (h *host) nodes() []int {
	var nodes []int
	for _, name := range h.names("sys/devices/system/node") {
		digits, ok := strings.CutPrefix(name, "node")
		if n, err := strconv.Atoi(digits); ok && err == nil {
			nodes = append(nodes, n)
		}
	}
	slices.Sort(nodes)
	return nodes
}

func numaNodes(h *host) Check {
	c := Check{Name: "numa-nodes", Title: "NUMA nodes", Status: OK, Finding: "one"}
	nodes := h.nodes()
	if len(nodes) < 2 {
		c, _ = h.blindTo(c, "sys")
		return c
	}
	var said []string
	for _, n := range nodes {
		dir := fmt.Sprintf("sys/devices/system/node/node%d/", n)
		info, err := h.text(dir + "meminfo")
		if err != nil {
			return h.blind(c, err)
		}
		prefix := fmt.Sprintf("Node %d ", n)
		m := keyed(strings.ReplaceAll(info, prefix, ""))
		cpus, _ := h.text(dir + "cpulist")
		if cpus == "" {
			cpus = "none"
		}
		distance, _ := h.text(dir + "distance")
		said = append(said, fmt.Sprintf("%d: %s free of %s, CPUs %s, distances %s",
			n, gib(m["MemFree"]), gib(m["MemTotal"]), cpus, strings.Join(strings.Fields(distance), "/")))
	}
	c.Finding = strings.Join(said, "; ")
	return c
}

func numaBalancing(h *host) Check {
	c := Check{Name: "numa-balancing", Title: "NUMA balancing", Status: OK, Finding: "not needed: no second node"}
	if len(h.nodes()) < 2 {
		c, _ = h.blindTo(c, "sys")
		return c
	}
	mode, err := h.text("proc/sys/kernel/numa_balancing")
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return h.blind(c, err)
	case err == nil && mode != "0":
		c.Finding = "on (kernel.numa_balancing=" + mode + ")"
		return c
	case err != nil:
		c.Finding, c.Remedy = "the kernel has none", "bind each guest to a node: --memory …,policy=bind,host-nodes=N"
	default:
		c.Finding = "off"
		c.Remedy = "sysctl kernel.numa_balancing=1, or bind each guest: --memory …,policy=bind,host-nodes=N"
	}
	c.Status = Warn
	c.Meaning = "a guest that is not bound to a node may run far from its memory for good"
	return c
}
