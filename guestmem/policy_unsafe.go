package guestmem

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Policy is where the host takes memory from (mbind(2)).
type Policy uint8

// The policies.
const (
	PolicyDefault    Policy = iota
	PolicyBind              // from these nodes or not at all
	PolicyPreferred         // from these nodes while they have some
	PolicyInterleave        // from these nodes by turns
)

// maxNodes bounds the host's nodes, as its kernel does.
const maxNodes = 1024

// preferredMany is MPOL_PREFERRED_MANY, Linux 5.15 and later.
const preferredMany = 5

// Bind has the host take the memory of [gpa, gpa+size), which is RAM of one
// region, from its nodes by policy p. Memory that has been touched stays where it is.
func (m *Memory) Bind(gpa, size uint64, p Policy, nodes []int) error {
	if p == PolicyDefault {
		return nil
	}
	if err := checkHostNodes(nodes); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	b, err := m.Slice(gpa, size)
	if err != nil {
		return err
	}
	var mask [maxNodes / 64]uint64
	for _, n := range nodes {
		mask[n/64] |= 1 << (n % 64)
	}
	mode := map[Policy]uintptr{PolicyBind: unix.MPOL_BIND, PolicyPreferred: unix.MPOL_PREFERRED, PolicyInterleave: unix.MPOL_INTERLEAVE}[p]
	if p == PolicyPreferred && len(nodes) > 1 {
		mode = preferredMany
	}
	// unsafe: the kernel reads the mask during the call. It takes one bit less
	// than it is told of.
	_, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), mode,
		uintptr(unsafe.Pointer(&mask)), maxNodes+1, 0)
	switch errno {
	case 0:
		return nil
	case unix.ENOSYS:
		return errors.New("memory: this host's kernel has no memory policies: leave policy and host-nodes out")
	}
	return fmt.Errorf("memory: binding %s to host nodes %v: %w", sizeText(size), nodes, errno)
}

// checkHostNodes refuses nodes that the host does not have.
func checkHostNodes(nodes []int) error {
	b, err := os.ReadFile("/sys/devices/system/node/has_memory")
	if err != nil {
		return errors.New("this host's kernel knows no NUMA nodes: leave policy and host-nodes out")
	}
	has := strings.TrimSpace(string(b))
	for _, n := range nodes {
		if n < 0 || n >= maxNodes || !inList(n, has) {
			return fmt.Errorf("the host has no NUMA node %d with memory: it has %s", n, has)
		}
	}
	return nil
}

// inList reports whether n is in a list such as "0-1,4".
func inList(n int, list string) bool {
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		lo, err1 := strconv.Atoi(from)
		hi, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil && n >= lo && n <= hi {
			return true
		}
	}
	return false
}
