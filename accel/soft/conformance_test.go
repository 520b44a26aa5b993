package soft

import (
	"log/slog"
	"testing"

	"berth/accel"
	"berth/accel/acceltest"
	"berth/x86"
	"berth/x86/jit"
)

func TestConformance(t *testing.T) {
	for _, engine := range []Engine{Interp, JIT} {
		t.Run(string(engine), func(t *testing.T) {
			acceltest.Suite{
				Open:    func(t *testing.T) accel.Accelerator { return open(t, engine) },
				MaxCPUs: 4,
				AVX:     jit.AVX(),
				Check:   (*x86.State).CheckVMXEntry,
			}.Run(t)
		})
	}
}

// open returns an engine, or skips the test if the host cannot run it.
func open(t *testing.T, engine Engine) *Accelerator {
	t.Helper()
	if engine == JIT && !jit.Available() {
		t.Skip("the host runs no translated code")
	}
	a, err := NewEngine(engine, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}
