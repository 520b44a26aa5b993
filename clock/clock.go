// Package clock is the machine's one pausable clock: TSC, PIT, PM timer, LAPIC timer and RTC all read it.
package clock

// Clock counts nanoseconds of guest time: 0 when the machine was built, and
// standing still while the machine is paused. Safe for concurrent use.
type Clock interface {
	// Now returns the guest time in nanoseconds.
	Now() uint64
	// NewTimer returns a disarmed timer that calls fire on the clock's own
	// goroutine, at or after its deadline. fire must not block; it may re-arm
	// the timer. No lock of the clock is held during the call.
	NewTimer(fire func()) Timer
}

// Timer is a one-shot alarm on a Clock. Safe for concurrent use.
type Timer interface {
	// Set arms the timer for the guest time deadline (nanoseconds), replacing
	// any earlier deadline. A deadline already past fires at once.
	Set(deadline uint64)
	// Stop disarms the timer. A call of fire already begun is not waited for.
	Stop()
}
