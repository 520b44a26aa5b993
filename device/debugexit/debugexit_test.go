package debugexit

import "testing"

func TestStatusIsValueTimesTwoPlusOne(t *testing.T) {
	var got []int
	d := New(func(status int) { got = append(got, status) })
	for _, p := range [][]byte{{0}, {0x10}, {1, 2}, {0xff, 0xff, 0xff, 0xff}, {1, 0, 0, 0, 9, 9, 9, 9}} {
		d.Write(0, p)
	}
	want := []int{1, 0x21, 0x403, 0x1ffffffff, 3}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("write %d: status %#x, want %#x", i, got[i], want[i])
		}
	}
	p := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	if d.Read(0, p); p[0] != 0 || p[7] != 0 {
		t.Errorf("reads % x", p)
	}
}

func TestStateVersion(t *testing.T) {
	d := New(func(int) {})
	if err := d.Load(d.Save()); err != nil {
		t.Error(err)
	}
	if d.Load(State{}) == nil {
		t.Error("unknown version accepted")
	}
}
