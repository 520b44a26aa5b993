package accel

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Translation is what a vCPU that translates guest code has counted since it was made.
type Translation struct {
	Instructions uint64        // that the guest ran
	Translated   uint64        // of them, as translated code
	CPU          time.Duration // that the vCPU's thread used
	Translating  time.Duration // of that, for translation

	Blocks     uint64 // that were translated, some of them more than once
	BlockCode  uint64 // guest instructions in them
	Crossing   uint64 // of Blocks, those in two pages
	Removed    uint64 // of Blocks, those whose code the guest wrote or moved
	Flushes    uint64 // how often all blocks were forgotten
	Held       int    // blocks there now
	Bytes      int    // of host code there now
	Lookups    uint64 // of a block by its address, outside translated code
	Recent     uint64 // of Lookups, those that the table of recent blocks answered
	TLBMisses  uint64 // accesses that translated code left for
	JumpMisses uint64 // jumps and returns that the table of jumps did not know

	Exits map[string]uint64 // from translated code, by the reason's name
}

// Add adds what another vCPU has counted.
func (t *Translation) Add(o Translation) {
	t.Instructions += o.Instructions
	t.Translated += o.Translated
	t.CPU += o.CPU
	t.Translating += o.Translating
	t.Blocks += o.Blocks
	t.BlockCode += o.BlockCode
	t.Crossing += o.Crossing
	t.Removed += o.Removed
	t.Flushes += o.Flushes
	t.Held += o.Held
	t.Bytes += o.Bytes
	t.Lookups += o.Lookups
	t.Recent += o.Recent
	t.TLBMisses += o.TLBMisses
	t.JumpMisses += o.JumpMisses
	for k, n := range o.Exits {
		if t.Exits == nil {
			t.Exits = map[string]uint64{}
		}
		t.Exits[k] += n
	}
}

// MIPS is how many million instructions the guest ran per CPU-second.
func (t *Translation) MIPS() float64 { return ratio(float64(t.Instructions)/1e6, t.CPU.Seconds()) }

// NanosecondsEach is what the translation of one guest instruction took.
func (t *Translation) NanosecondsEach() float64 {
	return ratio(float64(t.Translating), float64(t.BlockCode))
}

// Share is how much of its time the vCPU translates, from 0 to 1.
func (t *Translation) Share() float64 { return ratio(float64(t.Translating), float64(t.CPU)) }

// Ran is how the guest's code ran, as keys and values of a log; rates are per thousand
// translated instructions.
func (t *Translation) Ran() []any {
	rate := func(n uint64) string { return number(1000 * ratio(float64(n), float64(t.Translated))) }
	exits := uint64(0)
	for _, n := range t.Exits {
		exits += n
	}
	return []any{
		"translated", t.Translated, "MIPS", number(t.MIPS()), "exits", t.Exits,
		"exit rate", rate(exits), "TLB miss rate", rate(t.TLBMisses), "jump miss rate", rate(t.JumpMisses), "lookup rate", rate(t.Lookups),
	}
}

// Made is what was translated, likewise.
func (t *Translation) Made() []any {
	return []any{
		"blocks", t.Blocks, "instructions each", number(ratio(float64(t.BlockCode), float64(t.Blocks))),
		"ns per instruction", number(t.NanosecondsEach()), "share of CPU", percent(t.Share()),
		"crossing", t.Crossing, "removed", t.Removed, "flushes", t.Flushes, "held", t.Held, "bytes", t.Bytes,
		"bytes per block", number(ratio(float64(t.Bytes), float64(t.Held))),
		"looked up", t.Lookups, "recent", percent(ratio(float64(t.Recent), float64(t.Lookups))),
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func number(v float64) string { return strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64) }

func percent(v float64) string { return fmt.Sprintf("%.2f%%", 100*v) }
