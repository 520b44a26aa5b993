//go:build !amd64

package fp

import (
	"berth/x86"
	"berth/x86/optab"
)

const stubWide = 0

func nativeInt(uintptr, *[2]uint64, *[2]uint64) bool                              { return false }
func nativeFloat(uintptr, *[2]uint64, *[2]uint64, uint32) (after uint32, ok bool) { return 0, false }
func nativeX87(uintptr, *[2]x86.F80, uint16) uint16                               { return 0 }
func hasNative() bool                                                             { return false }

func floatStub(optab.Op, uint8, uint32) (stub uintptr, csr uint32) { return 0, 0 }
