package kvm

import (
	"berth/kvmapi"
	"berth/x86"
)

// CPUID feature bits that guestCPUID changes (Intel SDM vol. 2A, CPUID; AMD APM vol. 3 appendix E).
const (
	leaf1ECXVMX         = 1 << 5
	leaf1ECXX2APIC      = 1 << 21
	leaf1ECXTSCDeadline = 1 << 24
	leaf1ECXOSXSAVE     = 1 << 27 // KVM makes it follow CR4
	leaf1ECXHypervisor  = 1 << 31
	leaf1EDXHTT         = 1 << 28
	leaf7EBXSGX         = 1 << 2
	leaf7EBXPT          = 1 << 25
	leaf7ECXSGXLC       = 1 << 30
	ext1ECXCmpLegacy    = 1 << 1
	ext1ECXSVM          = 1 << 2
)

// The first four letters of leaf 0's vendor name.
const (
	vendorIntel = 0x756e6547 // GenuineIntel
	vendorAMD   = 0x68747541 // AuthenticAMD
	vendorHygon = 0x6f677948 // HygonGenuine
)

// vendor returns leaf 0's EBX.
func vendor(c *kvmapi.CPUID2) uint32 {
	for _, e := range c.Entries[:c.Nent] {
		if e.Function == 0 {
			return e.EBX
		}
	}
	return 0
}

// hasTSCDeadline reports KVM's own word on the LAPIC's TSC-deadline mode, which
// KVM_GET_SUPPORTED_CPUID leaves out.
func (a *Accelerator) hasTSCDeadline() bool {
	n, err := checkExtension(a.fd, kvmapi.KVM_CAP_TSC_DEADLINE_TIMER)
	return err == nil && n > 0
}

// guestCPUID returns what vCPU id of cpus shows: all that KVM supports, less
// what x86.State cannot hold (VMX, SVM, SGX, Processor Trace), with the topology
// given. KVM's own leaves (0x40000000 on: kvmclock, steal time, …) are kept.
func guestCPUID(supported *kvmapi.CPUID2, id, cpus int, shape x86.Topology, tscDeadline bool) *kvmapi.CPUID2 {
	full := shape.Resolve(cpus)
	t := topology{
		id: shape.APICID(id), cpus: uint32(full.Cores * full.Threads), threads: uint32(full.Threads),
		threadBits: uint32(full.ThreadBits()), bits: uint32(full.ThreadBits() + full.CoreBits()), tscDeadline: tscDeadline,
	}
	if v := vendor(supported); v == vendorAMD || v == vendorHygon {
		t.amd = true
	}
	all := supported.Entries[:supported.Nent]
	out := &kvmapi.CPUID2{}
	add := func(e kvmapi.CPUIDEntry2) {
		if out.Nent < kvmapi.MaxCPUIDEntries {
			out.Entries[out.Nent] = e
			out.Nent++
		}
	}
	for _, e := range t.leafB() {
		add(e)
	}
	for _, e := range all {
		switch e.Function {
		case 0xb, 0x1f, 0x12, 0x14, 0x8000000a:
			continue // 0xb is ours; the others belong to what is left out
		}
		t.fix(&e)
		add(e)
	}
	return out
}

// topology is the place of one vCPU, whose APIC ID is id, in its socket.
type topology struct {
	id               uint32
	cpus, bits       uint32 // of a socket, and the width of the APIC ID's fields for them
	threads          uint32 // of a core
	threadBits       uint32
	amd, tscDeadline bool
}

// fix changes one leaf from the host's to the guest's.
func (t *topology) fix(e *kvmapi.CPUIDEntry2) {
	switch e.Function {
	case 0:
		e.EAX = max(e.EAX, 0xb)
	case 1:
		e.EBX = e.EBX&0xffff | min(uint32(1)<<t.bits, 255)<<16 | t.id<<24
		e.ECX = e.ECX&^(leaf1ECXVMX|leaf1ECXOSXSAVE) | leaf1ECXX2APIC | leaf1ECXHypervisor
		if t.tscDeadline {
			e.ECX |= leaf1ECXTSCDeadline
		}
		e.EDX &^= leaf1EDXHTT
		if t.cpus > 1 {
			e.EDX |= leaf1EDXHTT
		}
	case 4:
		e.EAX = t.share(e.EAX)&^(0x3f<<26) | min(uint32(1)<<(t.bits-t.threadBits)-1, 0x3f)<<26
	case 7:
		if e.Index == 0 {
			e.EBX &^= leaf7EBXSGX | leaf7EBXPT
			e.ECX &^= leaf7ECXSGXLC
		}
	case 0x80000001:
		e.ECX &^= ext1ECXSVM | ext1ECXCmpLegacy
		if t.amd && t.cpus > 1 {
			e.ECX |= ext1ECXCmpLegacy
		}
	case 0x80000008:
		if t.amd {
			e.ECX = e.ECX&^0xf0ff | t.bits<<12 | (t.cpus - 1)
		}
	case 0x8000001d:
		e.EAX = t.share(e.EAX)
	case 0x8000001e:
		e.EAX, e.EBX, e.ECX = t.id, t.id>>t.threadBits&0xff|(t.threads-1)<<8, 0
	}
}

// share sets how many APIC IDs share a cache (bits 25-14 of leaf 4's EAX, less
// one): levels 1 and 2 belong to one core, level 3 to the socket. Type 0 ends the list.
func (t *topology) share(eax uint32) uint32 {
	if eax&0x1f == 0 {
		return eax
	}
	width := t.threadBits
	if eax>>5&7 >= 3 {
		width = t.bits
	}
	return eax&^(0xfff<<14) | (uint32(1)<<width-1)<<14
}

// leafB returns leaf 0xb: the thread level, the core level and the end of the list.
func (t *topology) leafB() []kvmapi.CPUIDEntry2 {
	level := func(index, shift, count, kind uint32) kvmapi.CPUIDEntry2 {
		return kvmapi.CPUIDEntry2{
			Function: 0xb, Index: index, Flags: kvmapi.KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			EAX: shift, EBX: count, ECX: index | kind<<8, EDX: t.id,
		}
	}
	return []kvmapi.CPUIDEntry2{level(0, t.threadBits, t.threads, 1), level(1, t.bits, t.cpus, 2), level(2, 0, 0, 0)}
}
