package acceltest

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"berth/accel"
	"berth/x86"
)

func (suite Suite) dirtyLog(t *testing.T) {
	g := suite.NewGuest(t, "dirty", 1)
	d := g.VM.(accel.DirtyLogger)
	collect := func() (pages []uint64) {
		t.Helper()
		if err := d.CollectDirty(func(gpa uint64) { pages = append(pages, gpa) }); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	g.Numbers(0x180000, 0x1ff004, 0x20000)
	if err := d.SetDirtyLog(true); err != nil {
		t.Fatal(err)
	}
	g.Run()
	rounds := [][]uint64{collect(), collect()}
	for _, gpa := range []uint64{0x180000, 0x1ff000, 0x20000} {
		if !slices.Contains(rounds[0], gpa) {
			t.Errorf("page 0x%x is not in %x", gpa, rounds[0])
		}
	}
	if slices.Contains(rounds[0], 0x190000) {
		t.Errorf("a page that nobody wrote is in %x", rounds[0])
	}
	if len(rounds[1]) != 0 {
		t.Errorf("a second collection gives %x", rounds[1])
	}
	// The program anew, from reset: this round has what is written now, and nothing of before.
	var reset x86.State
	suite.NewGuest(t, "dirty", 1).Get(0, &reset)
	g.Set(0, &reset)
	g.Numbers(0x190000)
	g.Run()
	if round := collect(); !slices.Contains(round, 0x190000) || slices.Contains(round, 0x180000) {
		t.Errorf("second round: %x", round)
	}
	if err := d.SetDirtyLog(false); err != nil {
		t.Fatal(err)
	}
}

func (suite Suite) doorbells(t *testing.T) {
	g := suite.NewGuest(t, "doorbell", 1)
	d := g.VM.(accel.Doorbells)
	fd := func() int {
		f, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(f) })
		return f
	}
	count := func(f int) uint64 {
		var b [8]byte
		if _, err := unix.Read(f, b[:]); err != nil {
			return 0
		}
		return uint64(b[0])
	}
	four := uint64(4)
	matched, anything := fd(), fd()
	add := func(addr uint64, size int, value *uint64, f int) {
		t.Helper()
		if err := d.AddDoorbell(addr, size, value, f); err != nil {
			t.Fatal(err)
		}
	}
	add(0xd0001000, 2, &four, matched)
	add(0xd0001004, 0, nil, anything)
	if err := d.AddDoorbell(0xd0001004, 0, nil, anything); err == nil {
		t.Errorf("adding twice: %v", err)
	}
	g.Run()
	if m, a := count(matched), count(anything); m != 2 || a != 1 {
		t.Errorf("rung %d and %d times, want 2 and 1", m, a)
	}
	if got := g.MMIO.All(); !slices.Equal(got, []Access{{0xd0001000, 2, 3, true}}) {
		t.Errorf("left for MMIO: %+v", got)
	}
	if err := errors.Join(d.RemoveDoorbell(0xd0001000, 2, &four, matched), d.RemoveDoorbell(0xd0001004, 0, nil, anything)); err != nil {
		t.Error(err)
	}
}
