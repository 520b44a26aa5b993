package kvm

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"

	"berth/accel"
	"berth/accel/acceltest"
	"berth/x86"
)

// open returns the host's KVM. Where the device exists it must work.
func open(t *testing.T) *Accelerator {
	t.Helper()
	if _, err := os.Stat(DefaultPath); errors.Is(err, fs.ErrNotExist) {
		t.Skip("there is no " + DefaultPath + " on this host")
	}
	a, err := New(DefaultPath, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// given returns the state as SetState passes it to KVM.
func given(s *x86.State) *x86.State {
	out := *s
	k := makeSregs(s, 0)
	getSregs(&k, &out)
	r := makeRegs(s)
	getRegs(&r, &out)
	return &out
}

// suite holds every state that goes to KVM against VMX's entry rules.
func suite(t *testing.T) acceltest.Suite {
	a := open(t)
	found, err := Probe(DefaultPath, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return acceltest.Suite{
		Open:    func(*testing.T) accel.Accelerator { return a },
		MaxCPUs: 4, AVX: a.hasAVX(), EmulatesKernel: !found.Usable,
		Check: func(s *x86.State) error { return given(s).CheckVMXEntry() },
	}
}

func TestConformance(t *testing.T) { suite(t).Run(t) }

func TestTheProbesProgramIsItsSource(t *testing.T) { acceltest.Reassemble(t, "probe.asm") }

func TestAnInternalErrorNamesTheInstruction(t *testing.T) {
	g := suite(t).NewGuest(t, "unemulated", 1)
	g.Start()
	g.Ended()
	r := g.CPUs[0]
	if r.Err != nil || r.Exit.Reason != accel.ExitInternal {
		t.Fatalf("%v, %+v", r.Err, r.Exit)
	}
	t.Log(r.Exit.Detail)
	code := acceltest.Program(t, "unemulated")
	at := bytes.Index(code, []byte{0xdb, 0x2b}) // fld tword [ebx]
	if r.Exit.RIP != 0x1000+uint64(at) || !bytes.HasPrefix(r.Exit.Bytes, code[at:]) && !bytes.HasPrefix(r.Exit.Bytes, code[at:at+2]) {
		t.Errorf("RIP 0x%x, bytes % x; want 0x%x, % x", r.Exit.RIP, r.Exit.Bytes, 0x1000+at, code[at:])
	}
	if !strings.Contains(r.Exit.Detail, "emulation failed at RIP 0x") || !strings.Contains(r.Exit.Detail, "db 2b") {
		t.Errorf("detail: %s", r.Exit.Detail)
	}
}

func TestMessageSourcesRunOutCleanly(t *testing.T) {
	g := suite(t).NewGuest(t, "", 1)
	chip := g.VM.IRQChip().(*chip)
	chip.used = chip.used[:2]
	for range 2 {
		if _, err := chip.NewMSISource(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := chip.NewMSISource(); err == nil || !strings.Contains(err.Error(), "all 2 message interrupts are in use") {
		t.Errorf("got %v", err)
	}
}

// hasAVX reports whether guests may use AVX: CPUID leaf 0xd, subleaf 2 exists then.
func (a *Accelerator) hasAVX() bool {
	for _, e := range a.cpuid.Entries[:a.cpuid.Nent] {
		if e.Function == 0xd && e.Index == 2 {
			return e.EAX != 0
		}
	}
	return false
}
