package machine

// Kind says how a VM ended.
type Kind uint8

// The ways a VM ends.
const (
	PowerOff      Kind = iota // the guest powered off
	Rebooted                  // the guest reset itself and the spec says NoReboot
	TripleFault               // a vCPU shut down
	InternalError             // the engine could not go on
	ResetLoop                 // the guest reset itself again and again
	DebugExit                 // the guest wrote to the debug-exit port
	Panicked                  // the guest's kernel said by pvpanic that it panicked
	Left                      // Stop: the user left the console
	Killed                    // Kill: somebody would not wait for the guest
)

// Outcome is the end of a VM.
type Outcome struct {
	Kind   Kind
	Code   int    // DebugExit: the status, value*2+1
	VCPU   int    // TripleFault, InternalError: the vCPU
	Detail string // one line: what happened
	RIP    uint64 // TripleFault, InternalError
	Bytes  []byte // instruction bytes at RIP, as many as could be read
}
