package qcow2

import "berth/block"

// What follows belongs to the check, snapshot, bitmap, amend and measure files.

func amendFunc() func(block.Image, block.Values, func(done, total int64)) error { return nil }
func amendOptions() []block.Option                                              { return nil }
func measureFunc() func(block.Values, block.Image) (block.Measurement, error)   { return nil }
