package monitor

import (
	"fmt"
	"slices"
	"time"

	"berth/accel"
	"berth/qmp"
)

type (
	statsTarget   string
	statsProvider string
	statsType     string
	statsUnit     string

	// statsFilter is QEMU's StatsFilter.
	statsFilter struct {
		Target    statsTarget    `json:"target" qmp:"tag"`
		Providers []statsRequest `json:"providers,omitempty"`
		VCPU      *statsVCPUs    `json:"-" qmp:"case=vcpu"`
	}
	statsVCPUs struct {
		Paths []string `json:"vcpus,omitempty"`
	}
	statsRequest struct {
		Provider statsProvider `json:"provider"`
		Names    []string      `json:"names,omitempty"`
	}
	// statsResult is QEMU's StatsResult.
	statsResult struct {
		Provider statsProvider `json:"provider"`
		Path     string        `json:"qom-path,omitempty"`
		Stats    []stat        `json:"stats"`
	}
	stat struct {
		Name  string    `json:"name"`
		Value statValue `json:"value"`
	}
	statValue struct {
		qmp.Alternate
		Scalar  *uint64  `json:"-"`
		Boolean *bool    `json:"-"`
		List    []uint64 `json:"-"`
	}
	// statsSchema is QEMU's StatsSchema.
	statsSchema struct {
		Provider statsProvider `json:"provider"`
		Target   statsTarget   `json:"target"`
		Stats    []statSchema  `json:"stats"`
	}
	statSchema struct {
		Name       string    `json:"name"`
		Type       statsType `json:"type"`
		Unit       statsUnit `json:"unit,omitempty"`
		Base       int8      `json:"base,omitempty"`
		Exponent   int16     `json:"exponent"`
		BucketSize uint32    `json:"bucket-size,omitempty"`
	}
	statsSchemaRequest struct {
		Provider statsProvider `json:"provider,omitempty"`
	}
)

// Values implements qmp.Enum.
func (statsTarget) Values() []string { return []string{"vm", "vcpu"} }

// Values implements qmp.Enum.
func (statsProvider) Values() []string { return []string{"kvm", softEngine} }

// Values implements qmp.Enum.
func (statsType) Values() []string {
	return []string{"cumulative", "instant", "peak", "linear-histogram", "log2-histogram"}
}

// Values implements qmp.Enum.
func (statsUnit) Values() []string { return []string{"bytes", "seconds", "cycles", "boolean"} }

// softEngine is the provider of what the soft engine counts.
const softEngine = "soft"

// counter is one count of a vCPU.
type counter struct {
	statSchema
	value func(*accel.Translation) uint64
}

// counters are those of a vCPU that translates.
func counters() []counter {
	sum := func(name string, value func(*accel.Translation) uint64) counter {
		return counter{statSchema{Name: name, Type: "cumulative"}, value}
	}
	seconds := func(name string, value func(*accel.Translation) time.Duration) counter {
		return counter{statSchema{Name: name, Type: "cumulative", Unit: "seconds", Base: 10, Exponent: -9}, func(t *accel.Translation) uint64 { return uint64(value(t)) }}
	}
	return []counter{
		sum("instructions", func(t *accel.Translation) uint64 { return t.Instructions }),
		sum("translated-instructions", func(t *accel.Translation) uint64 { return t.Translated }),
		seconds("cpu-time", func(t *accel.Translation) time.Duration { return t.CPU }),
		seconds("translation-time", func(t *accel.Translation) time.Duration { return t.Translating }),
		sum("translated-blocks", func(t *accel.Translation) uint64 { return t.Blocks }),
		sum("removed-blocks", func(t *accel.Translation) uint64 { return t.Removed }),
		sum("cache-flushes", func(t *accel.Translation) uint64 { return t.Flushes }),
		{statSchema{Name: "held-blocks", Type: "instant"}, func(t *accel.Translation) uint64 { return uint64(t.Held) }},
		{statSchema{Name: "code-bytes", Type: "instant", Unit: "bytes", Base: 2}, func(t *accel.Translation) uint64 { return uint64(t.Bytes) }},
		sum("tlb-misses", func(t *accel.Translation) uint64 { return t.TLBMisses }),
		sum("jump-misses", func(t *accel.Translation) uint64 { return t.JumpMisses }),
	}
}

// statsCommands are those about what is counted.
func (m *Monitor) statsCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("query-stats", "What the engine has counted, of the VM or of its vCPUs.", m.queryStats),
		qmp.Define("query-stats-schemas", "What the engine counts.", func(*qmp.Call, *statsSchemaRequest) ([]statsSchema, error) {
			s := statsSchema{Provider: softEngine, Target: "vcpu"}
			for _, c := range counters() {
				s.Stats = append(s.Stats, c.statSchema)
			}
			if m.cfg.Accelerator != softEngine {
				return []statsSchema{}, nil
			}
			return []statsSchema{s}, nil
		}),
	}
}

func (m *Monitor) queryStats(_ *qmp.Call, a *statsFilter) ([]statsResult, error) {
	list := []statsResult{}
	if a.Target != "vcpu" || m.cfg.Accelerator != softEngine {
		return list, nil
	}
	var names []string // nil: all
	for _, p := range a.Providers {
		if p.Provider == softEngine {
			names = append(names, p.Names...)
		}
	}
	if len(a.Providers) > 0 && !slices.ContainsFunc(a.Providers, func(p statsRequest) bool { return p.Provider == softEngine }) {
		return list, nil
	}
	err := m.vm.Do(func() error {
		for i := range m.vm.CPUs() {
			path := fmt.Sprintf("/machine/unattached/device[%d]", i)
			if a.VCPU != nil && a.VCPU.Paths != nil && !slices.Contains(a.VCPU.Paths, path) {
				continue
			}
			t, ok, err := m.vm.Translation(i)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			r := statsResult{Provider: softEngine, Path: path, Stats: []stat{}}
			for _, c := range counters() {
				if names == nil || slices.Contains(names, c.Name) {
					v := c.value(&t)
					r.Stats = append(r.Stats, stat{c.Name, statValue{Scalar: &v}})
				}
			}
			list = append(list, r)
		}
		return nil
	})
	return list, err
}
