package interp

// dropWritten belongs to the block cache.
func (c *CPU) dropWritten() {}
