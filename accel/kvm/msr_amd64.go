package kvm

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"berth/kvmapi"
	"berth/x86"
)

// msrSet is which MSRs make up a vCPU's state, less those that this host's KVM
// turned out to refuse. A refusal is told once and costs the VM nothing else.
type msrSet struct {
	log *slog.Logger

	mu      sync.Mutex
	list    []uint32
	refused map[uint32]bool
}

// Ranges of MSRs that KVM keeps but does not list.
const (
	mtrrVariable = 8 // pairs of base and mask, as KVM_NR_VAR_MTRR
)

func newMSRSet(listed []uint32, log *slog.Logger) *msrSet {
	// TSC first: see SetState. MTRRdefType, which enables the others, after them.
	list := []uint32{x86.MSRTSC}
	for i := range uint32(2 * mtrrVariable) {
		list = append(list, x86.MSRMTRRPhysBase0+i)
	}
	list = append(list, x86.MSRMTRRFix64K, 0x258, 0x259)
	for i := range uint32(8) {
		list = append(list, 0x268+i) // the 4 KiB ranges
	}
	list = append(list, x86.MSRMTRRDefType)
	for i := range uint32(4 * x86.MCBanks) {
		list = append(list, x86.MSRMC0Ctl+i)
	}
	for _, m := range listed {
		if !notState(m) && !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return &msrSet{log: log, list: list, refused: map[uint32]bool{}}
}

// notState reports MSRs that x86.State or irq.ChipState hold by name, and those
// of what guestCPUID does not offer: VMX's capabilities, and Hyper-V's, some of
// which are clocks.
func notState(m uint32) bool {
	switch m {
	case x86.MSREFER, x86.MSRFSBase, x86.MSRGSBase, x86.MSRAPICBase, x86.MSRTSCDeadline:
		return true
	}
	return m >= 0x480 && m <= 0x493 || m >= x86.MSRX2APIC && m <= 0x8ff || m >= 0x40000000 && m <= 0x40000fff
}

// stateList returns the MSRs to save.
func (s *msrSet) stateList() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.list), func(m uint32) bool { return s.refused[m] })
}

// refuse notes that KVM refused to read or write m.
func (s *msrSet) refuse(verb string, m uint32, attrs ...any) {
	s.mu.Lock()
	known := s.refused[m]
	s.refused[m] = true
	s.mu.Unlock()
	if !known {
		s.log.Warn("kvm: the host refuses to "+verb+" an MSR; the guest goes without",
			append([]any{"msr", fmt.Sprintf("0x%x", m)}, attrs...)...)
	}
}

// readMSRs returns the values of the MSRs that KVM gives; it stops at each one
// that it refuses, so the rest is asked for again.
func (c *vcpu) readMSRs(list []uint32) ([]x86.MSR, error) {
	out := make([]x86.MSR, 0, len(list))
	k := &kvmapi.MSRs{}
	for len(list) > 0 {
		n := min(len(list), kvmapi.MaxMSREntries)
		k.Nmsrs = uint32(n)
		for i, m := range list[:n] {
			k.Entries[i] = kvmapi.MSREntry{Index: m}
		}
		done, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_GET_MSRS, k)
		if err != nil {
			return nil, err
		}
		for _, e := range k.Entries[:done] {
			out = append(out, x86.MSR{Index: e.Index, Value: e.Data})
		}
		if done < n {
			c.vm.msrs.refuse("read", list[done])
			done++
		}
		list = list[done:]
	}
	return out, nil
}

// writeMSRs writes list in its order, past the MSRs that KVM refuses.
func (c *vcpu) writeMSRs(list []x86.MSR) error {
	k := &kvmapi.MSRs{}
	for len(list) > 0 {
		n := min(len(list), kvmapi.MaxMSREntries)
		k.Nmsrs = uint32(n)
		for i, m := range list[:n] {
			k.Entries[i] = kvmapi.MSREntry{Index: m.Index, Data: m.Value}
		}
		done, err := kvmapi.IoctlPtr(c.fd, kvmapi.KVM_SET_MSRS, k)
		if err != nil {
			return err
		}
		if done < n {
			c.vm.msrs.refuse("write", list[done].Index, "value", fmt.Sprintf("0x%x", list[done].Value))
			done++
		}
		list = list[done:]
	}
	return nil
}

// changedMSRs returns those of want that do not hold their value yet, so that
// read-only MSRs which agree anyway are left alone. TSC moves by itself and is
// always among them.
func (c *vcpu) changedMSRs(want []x86.MSR) []x86.MSR {
	list := make([]uint32, 0, len(want))
	for _, m := range want {
		list = append(list, m.Index)
	}
	have := map[uint32]uint64{}
	if now, err := c.readMSRs(list); err == nil {
		for _, m := range now {
			have[m.Index] = m.Value
		}
	}
	var out []x86.MSR
	for _, m := range want {
		switch v, ok := have[m.Index]; {
		case notState(m.Index):
		case m.Index == x86.MSRTSC:
			if !c.stopTSC(m.Value) {
				out = append(out, m)
			}
		case !ok || v != m.Value:
			out = append(out, m)
		}
	}
	return out
}
