package x86

import "math/bits"

// Topology is how a machine's CPUs are grouped into sockets, cores and threads.
// CPUs are numbered threads first, then cores, then sockets. The zero value is
// one socket of as many single-threaded cores as there are CPUs.
type Topology struct {
	Sockets int
	Cores   int // in a socket
	Threads int // in a core
}

// Resolve returns the topology of cpus CPUs, the zero value spelled out.
func (t Topology) Resolve(cpus int) Topology {
	if t == (Topology{}) {
		return Topology{Sockets: 1, Cores: cpus, Threads: 1}
	}
	return t
}

// ThreadBits is the width of an APIC ID's field for the thread in a core.
func (t Topology) ThreadBits() int { return bits.Len(uint(max(t.Threads, 1) - 1)) }

// CoreBits is the width of an APIC ID's field for the core in a socket.
func (t Topology) CoreBits() int { return bits.Len(uint(max(t.Cores, 1) - 1)) }

// APICID returns the APIC ID of a CPU by its number (Intel SDM vol. 3A §9.9.1):
//
//	socket | core, CoreBits wide | thread, ThreadBits wide
//
// Where cores or threads are no power of two, IDs have gaps. The zero value
// gives every CPU its own number.
func (t Topology) APICID(cpu int) uint32 {
	if t == (Topology{}) {
		return uint32(cpu)
	}
	thread := cpu % t.Threads
	core := cpu / t.Threads % t.Cores
	socket := cpu / t.Threads / t.Cores
	return uint32((socket<<t.CoreBits()|core)<<t.ThreadBits() | thread)
}
