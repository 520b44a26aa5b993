package monitor

import (
	"errors"
	"math"
	"time"

	"berth/machine"
	"berth/qmp"
	"berth/spec"
	"berth/virtio/balloon"
)

// balloonRate is the least time between two BALLOON_CHANGE.
const balloonRate = time.Second

// balloonInfo is QEMU's BalloonInfo, and the data of BALLOON_CHANGE.
type balloonInfo struct {
	Actual uint64 `json:"actual"`
}

type balloonValue struct {
	Value int64 `json:"value"`
}

// guestStats is the value of a balloon's property guest-stats: bytes and counts, all
// ones if the guest does not say.
type guestStats struct {
	Stats      memoryStats `json:"stats"`
	LastUpdate int64       `json:"last-update"` // seconds; 0: never
}

type memoryStats struct {
	SwapIn             uint64 `json:"stat-swap-in"`
	SwapOut            uint64 `json:"stat-swap-out"`
	MajorFaults        uint64 `json:"stat-major-faults"`
	MinorFaults        uint64 `json:"stat-minor-faults"`
	FreeMemory         uint64 `json:"stat-free-memory"`
	TotalMemory        uint64 `json:"stat-total-memory"`
	AvailableMemory    uint64 `json:"stat-available-memory"`
	DiskCaches         uint64 `json:"stat-disk-caches"`
	HugePagesAllocated uint64 `json:"stat-htlb-pgalloc"`
	HugePagesFailed    uint64 `json:"stat-htlb-pgfail"`
}

// balloonCommands are those about the balloon.
func (m *Monitor) balloonCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("query-balloon", "How much memory the guest has beside what is in the balloon.", func(*qmp.Call, *qmp.None) (i balloonInfo, err error) {
			err = m.withBalloon(func(b *balloon.Device) error {
				i.Actual = b.Actual()
				return nil
			})
			return i, err
		}),
		qmp.Define("balloon", "Asks the guest to get along with so many bytes of memory.", func(_ *qmp.Call, a *balloonValue) (none qmp.None, err error) {
			return none, m.withBalloon(func(b *balloon.Device) error {
				if a.Value <= 0 {
					return errors.New("Parameter 'target' expects a size")
				}
				b.SetTarget(uint64(a.Value))
				return nil
			})
		}),
	}
}

func (m *Monitor) withBalloon(f func(*balloon.Device) error) error {
	return m.vm.Do(func() error {
		b := m.vm.Balloon()
		if b == nil {
			return &qmp.Error{Class: qmp.DeviceNotActive, Desc: "No balloon device has been activated"}
		}
		return f(b)
	})
}

func plugBalloon(m *Monitor, at machine.Place, p *properties) error {
	o := spec.Balloon{DeflateOnOOM: p.flag("deflate-on-oom", false), FreePageReporting: p.flag("free-page-reporting", false)}
	if p.err != nil {
		return p.err
	}
	return m.vm.PlugBalloon(at, o)
}

// balloonProperties are those of the balloon among QEMU's objects.
func balloonProperties(b *balloon.Device) []objectProperty {
	s := b.Stats()
	v := s.Values
	stats := guestStats{Stats: memoryStats{
		v[balloon.SwapIn], v[balloon.SwapOut], v[balloon.MajorFaults], v[balloon.MinorFaults], v[balloon.FreeMemory],
		v[balloon.TotalMemory], v[balloon.AvailableMemory], v[balloon.DiskCaches], v[balloon.HugePagesAllocated], v[balloon.HugePagesFailed],
	}}
	if !s.At.IsZero() {
		stats.LastUpdate = s.At.Unix()
	}
	return []objectProperty{
		{name: "guest-stats", kind: "guest statistics", value: stats},
		{name: "guest-stats-polling-interval", kind: "int", value: int64(b.Interval() / time.Second), set: func(v any) error {
			seconds, ok := v.(int64)
			switch {
			case !ok:
				return errors.New("Invalid parameter type for 'guest-stats-polling-interval', expected: integer")
			case seconds < 0:
				return errors.New("timer value must be greater than zero")
			case seconds > math.MaxUint32:
				return errors.New("timer value is too big")
			}
			b.SetInterval(time.Duration(seconds) * time.Second)
			return nil
		}},
	}
}
