package spec

import (
	"strings"
	"testing"
)

func TestSlots(t *testing.T) {
	for _, c := range []struct {
		board string
		slots Slots
		want  Slots
		err   string
	}{
		{"q35", unsetSlots, 4, ""}, {"q35-2", unsetSlots, 4, ""}, {"q35-2", 0, 0, ""}, {"q35-2", 16, 16, ""},
		{"q35-1", unsetSlots, 0, ""}, {"microvm", unsetSlots, 0, ""},
		{"q35-1", 1, 1, "use q35-2"}, {"microvm", 1, 1, "use --machine q35"}, {"q35", 17, 17, "0 to 16"},
	} {
		m := Default()
		m.Boot.Kernel, m.Board, m.HotplugSlots = "k", c.board, c.slots
		if err := m.Complete(); err != nil || m.HotplugSlots != c.want {
			t.Errorf("%+v: %d, %v", c, m.HotplugSlots, err)
		}
		if err := m.Validate(); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, bad := range []string{"", "x", "-1", "17"} {
		var s Slots
		if err := s.Set(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
