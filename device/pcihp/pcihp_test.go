package pcihp

import (
	"encoding/binary"
	"slices"
	"testing"
)

func read(b *Block, off uint64) uint32 {
	var p [4]byte
	b.Read(off, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

func TestBlock(t *testing.T) {
	raised, ejected := 0, []int{}
	b := New(Config{Raise: func() { raised++ }, Eject: func(slot int) { ejected = append(ejected, slot) }})
	b.Plugged(3)
	b.Plugged(0)
	b.Want(31)
	if raised != 3 {
		t.Errorf("%d events", raised)
	}
	s := b.Save()
	if a, c := read(b, 0), read(b, 0); a != 9 || c != 0 {
		t.Errorf("plugged 0x%x, then 0x%x", a, c)
	}
	if a, c := read(b, 4), read(b, 4); a != 1<<31 || c != 0 {
		t.Errorf("wanted 0x%x, then 0x%x", a, c)
	}
	if err := b.Load(s); err != nil || b.Load(State{Version: 9}) == nil {
		t.Errorf("Load: %v", err)
	}
	b.Forget(3)
	b.Write(8, []byte{3, 0, 0, 0x80})
	if !slices.Equal(ejected, []int{0, 1, 31}) {
		t.Errorf("ejected %v", ejected)
	}
	if a, c := read(b, 0), read(b, 4); a != 0 || c != 0 {
		t.Errorf("plugged 0x%x, wanted 0x%x after the ejects", a, c)
	}
	// Other widths and places.
	b.Plugged(1)
	for _, off := range []uint64{0, 1, 4, 8, 10} {
		for _, n := range []int{1, 2} {
			p := []byte{0xff, 0xff}[:n]
			b.Write(off, p)
			if b.Read(off, p); slices.ContainsFunc(p, func(v byte) bool { return v != 0 }) {
				t.Errorf("+%d reads % x", off, p)
			}
		}
	}
	b.Write(0, []byte{1, 1, 1, 1})
	if len(ejected) != 3 || read(b, 8) != 0 || read(b, 0) != 2 {
		t.Error("an access of another width had an effect")
	}
	b.Plugged(1)
	b.Want(1)
	if b.Reset(); read(b, 0)|read(b, 4) != 0 {
		t.Error("something is left after a reset")
	}
}
