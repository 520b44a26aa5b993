package lapic

import "math"

// Timer modes, LVT timer bits 18..17 (SDM §11.5.4).
const (
	timerOneShot  = 0
	timerPeriodic = 1
	timerDeadline = 2
)

// minPeriod bounds how often a periodic timer interrupts, in ns: a guest that
// asks for more loses ticks instead of filling the clock's goroutine.
const minPeriod = 200_000

func (l *LAPIC) timerMode() uint32 { return l.r[regLVTTimer] >> 17 & 3 }

// divisor is what the bus clock is divided by (SDM figure 11-10).
func (l *LAPIC) divisor() uint64 {
	v := l.r[regDivide]
	return 1 << ((v&3 | v>>1&4 + 1) & 7)
}

func (l *LAPIC) disarm() {
	l.due = 0
	l.timer.Stop()
}

func (l *LAPIC) arm(due uint64) {
	l.due = max(1, due)
	l.timer.Set(l.due)
}

// current is the count that is left: 0 once the timer has fired, not before.
func (l *LAPIC) current(now uint64) uint32 {
	if l.due <= now || l.timerMode() == timerDeadline {
		return 0
	}
	return uint32(min((l.due-now-1)/l.divisor()+1, uint64(l.r[regInitial])))
}

func (l *LAPIC) setInitial(v uint32) {
	if l.timerMode() == timerDeadline {
		return
	}
	if l.r[regInitial] = v; v == 0 {
		l.disarm()
		return
	}
	l.arm(l.set.clock.Now() + uint64(v)*l.divisor())
}

// setDivide goes on from the present count at the new rate.
func (l *LAPIC) setDivide(v uint32) {
	now := l.set.clock.Now()
	left := l.current(now)
	l.r[regDivide] = v
	if left != 0 {
		l.arm(now + uint64(left)*l.divisor())
	}
}

// setLVTTimer: to and from TSC-deadline mode disarms (SDM §11.5.4.1).
func (l *LAPIC) setLVTTimer(v uint32) {
	was := l.timerMode()
	l.setLVT(regLVTTimer, v)
	if is := l.timerMode(); is != was && (is == timerDeadline || was == timerDeadline) {
		l.disarm()
		l.r[regInitial], l.tscDue = 0, 0
	}
}

// setTSCDeadline does nothing outside its mode (SDM §11.5.4.1).
func (l *LAPIC) setTSCDeadline(tsc uint64) {
	if l.timerMode() != timerDeadline {
		return
	}
	l.tscDue = tsc
	l.armDeadline()
}

func (l *LAPIC) armDeadline() {
	if l.tscDue == 0 {
		l.disarm()
		return
	}
	if due := l.tsc(l.tscDue); due > l.set.clock.Now() {
		l.arm(due)
		return
	}
	l.disarm()
	l.expire()
}

// TSCChanged tells that the vCPU's TSC was moved: an armed deadline is worked out anew.
func (l *LAPIC) TSCChanged() {
	l.mu.Lock()
	defer l.leave()
	if l.tscDue != 0 {
		l.armDeadline()
	}
}

// expire delivers the timer's interrupt; a deadline is used up.
func (l *LAPIC) expire() {
	l.tscDue = 0
	l.local(regLVTTimer)
}

func (l *LAPIC) fire() {
	l.mu.Lock()
	defer l.leave()
	now := l.set.clock.Now()
	if l.due == 0 || now < l.due {
		return // re-armed or disarmed meanwhile
	}
	due := l.due
	l.due = 0
	l.expire()
	if l.timerMode() == timerPeriodic {
		l.arm(next(due, now, uint64(l.r[regInitial])*l.divisor()))
	}
}

// next returns the first time after now that is a whole number of periods after
// due; short periods are lengthened.
func next(due, now, period uint64) uint64 {
	period = max(period, minPeriod)
	if due > math.MaxUint64-period {
		return math.MaxUint64
	}
	return due + ((now-due)/period+1)*period
}
