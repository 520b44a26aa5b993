package interp

// blockCache holds decoded basic blocks by guest-physical address and mode.
type blockCache struct{}

// invalidateCode is told of a store to [gpa, gpa+n) in a page whose FlagCode is set, after the store.
func (c *CPU) invalidateCode(gpa, n uint64) {}
