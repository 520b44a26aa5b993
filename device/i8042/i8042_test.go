package i8042

import "testing"

func TestResetCommandAndStatus(t *testing.T) {
	resets := 0
	c := New(func() { resets++ })
	for v := range 256 {
		c.Command().Write(0, []byte{byte(v)})
		c.Data().Write(0, []byte{byte(v)})
	}
	if resets != 1 {
		t.Errorf("%d resets, want 1", resets)
	}
	for _, width := range []int{1, 2, 4, 8} {
		p := make([]byte, width)
		c.Command().Read(0, p)
		if p[0]&3 != 0 { // what a reset loop waits for
			t.Errorf("status %#x has a full buffer", p[0])
		}
		c.Data().Read(0, p)
		if p[0] != 0 {
			t.Errorf("data %#x", p[0])
		}
	}
}

func TestStateVersion(t *testing.T) {
	c := New(func() {})
	if err := c.Load(c.Save()); err != nil {
		t.Error(err)
	}
	if c.Load(State{}) == nil {
		t.Error("unknown version accepted")
	}
}
