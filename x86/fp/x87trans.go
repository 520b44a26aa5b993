package fp

import "berth/x86/optab"

func (c *ctx) transcendental(op optab.Op, a, b num) (x, pushed num, push bool) { return a, b, true }
