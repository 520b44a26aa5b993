package interp

import (
	"encoding/binary"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

func leUint64(p []byte) uint64 { return binary.LittleEndian.Uint64(p) }

// ioAllowed checks IOPL and the TSS's I/O permission bitmap for size ports
// (Intel SDM vol. 1 §19.5); false: exc is set.
func (c *CPU) ioAllowed(port uint16, size uint8) bool {
	if c.CR0&x86.CR0PE == 0 || c.Flags&x86.FlagVM == 0 && c.CPL <= c.iopl() {
		return true
	}
	base, ok := c.ioMap()
	if !ok {
		return false
	}
	tr := &c.Seg[x86.TR]
	off := base + uint64(port)/8
	if off+1 > uint64(tr.Limit) {
		return c.fail(x86.GP, 0)
	}
	bitmap, ok := c.sys16(tr.Base + off)
	if !ok {
		return false
	}
	if bitmap>>(port%8)&(1<<size-1) != 0 {
		return c.fail(x86.GP, 0)
	}
	return true
}

// ioMap returns where in the TSS the I/O permission bitmap begins; a TSS that has
// none, as one of 16 bits, refuses: exc is set.
func (c *CPU) ioMap() (base uint64, ok bool) {
	tr := &c.Seg[x86.TR]
	if t := tr.Attr.Type(); t != typeTSS && t != typeTSSBusy || tr.Limit < 103 {
		return 0, c.fail(x86.GP, 0)
	}
	v, ok := c.sys16(tr.Base + 102)
	return uint64(v), ok
}

// portOperands returns the port and width of IN or OUT.
func (c *CPU) portOperands(in *decode.Inst, arg int) (port uint16, size uint8) {
	if in.Row.Args[arg] == optab.DX {
		port = uint16(c.R[x86.RDX])
	} else {
		port = uint16(in.Imm & 0xff)
	}
	return port, min(in.OpSize, 4)
}

// portIn is IN.
func (c *CPU) portIn(in *decode.Inst) status {
	port, size := c.portOperands(in, 1)
	if !c.ioAllowed(port, size) {
		return faulted
	}
	v := c.readPort(port, size)
	if size == 4 {
		c.R[x86.RAX] = v
		return next
	}
	mask := uint64(1)<<(8*size) - 1
	c.R[x86.RAX] = c.R[x86.RAX]&^mask | v
	return next
}

// portOut is OUT.
func (c *CPU) portOut(in *decode.Inst) status {
	port, size := c.portOperands(in, 0)
	if !c.ioAllowed(port, size) {
		return faulted
	}
	c.writePort(port, size, c.R[x86.RAX])
	return next
}

// readPort reads size ports, zero-extended.
func (c *CPU) readPort(port uint16, size uint8) uint64 {
	b := c.sys.mem.buf[:8]
	clear(b)
	c.cfg.Ports.Read(uint64(port), b[:size])
	c.watchPort(port, size)
	return leUint64(b)
}

// writePort writes the low size bytes of v.
func (c *CPU) writePort(port uint16, size uint8, v uint64) {
	b := c.sys.mem.buf[:8]
	binary.LittleEndian.PutUint64(b, v)
	c.cfg.Ports.Write(uint64(port), b[:size])
	c.watchPort(port, size)
}
