package spec

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of a machine's memory, in bytes.
const (
	MinMemory   = 16 << 20
	MaxMemory   = 16 << 40
	memoryAlign = 1 << 20
)

// Memory is a machine's RAM and what the host makes it of.
type Memory struct {
	Size Size `json:"size" implied:"yes"`
	// HugePages takes the memory from the host's pool of huge pages: "on" of the
	// host's usual size. Off leaves it to transparent huge pages.
	HugePages string `json:"hugepages,omitempty" words:"off on 2M 1G"`
	Prefault  bool   `json:"prefault,omitempty"` // all of it, before the guest starts
	// Share makes the memory a memfd, or maps File shared: other processes can map it too.
	Share bool `json:"share,omitempty"`
	// File holds the memory; what was in it is lost.
	File string `json:"file,omitempty" path:"yes"`
	// HostNodes and Policy are where the host takes the memory from.
	HostNodes Set    `json:"hostNodes,omitempty"`
	Policy    string `json:"policy,omitempty" words:"default bind preferred interleave"`
}

// Set reads the value of --memory; what it does not name stays.
func (m *Memory) Set(s string) error { return setKeys(s, m) }

// PageSize returns the size of the huge pages asked for, in bytes: 0 for none,
// 1 (guestmem.UsualHugePages) for whatever is the host's usual size.
func (m *Memory) PageSize() uint64 {
	switch m.HugePages {
	case "", "off":
		return 0
	case "on":
		return 1
	}
	n, _ := ParseSize(m.HugePages) // one of the words
	return n
}

func (m *Memory) check() error {
	switch {
	case m.Size < MinMemory:
		return fmt.Errorf("memory of %s is too small: at least %s is needed", m.Size, FormatSize(MinMemory))
	case m.Size > MaxMemory:
		return fmt.Errorf("memory of %s is too large: at most %s is possible", m.Size, FormatSize(MaxMemory))
	case m.Size%memoryAlign != 0:
		return fmt.Errorf("memory of %d bytes is not a multiple of 1M", uint64(m.Size))
	case m.File != "" && m.PageSize() != 0:
		return errors.New("memory: file and hugepages exclude each other: for huge pages in a file name one on a hugetlbfs")
	}
	if m.HugePages != "" {
		if err := oneOf(m.HugePages, []string{"off", "on", "2M", "1G"}); err != nil {
			return fmt.Errorf("memory: hugepages: %w", err)
		}
	}
	if page := Size(m.PageSize()); page > 1 && m.Size%page != 0 {
		return fmt.Errorf("memory of %s is not a multiple of its huge pages of %s", m.Size, page)
	}
	if err := checkPolicy(m.Policy, m.HostNodes); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	return nil
}

// checkPolicy refuses a policy without the nodes it needs, and nodes without one.
func checkPolicy(policy string, nodes Set) error {
	if len(nodes) > 0 && nodes[len(nodes)-1] > maxSet {
		return fmt.Errorf("host-nodes: %d is no node's number", nodes[len(nodes)-1])
	}
	switch policy {
	case "", "default":
		if len(nodes) > 0 {
			return errors.New("host-nodes says nothing without a policy: add policy=bind, preferred or interleave")
		}
	case "bind", "preferred", "interleave":
		if len(nodes) == 0 {
			return fmt.Errorf("policy=%s needs the host's nodes: add host-nodes=0", policy)
		}
	default:
		return fmt.Errorf("policy %w", oneOf(policy, []string{"default", "bind", "preferred", "interleave"}))
	}
	return nil
}

// maxSet bounds the numbers in a Set.
const maxSet = 4095

// Set is a set of small numbers, in order. As text: "0-3,6".
type Set []int

// UnmarshalText reads numbers and ranges with commas between them.
func (s *Set) UnmarshalText(b []byte) error {
	*s = nil
	for _, part := range strings.Split(string(b), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		lo, err1 := strconv.ParseUint(from, 10, 16)
		hi, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || lo > hi || hi > maxSet {
			return fmt.Errorf("%q is not a number or a range like 0-3", part)
		}
		for n := lo; n <= hi; n++ {
			*s = append(*s, int(n))
		}
	}
	s.tidy()
	return nil
}

// tidy sorts the numbers and drops repeated ones.
func (s *Set) tidy() {
	slices.Sort(*s)
	*s = slices.Compact(*s)
}

// MarshalText writes the set as UnmarshalText reads it.
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String writes the set with its runs as ranges.
func (s Set) String() string {
	var parts []string
	for i := 0; i < len(s); {
		j := i
		for j+1 < len(s) && s[j+1] == s[j]+1 {
			j++
		}
		part := strconv.Itoa(s[i])
		if j > i {
			part += "-" + strconv.Itoa(s[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}
