package interp

// The following belong to the run loop's and block cache's owner; they stand
// here until those arrive.

// rflags returns RFLAGS with the lazy status flags computed.
func (c *CPU) rflags() uint64 { return c.Flags }

// setRFlags sets all of RFLAGS.
func (c *CPU) setRFlags(v uint64) { c.Flags = v }

// invalidateCode is told of a store to [gpa, gpa+n) in a page whose FlagCode is set, after the store.
func (c *CPU) invalidateCode(gpa, n uint64) {}
