package main

import "berth/machine"

// Exit statuses of berth. A guest's debug exit gives every odd status, so
// berth's own are even.
const (
	statusOK        = 0
	statusUsage     = 2  // bad input, or the VM could not be started
	statusTriple    = 10 // triple fault
	statusInternal  = 12 // the engine could not go on
	statusResetLoop = 14 // the guest reset itself again and again
	statusKilled    = 16 // a second SIGTERM or SIGINT stopped the VM at once
	statusPanicked  = 18 // the guest's kernel panicked
)

// statusOf returns the exit status for the way a VM ended.
func statusOf(o machine.Outcome) int {
	switch o.Kind {
	case machine.TripleFault:
		return statusTriple
	case machine.InternalError:
		return statusInternal
	case machine.ResetLoop:
		return statusResetLoop
	case machine.DebugExit:
		return o.Code & 0xff
	case machine.Killed:
		return statusKilled
	case machine.Panicked:
		return statusPanicked
	}
	return statusOK
}
