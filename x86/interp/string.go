package interp

import (
	"sync/atomic"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// String instructions. A repeated one runs until it is done, faults, or reaches
// a point where pending events may be served; registers are exact at each.

// stringOp runs one, repeated or not.
func (c *CPU) stringOp(in *decode.Inst) status {
	if !in.Rep && !in.RepN {
		return c.stringStep(in)
	}
	for {
		if truncate(c.R[x86.RCX], in.AddrSize) == 0 {
			return next
		}
		if c.sys.stepping || c.stringChunk(in) == 0 {
			if st := c.stringStep(in); st != next {
				return st
			}
			c.countDown(in, 1)
			if c.repeatEnds(in) {
				return next
			}
		}
		if atomic.LoadUint32(&c.Pending) != 0 && truncate(c.R[x86.RCX], in.AddrSize) != 0 {
			return again
		}
	}
}

// countDown takes n iterations off rCX.
func (c *CPU) countDown(in *decode.Inst, n uint64) {
	c.setReg(in, x86.RCX, in.AddrSize, c.R[x86.RCX]-n)
}

// repeatEnds reports that a comparison's outcome ends the repetition.
func (c *CPU) repeatEnds(in *decode.Inst) bool {
	if in.Op != optab.CMPS && in.Op != optab.SCAS {
		return false
	}
	return c.zf() == in.RepN
}

// advance moves rSI or rDI by n elements in the direction of DF.
func (c *CPU) advance(in *decode.Inst, reg uint8, n uint64) {
	d := n * uint64(in.OpSize)
	if c.Flags&x86.FlagDF != 0 {
		d = -d
	}
	c.setReg(in, reg, in.AddrSize, c.R[reg]+d)
}

// source returns the linear address of the X operand.
func (c *CPU) source(in *decode.Inst) (uint64, bool) {
	return c.addr(in.Seg, truncate(c.R[x86.RSI], in.AddrSize), in.OpSize, false)
}

// dest returns the linear address of the Y operand.
func (c *CPU) dest(in *decode.Inst, write bool) (uint64, bool) {
	return c.addr(x86.ES, truncate(c.R[x86.RDI], in.AddrSize), in.OpSize, write)
}

// loadSource reads the X operand.
func (c *CPU) loadSource(in *decode.Inst) (uint64, bool) {
	va, ok := c.source(in)
	if !ok {
		return 0, false
	}
	return c.load(va, in.OpSize)
}

// loadDest reads the Y operand.
func (c *CPU) loadDest(in *decode.Inst) (uint64, bool) {
	va, ok := c.dest(in, false)
	if !ok {
		return 0, false
	}
	return c.load(va, in.OpSize)
}

func (c *CPU) storeDest(in *decode.Inst, v uint64) bool {
	va, ok := c.dest(in, true)
	return ok && c.store(va, v, in.OpSize)
}

// stringStep is one iteration without the count.
func (c *CPU) stringStep(in *decode.Inst) status {
	size := in.OpSize
	switch in.Op {
	case optab.MOVS:
		v, ok := c.loadSource(in)
		if !ok || !c.storeDest(in, v) {
			return faulted
		}
		c.advance(in, x86.RSI, 1)
		c.advance(in, x86.RDI, 1)
	case optab.STOS:
		if !c.storeDest(in, truncate(c.R[x86.RAX], size)) {
			return faulted
		}
		c.advance(in, x86.RDI, 1)
	case optab.LODS:
		v, ok := c.loadSource(in)
		if !ok {
			return faulted
		}
		c.setAcc(size, v)
		c.advance(in, x86.RSI, 1)
	case optab.SCAS:
		b, ok := c.loadDest(in)
		if !ok {
			return faulted
		}
		c.flagsSub(b, truncate(c.R[x86.RAX], size)-b, log2(size))
		c.advance(in, x86.RDI, 1)
	case optab.CMPS:
		b, ok := c.loadDest(in) // first, as processors do: it shows when both fault
		if !ok {
			return faulted
		}
		a, ok := c.loadSource(in)
		if !ok {
			return faulted
		}
		c.flagsSub(b, a-b, log2(size))
		c.advance(in, x86.RSI, 1)
		c.advance(in, x86.RDI, 1)
	default:
		return c.stringIO(in)
	}
	return next
}

// setAcc writes AL, AX, EAX or RAX.
func (c *CPU) setAcc(size uint8, v uint64) {
	if size >= 4 {
		c.R[x86.RAX] = truncate(v, size)
		return
	}
	m := uint64(1)<<(8*size) - 1
	c.R[x86.RAX] = c.R[x86.RAX]&^m | v&m
}

// stringIO is one iteration of INS or OUTS.
func (c *CPU) stringIO(in *decode.Inst) status {
	port, size := uint16(c.R[x86.RDX]), in.OpSize
	if !c.ioAllowed(port, size) {
		return faulted
	}
	if in.Op == optab.OUTS {
		v, ok := c.loadSource(in)
		if !ok {
			return faulted
		}
		c.writePort(port, size, v)
		c.advance(in, x86.RSI, 1)
		return next
	}
	va, ok := c.dest(in, true)
	if !ok || !c.probeWrite(va, uint64(size)) {
		return faulted
	}
	v := c.readPort(port, size)
	if !c.store(va, v, size) {
		return faulted
	}
	c.advance(in, x86.RDI, 1)
	return next
}

// stringChunk runs as many iterations of a forward REP MOVS or STOS as stay in
// the current pages, straight on host memory, and returns how many; 0: take the
// slow way for one.
func (c *CPU) stringChunk(in *decode.Inst) uint64 {
	if in.Op != optab.MOVS && in.Op != optab.STOS || c.Flags&x86.FlagDF != 0 || in.AddrSize == 2 {
		return 0
	}
	size := uint64(in.OpSize)
	count := truncate(c.R[x86.RCX], in.AddrSize)
	di := truncate(c.R[x86.RDI], in.AddrSize)
	dst := c.segLinear(x86.ES, di, in.Mode)
	n := min(count, (pageSize-dst%pageSize)/size)
	src := dst
	if in.Op == optab.MOVS {
		si := truncate(c.R[x86.RSI], in.AddrSize)
		src = c.segLinear(in.Seg, si, in.Mode)
		n = min(n, (pageSize-src%pageSize)/size)
		if n > 1 && in.Mode != decode.Mode64 && !c.checkSeg(in.Seg, si, n*size, false) {
			return 0
		}
	}
	if n < 2 || in.Mode != decode.Mode64 && !c.checkSeg(x86.ES, di, n*size, true) {
		return 0
	}
	if !c.stringHost(in, dst, src, n*size) {
		return 0
	}
	if in.Op == optab.MOVS {
		c.advance(in, x86.RSI, n)
	}
	c.advance(in, x86.RDI, n)
	c.countDown(in, n)
	return n
}
