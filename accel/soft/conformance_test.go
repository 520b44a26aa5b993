package soft

import (
	"log/slog"
	"testing"

	"berth/accel"
	"berth/accel/acceltest"
)

func TestConformance(t *testing.T) {
	acceltest.Suite{
		Open:    func(*testing.T) accel.Accelerator { return New(slog.New(slog.DiscardHandler)) },
		MaxCPUs: 4,
	}.Run(t)
}
