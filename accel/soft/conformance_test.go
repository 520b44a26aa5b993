package soft

import (
	"log/slog"
	"testing"

	"berth/accel"
	"berth/accel/acceltest"
	"berth/x86"
)

func TestConformance(t *testing.T) {
	acceltest.Suite{
		Open:    func(*testing.T) accel.Accelerator { return New(slog.New(slog.DiscardHandler)) },
		MaxCPUs: 4,
		Check:   (*x86.State).CheckVMXEntry,
	}.Run(t)
}
