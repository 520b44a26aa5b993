package interp

// blockCache holds decoded basic blocks by guest-physical address and mode.
type blockCache struct{}
