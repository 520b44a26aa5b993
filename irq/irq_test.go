package irq

import "testing"

func TestMSIFields(t *testing.T) {
	m := MSI{Addr: 0xfee12004, Data: 0xc3a1}
	if m.Dest() != 0x12 || !m.Logical() || m.Vector() != 0xa1 || m.DeliveryMode() != 3 || !m.LevelTriggered() {
		t.Errorf("%x %v %x %d %v", m.Dest(), m.Logical(), m.Vector(), m.DeliveryMode(), m.LevelTriggered())
	}
}

func TestSharedLineIsTheOrOfItsSources(t *testing.T) {
	var level bool
	changes := 0
	s := NewShared(LineFunc(func(l bool) { level = l; changes++ }))
	a, b := s.Source(), s.Source()
	for i, step := range []struct {
		line Line
		set  bool
		want bool
	}{{a, true, true}, {b, true, true}, {a, true, true}, {a, false, true}, {b, false, false}, {b, false, false}, {a, true, true}} {
		step.line.Set(step.set)
		if level != step.want {
			t.Errorf("step %d: level %v", i, level)
		}
	}
	if changes != 3 {
		t.Errorf("the line was driven %d times, want 3", changes)
	}
}
