package kvm

import (
	"strings"
	"testing"

	"berth/kvmapi"
	"berth/x86"
)

func TestDebugRegisters(t *testing.T) {
	const enable, step, planted, registers, hold = kvmapi.KVM_GUESTDBG_ENABLE, kvmapi.KVM_GUESTDBG_SINGLESTEP, kvmapi.KVM_GUESTDBG_USE_SW_BP,
		kvmapi.KVM_GUESTDBG_USE_HW_BP, kvmapi.KVM_GUESTDBG_BLOCKIRQ
	breaks := func(hardware bool, at ...uint64) (list []x86.Breakpoint) {
		for _, a := range at {
			list = append(list, x86.Breakpoint{Addr: a, Hardware: hardware})
		}
		return list
	}
	watch := func(kind x86.Watch, at, n uint64) []x86.Watchpoint {
		return []x86.Watchpoint{{Addr: at, Len: n, Kind: kind}}
	}
	for _, c := range []struct {
		want    x86.Debug
		control uint32
		arch    [8]uint64
		fails   string
	}{
		{x86.Debug{}, 0, [8]uint64{}, ""},
		{x86.Debug{Step: true}, enable | step, [8]uint64{7: 0x400}, ""},
		{x86.Debug{Step: true, Hold: true}, enable | step | hold, [8]uint64{7: 0x400}, ""},
		{x86.Debug{Breakpoints: breaks(false, 1, 2, 3, 4, 5)}, enable | planted, [8]uint64{7: 0x400}, ""},
		{x86.Debug{Breakpoints: breaks(true, 1, 2, 3, 4)}, enable | registers, [8]uint64{1, 2, 3, 4, 7: 0x4aa}, ""},
		{x86.Debug{Breakpoints: breaks(true, 1, 2, 3, 4, 5)}, 0, [8]uint64{}, "4 debug registers"},
		{x86.Debug{Watchpoints: watch(x86.WatchWrite, 0x1000, 1)}, enable | registers, [8]uint64{0x1000, 7: 0x10402}, ""},
		{x86.Debug{Watchpoints: watch(x86.WatchAccess, 0x1000, 8)}, enable | registers, [8]uint64{0x1000, 7: 0xb0402}, ""},
		{x86.Debug{Watchpoints: watch(x86.WatchWrite, 0x1003, 7)}, enable | registers, [8]uint64{0x1003, 0x1004, 0x1008, 7: 0x5d1042a}, ""},
		{x86.Debug{Watchpoints: watch(x86.WatchWrite, 0x1001, 16)}, 0, [8]uint64{}, "4 debug registers"},
		{x86.Debug{Watchpoints: watch(x86.WatchRead, 0x1000, 4)}, 0, [8]uint64{}, "reads alone"},
	} {
		s := debugState{want: c.want}
		err := s.arrange(hold)
		switch {
		case c.fails != "":
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%+v: %v", c.want, err)
			}
		case err != nil || s.control != c.control || s.arch != c.arch:
			t.Errorf("%+v: control 0x%x, registers %x, %v; want 0x%x, %x", c.want, s.control, s.arch, err, c.control, c.arch)
		}
	}
}

func TestWhatKVMStoppedFor(t *testing.T) {
	s := debugState{want: x86.Debug{
		Step: true, Breakpoints: []x86.Breakpoint{{Addr: 0x100}, {Addr: 0x200, Hardware: true}},
		Watchpoints: []x86.Watchpoint{{Addr: 0x1000, Len: 12, Kind: x86.WatchWrite}},
	}}
	if err := s.arrange(0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		exit kvmapi.RunDebug
		want x86.Stop
		ours bool
	}{
		{kvmapi.RunDebug{Exception: x86.BP, PC: 0x100}, x86.Stop{Kind: x86.StopBreakpoint, Breakpoint: s.want.Breakpoints[0]}, true},
		{kvmapi.RunDebug{Exception: x86.BP, PC: 0x200}, x86.Stop{}, false},
		{kvmapi.RunDebug{Exception: x86.DB, PC: 0x200, DR6: 1}, x86.Stop{Kind: x86.StopBreakpoint, Breakpoint: s.want.Breakpoints[1]}, true},
		{kvmapi.RunDebug{Exception: x86.DB, DR6: dr6BS | 4}, x86.Stop{Kind: x86.StopWatchpoint, Watchpoint: s.want.Watchpoints[0]}, true},
		{kvmapi.RunDebug{Exception: x86.DB, DR6: dr6BS}, x86.Stop{Kind: x86.StopStep}, true},
		{kvmapi.RunDebug{Exception: x86.DB, DR6: 8}, x86.Stop{}, false},
	} {
		if got, ours := s.stopFor(&c.exit); ours != c.ours || ours && got != c.want {
			t.Errorf("%+v: %+v, %t", c.exit, got, ours)
		}
	}
}
