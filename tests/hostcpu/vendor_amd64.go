package hostcpu

import (
	"bytes"
	"os"
	"slices"
	"sync"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// What Intel's processors do otherwise than AMD's, which the soft engine was made to
// agree with, where the manuals leave it open: docs/decisions/0012-differential-tests.md
// has the list. Each is excused by instruction, and only the bits concerned.

// intelHost reports that the host is Intel's.
var intelHost = sync.OnceValue(func() bool {
	text, _ := os.ReadFile("/proc/cpuinfo")
	return bytes.Contains(text, []byte("GenuineIntel"))
})

// instAt is the instruction of a case that a result stopped in, nil if in none.
func instAt(c *Case, insts []decode.Inst, r *Result) *decode.Inst {
	at := r.State.RIP - c.State.RIP
	for i := range insts {
		if at == 0 {
			return &insts[i]
		}
		at -= uint64(insts[i].Len)
	}
	return nil
}

func memoryFault(v uint8) bool {
	return v == x86.PF || v == x86.GP || v == x86.SSFault
}

// storeStopped reports that an unmasked exception stopped a store of the x87, in stopped
// at: then Intel does not look at the operand, AMD and berth fault on it.
func storeStopped(at *decode.Inst, want, got *Result) bool {
	const fswES = 1 << 7
	return intelHost() && at != nil && storesX87(at) && (memoryFault(got.Vector) || got.Vector == x86.AC) &&
		want.State.RIP != got.State.RIP && want.State.FX[2]&fswES != 0
}

// storesX87 reports the stores of the x87 that may raise an exception of its own.
func storesX87(in *decode.Inst) bool {
	switch in.Op {
	case optab.FST, optab.FSTP, optab.FIST, optab.FISTP, optab.FISTTP, optab.FBSTP:
		return in.Mem
	}
	return false
}

// storesMMX reports the stores of an MMX register: on Intel the x87 is in MMX state
// already when they fault.
func storesMMX(in *decode.Inst) bool {
	return in.Mem && (in.Op == optab.MOVD || in.Op == optab.MOVQ || in.Op == optab.MOVNTQ) && slices.Contains(in.Row.Args[1:], optab.Pq)
}

// wraps reports a fault on an operand that runs past 4 GiB outside 64-bit mode: whether
// that violates the segment's limit is up to the processor (SDM vol. 3A §5.3), on AMD
// and in berth it does.
func (d *differ) wraps(want, got *Result) bool {
	const longest = 64
	return intelHost() && d.c.Mode != decode.Mode64 && want.Vector == x86.PF && (got.Vector == x86.GP || got.Vector == x86.SSFault) &&
		uint32(want.CR2+longest) < 2*longest
}

// anyByte reports the instructions of which Intel reports another byte of the operand
// in CR2 than the first that faults.
func anyByte(in *decode.Inst) bool {
	return in.Op == optab.MASKMOVDQU || in.Op >= optab.VMASKMOVPS && in.Op <= optab.VPMASKMOVQ
}

// repeats reports a repeated string instruction.
func repeats(in *decode.Inst) bool {
	switch in.Op {
	case optab.MOVS, optab.CMPS, optab.STOS, optab.LODS, optab.SCAS:
		return in.Rep || in.RepN
	}
	return false
}

// stringMask is what of a register is compared after a repeated string instruction:
// with 32-bit addresses Intel clears the upper halves of those that it counts with
// though nothing is done, because of a fault or a count of 0.
func (d *differ) stringMask(reg int) uint64 {
	if intelHost() && (reg == x86.RCX || reg == x86.RSI || reg == x86.RDI) && d.has(repeatsShort) {
		return 0xffffffff
	}
	return ^uint64(0)
}

// repeatsShort reports a repeated string instruction with 32-bit addresses.
func repeatsShort(in *decode.Inst) bool { return repeats(in) && in.AddrSize == 4 }

// maskedPastEnd reports a masked move that the host faults for elements past the
// segment's end that the mask leaves out.
func maskedPastEnd(at *decode.Inst, want *Result) bool {
	return intelHost() && at != nil && at.Mode != decode.Mode64 && (want.Vector == x86.GP || want.Vector == x86.SSFault) &&
		at.Op >= optab.VMASKMOVPS && at.Op <= optab.VPMASKMOVQ
}

// stringFlags is the flags not compared of a repeated comparison that faults: Intel
// restores them to what they were before (SDM vol. 2, REP).
func (d *differ) stringFlags() uint64 {
	if at := d.stopped; intelHost() && at != nil && repeats(at) && (at.Op == optab.CMPS || at.Op == optab.SCAS) {
		return status
	}
	return 0
}

// convertedFlags is the flags of MXCSR not compared of a VCVTPS2PH whose store faults:
// Intel has set them by then, and raised #XM before. berth looks at the operand first.
// Nor are those of a dot product that an unmasked exception stops, on any host: in
// which order its steps are taken is the processor's own (SDM vol. 2, DPPS).
func (d *differ) convertedFlags(got *Result) uint32 {
	if at := d.stopped; at != nil && (at.Op == optab.DPPS || at.Op == optab.DPPD) && got.Vector == x86.XM {
		return 0x3f
	}
	if at := d.stopped; intelHost() && at != nil && at.Op == optab.VCVTPS2PH && (memoryFault(got.Vector) || got.Vector == x86.AC) {
		return 0x3f
	}
	return 0
}

// gatherRest is the bytes of a vector register from which on it is not compared: those
// of a gather's mask and destination that no element belongs to, which Intel has
// changed when it faults.
func (d *differ) gatherRest(reg int) int {
	at := d.stopped
	if !intelHost() || at == nil || !gathers(at.Row) || int(at.V) != reg && int(at.Reg) != reg {
		return 32
	}
	size, index := int(max(at.OpSize, 4)), 4
	if at.Row.Args[1] == optab.Mvq {
		index = 8
	}
	return 16 << at.L / max(size, index) * size
}

// storesTen reports the stores of 80 bits.
func storesTen(in *decode.Inst) bool {
	return in.Mem && (in.Op == optab.FSTP || in.Op == optab.FBSTP) && in.Row.Args[0] == optab.Mt
}

// otherBytes is the sandbox offsets that Intel writes and berth does not, or the other
// way: the upper half of a selector pushed as 4 bytes (SDM vol. 2, PUSH), the return
// address of a CALL to nowhere, and the first of 80 bits whose store faults on the rest.
func (d *differ) otherBytes(want *Result) (at, n int) {
	_, base := bases(d.c.Mode)
	sp := want.State.GPR[x86.RSP]
	if d.c.Mode == decode.Mode16 {
		sp &= 0xffff
	}
	sp += base - sandboxBase
	switch {
	case !intelHost():
	case want.Vector == x86.BP && d.last.Op == optab.PUSHSEG && d.last.OpSize == 4:
		return int(sp) + 2, 2
	case d.stopped == nil:
	case want.Vector == x86.GP && d.stopped.Op == optab.CALL:
		return int(sp) - int(d.stopped.OpSize), int(d.stopped.OpSize)
	case memoryFault(want.Vector) && storesTen(d.stopped) && d.single:
		return int(linear(d.stopped, &d.c.State) - sandboxBase), 10
	case want.Vector == x86.PF && storesTen(d.stopped):
		return int(want.CR2-sandboxBase) - 9, 9
	}
	return 0, 0
}

// intelUnclear reports a fault of a sequence behind which registers are not compared,
// for the reasons above.
func intelUnclear(in *decode.Inst, vector uint8) bool {
	return intelHost() && memoryFault(vector) && (storesMMX(in) || storesTen(in) || in.Op == optab.VCVTPS2PH || repeats(in) && (in.AddrSize == 4 || in.Op == optab.SCAS))
}
