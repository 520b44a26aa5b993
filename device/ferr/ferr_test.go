package ferr

import (
	"testing"

	"berth/irq"
)

type rig struct {
	*FERR
	line, ignored bool
}

func newRig() *rig {
	r := &rig{}
	r.FERR = New(irq.LineFunc(func(l bool) { r.line = l }), func(on bool) { r.ignored = on })
	return r
}

func (r *rig) want(t *testing.T, line, ignored bool) {
	t.Helper()
	if r.line != line || r.ignored != ignored {
		t.Errorf("IRQ 13 %t, IGNNE# %t, want %t, %t", r.line, r.ignored, line, ignored)
	}
}

// ICH9 datasheet §5.13.2: the interrupt lasts until the write, IGNNE# from there
// to the error's end.
func TestErrorInterruptAndIgnore(t *testing.T) {
	r := newRig()
	r.Port().Write(0, []byte{0})
	r.want(t, false, false) // nothing to ignore
	r.Set(true)
	r.want(t, true, false)
	r.Port().Write(1, []byte{0})
	r.want(t, true, false)
	r.Port().Write(0, []byte{0})
	r.want(t, false, true)
	r.Set(true)
	r.want(t, false, true)
	r.Set(false)
	r.want(t, false, false)
	r.Set(true)
	r.want(t, true, false)
	r.Set(false)
	r.want(t, true, false) // latched
	r.Port().Write(0, []byte{0})
	r.want(t, false, false)
}

func TestStateAndReset(t *testing.T) {
	r := newRig()
	r.Set(true)
	r.Port().Write(0, []byte{0})
	n := newRig()
	if err := n.Load(r.Save()); err != nil {
		t.Fatal(err)
	}
	n.want(t, false, true)
	n.Set(false)
	n.want(t, false, false)
	r.Reset()
	r.want(t, false, false)
	if s := r.Save(); s != (irq.FERRState{}) {
		t.Errorf("after reset %+v", s)
	}
	if r.Load(irq.FERRState{Ignored: true}) == nil {
		t.Error("an impossible state was taken")
	}
}

func TestHostileAccessEveryOffsetAndWidth(t *testing.T) {
	r := newRig()
	for _, width := range []int{1, 2, 4, 8} {
		for off := range uint64(Size) {
			p := make([]byte, width)
			r.Port().Write(off, p)
			r.Port().Read(off, p)
			if p[0] != 0xff {
				t.Errorf("offset %d reads %#x", off, p)
			}
		}
	}
}
