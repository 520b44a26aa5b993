package accel

import (
	"fmt"
	"testing"
	"time"
)

func TestTranslationInOneLine(t *testing.T) {
	c := Translation{
		Instructions: 2_000_000, Translated: 1_000_000, CPU: time.Second, Translating: 100 * time.Millisecond,
		Blocks: 1000, BlockCode: 10_000, Held: 500, Bytes: 300_000, Lookups: 4000, Recent: 3000, TLBMisses: 250, JumpMisses: 500,
		Exits: map[string]uint64{"miss": 250, "far": 500},
	}
	got := fmt.Sprint(append(c.Ran(), c.Made()...)...)
	want := fmt.Sprint(
		"translated", 1000000, "MIPS", "2", "exits", c.Exits, "exit rate", "0.75", "TLB miss rate", "0.25", "jump miss rate", "0.5", "lookup rate", "4",
		"blocks", 1000, "instructions each", "10", "ns per instruction", "10000", "share of CPU", "10.00%",
		"crossing", 0, "removed", 0, "flushes", 0, "held", 500, "bytes", 300000, "bytes per block", "600", "looked up", 4000, "recent", "75.00%")
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var none Translation
	if none.MIPS() != 0 || none.Share() != 0 || none.NanosecondsEach() != 0 {
		t.Error("a vCPU that has not run divides by its time")
	}
}
