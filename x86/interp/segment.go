package interp

// checkSeg applies segment limit and type checks to [off, off+size) outside
// 64-bit mode; false: exc is set.
func (c *CPU) checkSeg(seg uint8, off, size uint64, write bool) bool { return true }

// loadSeg is MOV or POP to a segment register (not CS): false: exc is set.
func (c *CPU) loadSeg(seg uint8, selector uint16) bool { return false }
