package irq

import "testing"

func TestCounterCountsRises(t *testing.T) {
	var c Counter
	for _, level := range []bool{true, true, false, false, true} {
		c.Set(4, level)
		c.Set(23, !level)
		c.Set(24, level) // there is none
	}
	n := c.Counts()
	if n[4] != 2 || n[23] != 1 || n[0] != 0 {
		t.Errorf("%v", n)
	}
}
