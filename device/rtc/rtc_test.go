package rtc

import (
	"bytes"
	"testing"
	"time"

	"berth/clock"
	"berth/irq"
)

type rig struct {
	*RTC
	t     *testing.T
	clock *clock.Manual
	line  bool
	rises int
}

var start = time.Date(2024, 2, 28, 23, 59, 57, 500_000_000, time.UTC)

func newRig(t *testing.T) *rig {
	r := &rig{t: t, clock: clock.NewManual()}
	r.clock.Advance(123_456_789)
	r.RTC = New(Config{
		IRQ: irq.LineFunc(func(l bool) {
			if l && !r.line {
				r.rises++
			}
			r.line = l
		}),
		Clock: r.clock, Start: start, Below4G: 3 << 30, Above4G: 5 << 30,
	})
	return r
}

func (r *rig) get(i byte) byte {
	r.Write(0, []byte{i})
	var p [1]byte
	r.Read(1, p[:])
	return p[0]
}

func (r *rig) put(i, v byte) { r.Write(0, []byte{i, v}) }

func (r *rig) wantTime(want ...byte) {
	r.t.Helper()
	var got []byte
	for _, i := range []byte{regCentury, regYear, regMonth, regDay, regWeekday, regHours, regMinutes, regSeconds} {
		got = append(got, r.get(i))
	}
	if !bytes.Equal(got, want) {
		r.t.Errorf("time % x, want % x", got, want)
	}
}

func TestCalendarInBCD(t *testing.T) {
	r := newRig(t)
	r.wantTime(0x20, 0x24, 0x02, 0x28, 0x04, 0x23, 0x59, 0x57)
	r.clock.Advance(2_500_000_000) // into the leap day
	r.wantTime(0x20, 0x24, 0x02, 0x29, 0x05, 0x00, 0x00, 0x00)
	r.clock.Advance(24 * 3600 * second)
	r.wantTime(0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x00, 0x00)
}

func TestBinaryAndTwelveHourModes(t *testing.T) {
	r := newRig(t)
	r.put(regB, bBinary)
	r.wantTime(20, 24, 2, 28, 4, 0x80|11, 59, 57)
	r.clock.Advance(3 * second)
	if h := r.get(regHours); h != 12 {
		t.Errorf("midnight is hour %#x", h)
	}
	r.put(regB, 0)
	r.clock.Advance(12 * 3600 * second)
	if h := r.get(regHours); h != 0x92 {
		t.Errorf("noon is hour %#x", h)
	}
	r.put(regHours, 0x81) // 1 PM
	r.put(regB, b24)
	if h := r.get(regHours); h != 0x13 {
		t.Errorf("1 PM is hour %#x", h)
	}
	r.put(regB, 0)
	r.put(regHours, 0x12)
	r.put(regB, b24)
	if h := r.get(regHours); h != 0 {
		t.Errorf("12 AM is hour %#x", h)
	}
}

// MC146818 datasheet, register B, SET.
func TestSetStopsUpdatesAndTakesTheTime(t *testing.T) {
	r := newRig(t)
	r.put(regB, b24|bSet|bUpdate)
	if b := r.get(regB); b != b24|bSet {
		t.Errorf("B %#x: SET clears the update interrupt", b)
	}
	for _, w := range [][2]byte{{regCentury, 0x19}, {regYear, 0x99}, {regMonth, 0x12}, {regDay, 0x31}, {regHours, 0x23}, {regMinutes, 0x59}, {regSeconds, 0x58}} {
		r.put(w[0], w[1])
	}
	r.clock.Advance(10 * second)
	if s := r.get(regSeconds); s != 0x58 {
		t.Errorf("second %#x while set", s)
	}
	r.put(regB, b24)
	r.wantTime(0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x58)
	r.clock.Advance(2 * second)
	r.wantTime(0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00)
	r.put(regMinutes, 0x30) // written while running
	r.wantTime(0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x30, 0x00)
}

// MC146818 datasheet, divider control: the first update is half a second after the reset ends.
func TestDividerReset(t *testing.T) {
	r := newRig(t)
	r.put(regA, 0x76)
	s := r.get(regSeconds)
	r.clock.Advance(5 * second)
	if got := r.get(regSeconds); got != s {
		t.Errorf("second %#x, want %#x", got, s)
	}
	r.put(regA, 0x26)
	r.clock.Advance(second/2 - 1)
	if got := r.get(regSeconds); got != s {
		t.Errorf("second %#x, want %#x", got, s)
	}
	r.clock.Advance(1)
	if got := r.get(regSeconds); got != s+1 {
		t.Errorf("second %#x, want %#x", got, s+1)
	}
}

func TestUpdateInProgress(t *testing.T) {
	r := newRig(t)
	if r.get(regA) != 0x26 {
		t.Errorf("A %#x", r.get(regA))
	}
	r.clock.Advance(second/2 - updateTime)
	if r.get(regA) != 0xa6 {
		t.Errorf("A %#x before an update", r.get(regA))
	}
	r.clock.Advance(updateTime)
	if r.get(regA) != 0x26 {
		t.Errorf("A %#x after an update", r.get(regA))
	}
}

func TestUpdateEndedInterrupt(t *testing.T) {
	r := newRig(t)
	r.put(regB, b24|bUpdate)
	r.clock.Advance(second/2 - 1)
	if r.line {
		t.Error("early")
	}
	r.clock.Advance(1)
	if !r.line {
		t.Error("no interrupt")
	}
	r.clock.Advance(5 * second)
	if r.rises != 1 {
		t.Errorf("%d interrupts without a look at C", r.rises)
	}
	if c := r.get(regC); c&(cRequest|bUpdate) != cRequest|bUpdate {
		t.Errorf("C %#x", c)
	}
	if r.line || r.get(regC) != 0 {
		t.Error("reading C does not clear it")
	}
	r.clock.Advance(second)
	if r.rises != 2 {
		t.Errorf("%d interrupts", r.rises)
	}
}

func TestAlarmInterrupt(t *testing.T) {
	r := newRig(t)
	r.put(regHoursAlarm, 0x00)
	r.put(regMinutesAlarm, 0xff) // any
	r.put(regSecondsAlarm, 0x10)
	r.put(regB, b24|bAlarm)
	r.clock.Advance(12 * second)
	if r.line {
		t.Error("early")
	}
	r.clock.Advance(second)
	if !r.line {
		t.Fatal("no interrupt at 00:00:10")
	}
	if c := r.get(regC); c&^bPeriodic != cRequest|bAlarm|bUpdate {
		t.Errorf("C %#x", c)
	}
	r.clock.Advance(60 * second)
	if !r.line {
		t.Error("no interrupt at 00:01:10")
	}
	r.put(regHoursAlarm, 0x77) // matches nothing
	r.get(regC)
	r.clock.Advance(48 * 3600 * second)
	if r.line {
		t.Error("interrupt at hour 77")
	}
	r.put(regHoursAlarm, 0xc0)
	r.clock.Advance(100 * second)
	if !r.line {
		t.Error("alarm changed while armed")
	}
}

// lateClock's timers have not fired yet.
type lateClock struct{ *clock.Manual }

func (lateClock) NewTimer(func()) clock.Timer { return noTimer{} }

type noTimer struct{}

func (noTimer) Set(uint64) {}
func (noTimer) Stop()      {}

// TestPolledFlagHasItsRequest: whoever polls register C before the timer fires
// sees an enabled flag together with its interrupt request.
func TestPolledFlagHasItsRequest(t *testing.T) {
	r := newRig(t)
	r.RTC = New(Config{IRQ: irq.LineFunc(func(l bool) {
		if l {
			r.rises++
		}
	}), Clock: lateClock{r.clock}, Start: start})
	r.put(regA, 0x26)
	r.get(regC)
	r.put(regB, b24|bPeriodic)
	r.clock.Advance(second / 100)
	if c := r.get(regC); c&(cRequest|bPeriodic) != cRequest|bPeriodic {
		t.Errorf("C %#x", c)
	}
	if r.rises != 1 {
		t.Errorf("%d interrupts", r.rises)
	}
}

func TestAlarmFlagWithoutInterruptIsPolled(t *testing.T) {
	r := newRig(t)
	for i := byte(1); i <= 5; i += 2 {
		r.put(i, 0)
	}
	r.get(regC)
	r.clock.Advance(2 * second)
	if c := r.get(regC); c&bAlarm != 0 {
		t.Errorf("C %#x early", c)
	}
	r.clock.Advance(second)
	if c := r.get(regC); c&bAlarm == 0 {
		t.Errorf("C %#x after midnight", c)
	}
	if r.rises != 0 {
		t.Error("interrupt without enable")
	}
}

// MC146818 datasheet, table 5.
func TestPeriodicInterruptRates(t *testing.T) {
	for rate, hz := range map[byte]int{1: 256, 2: 128, 3: 8192, 6: 1024, 15: 2} {
		r := newRig(t)
		r.put(regA, 0x20|rate)
		r.put(regB, b24|bPeriodic)
		r.get(regC)
		n := 0
		for range 40000 {
			r.clock.Advance(25_000)
			if r.line {
				n++
				if c := r.get(regC); c&(cRequest|bPeriodic) != cRequest|bPeriodic {
					t.Fatalf("C %#x", c)
				}
			}
		}
		if n < hz-1 || n > hz+1 {
			t.Errorf("rate %d: %d interrupts a second, want %d", rate, n, hz)
		}
	}
	r := newRig(t)
	r.put(regA, 0x20)
	r.put(regB, b24|bPeriodic)
	r.clock.Advance(second)
	if r.line {
		t.Error("rate 0 interrupts")
	}
}

func TestMemorySizeAndRAM(t *testing.T) {
	r := newRig(t)
	for i, want := range map[byte]byte{0x15: 0x80, 0x16: 0x02, 0x17: 0xff, 0x18: 0xff, 0x30: 0xff, 0x34: 0x00, 0x35: 0xbf,
		0x5b: 0x00, 0x5c: 0x40, 0x5d: 0x01, regD: dValid, regEquipment: 2} {
		if v := r.get(i); v != want {
			t.Errorf("CMOS %#x: %#x, want %#x", i, v, want)
		}
	}
	r.put(0x0f, 0x5a)
	r.put(regD, 0)
	r.put(regC, 0xff)
	if r.get(0x8f) != 0x5a || r.get(regD) != dValid {
		t.Error("RAM, or a read-only register was written")
	}
	small := New(Config{IRQ: irq.LineFunc(func(bool) {}), Clock: clock.NewManual(), Start: start, Below4G: 1 << 19})
	if s := small.Save(); s.CMOS[0x17] != 0 || s.CMOS[0x34] != 0 {
		t.Error("sizes of a tiny machine")
	}
}

func TestStateRoundTripInMidOperation(t *testing.T) {
	r := newRig(t)
	r.put(regB, b24|bUpdate|bAlarm|bPeriodic)
	r.clock.Advance(second)
	r.get(regC)
	r.clock.Advance(100)
	s := r.Save()
	n := newRig(t)
	n.clock.Advance(second + 100)
	if err := n.Load(s); err != nil {
		t.Fatal(err)
	}
	if got := n.Save(); got != s {
		t.Errorf("got %+v, want %+v", got, s)
	}
	for range 5000 {
		r.clock.Advance(200_000)
		n.clock.Advance(200_000)
		if r.line != n.line {
			t.Fatal("lines differ")
		}
		if a, b := r.get(regC), n.get(regC); a != b {
			t.Fatalf("C %#x and %#x", a, b)
		}
	}
	for _, bad := range []State{{Version: 9}, {Version: 1, Index: 200}, {Version: 1, Phase: second}} {
		if n.Load(bad) == nil {
			t.Errorf("accepted version %d index %d", bad.Version, bad.Index)
		}
	}
}

func TestResetDisablesInterruptsAndKeepsTime(t *testing.T) {
	r := newRig(t)
	r.put(regB, b24|bUpdate)
	r.clock.Advance(second)
	r.Reset()
	r.clock.Advance(10 * second)
	if r.line || r.get(regB) != b24 {
		t.Error("interrupts survive")
	}
	r.wantTime(0x20, 0x24, 0x02, 0x29, 0x05, 0x00, 0x00, 0x08)
}

func TestHostileAccess(t *testing.T) {
	r := newRig(t)
	for i := range 256 {
		for _, v := range []byte{0, 1, 0x0f, 0x7f, 0x80, 0xaa, 0xff} {
			r.put(byte(i), v)
			r.get(byte(i))
			r.clock.Advance(uint64(v) << 28)
		}
	}
	for _, width := range []int{1, 2, 4, 8} {
		for off := range uint64(2) {
			p := bytes.Repeat([]byte{0xff}, width)
			r.Write(off, p)
			r.Read(off, p)
		}
	}
	for b := range 256 { // every control value with nonsense for a time
		r.put(regB, bSet)
		for i := range byte(10) {
			r.put(i, 0xff)
		}
		r.put(regCentury, 0xff)
		r.put(regB, byte(b))
		r.clock.Advance(second)
		r.get(regC)
		r.get(regYear)
	}
}
