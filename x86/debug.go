package x86

// Debug is what a debugger has a vCPU stop for. It is no part of the guest's
// state: DR0 to DR7 and RFLAGS.TF stay the guest's.
type Debug struct {
	// Step stops after one instruction, or at the first one of the handler that it
	// raised an exception to.
	Step bool
	// Hold, with Step, has interrupts and NMIs wait meanwhile. A vCPU that halts
	// goes on behind HLT when one arrives.
	Hold        bool
	Breakpoints []Breakpoint
	Watchpoints []Watchpoint
}

// Any reports that there is something to stop for.
func (d *Debug) Any() bool { return d.Step || len(d.Breakpoints)+len(d.Watchpoints) > 0 }

// Breakpoint stops a vCPU before the instruction at a linear address.
type Breakpoint struct {
	Addr     uint64
	Hardware bool // it needs nothing of the guest's memory
}

// Watchpoint stops a vCPU after an instruction that accesses one of Len bytes at
// a linear address. Devices' accesses are not watched.
type Watchpoint struct {
	Addr, Len uint64
	Kind      Watch
}

// Watch is which accesses a Watchpoint is for, as a set of bits.
type Watch uint8

// The kinds of access.
const (
	WatchRead   Watch = 1 << 0
	WatchWrite  Watch = 1 << 1
	WatchAccess       = WatchRead | WatchWrite
)

// Stop is why a vCPU stopped for a debugger.
type Stop struct {
	Kind StopKind
	// Breakpoint and Watchpoint are the ones that were met.
	Breakpoint Breakpoint
	Watchpoint Watchpoint
}

// StopKind is a kind of Stop.
type StopKind uint8

// The kinds.
const (
	StopStep StopKind = iota
	StopBreakpoint
	StopWatchpoint
)

// DebugLimits is what an engine's debugging cannot do.
type DebugLimits struct {
	// Plants: a Breakpoint that is not Hardware stops only where the caller has put
	// an INT3 into guest memory. An INT3 of the guest's own stays the guest's.
	Plants bool
	// Registers, if not 0, is how many hardware breakpoints and pieces of watchpoints
	// there can be, of 1, 2, 4 or 8 bytes at a multiple of that; none then watches reads alone.
	Registers int
	NoHold    bool // Hold does nothing
}
