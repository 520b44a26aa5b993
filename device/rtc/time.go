package rtc

import "time"

func isTime(i uint8) bool {
	return i <= regYear && i != regSecondsAlarm && i != regMinutesAlarm && i != regHoursAlarm || i == regCentury
}

// unix returns the RTC's second at guest time ns.
func (r *RTC) unix(ns uint64) int64 { return r.s.Offset + int64((ns+r.s.Phase)/second) }

// guestTime is unix's inverse: when the second s begins.
func (r *RTC) guestTime(s int64) uint64 { return uint64(s-r.s.Offset)*second - r.s.Phase }

// digits is a value below 100 as register B's data mode has it.
func (r *RTC) digits(v int) byte {
	if r.s.CMOS[regB]&bBinary != 0 {
		return byte(v)
	}
	return byte(v/10<<4 | v%10)
}

func (r *RTC) value(b byte) int {
	if r.s.CMOS[regB]&bBinary != 0 {
		return int(b)
	}
	return int(b>>4)*10 + int(b&15)
}

// hour is an hour of the day as register B's hour mode has it.
func (r *RTC) hour(h int) byte {
	if r.s.CMOS[regB]&b24 != 0 {
		return r.digits(h)
	}
	v := r.digits((h+11)%12 + 1)
	if h >= 12 {
		v |= 0x80
	}
	return v
}

// encode returns CMOS with the time that runs.
func (r *RTC) encode(now uint64) [size]byte {
	m := r.s.CMOS
	t := time.Unix(r.unix(now), 0).UTC()
	m[regSeconds] = r.digits(t.Second())
	m[regMinutes] = r.digits(t.Minute())
	m[regHours] = r.hour(t.Hour())
	m[regWeekday] = r.digits(int(t.Weekday()) + 1)
	m[regDay] = r.digits(t.Day())
	m[regMonth] = r.digits(int(t.Month()))
	year := max(0, t.Year())
	m[regYear] = r.digits(year % 100)
	m[regCentury] = r.digits(year / 100 % 100)
	return m
}

func (r *RTC) freeze(now uint64) { r.s.CMOS = r.encode(now) }

// setTime makes the time bytes of m the present time. Bytes out of range carry
// over, as a calendar does.
func (r *RTC) setTime(m [size]byte, now uint64) {
	h := r.value(m[regHours])
	if r.s.CMOS[regB]&b24 == 0 {
		h = r.value(m[regHours]&0x7f) % 12
		if m[regHours]&0x80 != 0 {
			h += 12
		}
	}
	year := r.value(m[regCentury])*100 + r.value(m[regYear])
	t := time.Date(year, time.Month(r.value(m[regMonth])), r.value(m[regDay]), h,
		r.value(m[regMinutes]), r.value(m[regSeconds]), 0, time.UTC)
	r.s.Offset += t.Unix() - r.unix(now)
}

// nextAlarm returns the first second after s that the alarm bytes match; not ok
// if they match none.
func (r *RTC) nextAlarm(s int64) (at int64, ok bool) {
	m := &r.s.CMOS
	match := func(alarm, v byte) bool { return alarm&alarmAny == alarmAny || alarm == v }
	const day = 24 * 60 * 60
	end := s + day
	for at = s + 1; at <= end; {
		t := int(((at % day) + day) % day)
		h, min, sec := t/3600, t/60%60, t%60
		switch {
		case !match(m[regHoursAlarm], r.hour(h)):
			at += int64(3600 - t%3600)
		case !match(m[regMinutesAlarm], r.digits(min)):
			at += int64(60 - sec)
		case !match(m[regSecondsAlarm], r.digits(sec)):
			at++
		default:
			return at, true
		}
	}
	return 0, false
}
