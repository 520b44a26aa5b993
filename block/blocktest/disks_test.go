package blocktest

import (
	"errors"
	"testing"

	"berth/block"
)

func TestMemKeepsTheContract(t *testing.T) {
	Run(t, func(*testing.T) block.Disk { return NewMem(Size) })
}

func TestFaultyThatNeverFailsKeepsTheContract(t *testing.T) {
	Run(t, func(*testing.T) block.Disk {
		return &Faulty{NewMem(Size), func(*block.Request) error { return nil }}
	})
}

func TestFaultyFailsOnlyWhatItIsTold(t *testing.T) {
	bad := errors.New("bad sector")
	d := &Faulty{NewMem(Size), func(r *block.Request) error {
		if r.Op == block.OpRead && r.Off <= 4096 && r.Off+r.Len > 4096 {
			return bad
		}
		return nil
	}}
	p := make([]byte, 512)
	if _, err := block.ReadAt(d, p, 4096); !errors.Is(err, bad) {
		t.Errorf("read of the bad sector: %v", err)
	}
	if _, err := block.ReadAt(d, p, 4608); err != nil {
		t.Errorf("read beside it: %v", err)
	}
	if _, err := block.WriteAt(d, p, 4096); err != nil {
		t.Errorf("write: %v", err)
	}
}

func TestStalledReleasesEverything(t *testing.T) {
	s := &Stalled{Disk: NewMem(Size)}
	n := 0
	for range 3 {
		s.Submit(&block.Request{Op: block.OpFlush, Done: func(error) { n++ }})
	}
	if s.Held() != 3 || n != 0 {
		t.Fatalf("%d held, %d done", s.Held(), n)
	}
	if s.Release(); s.Held() != 0 || n != 3 {
		t.Errorf("%d held, %d done after Release", s.Held(), n)
	}
}
