//go:build amd64

package interp

import "unsafe"

// unsafe: as in atomic_unsafe.go. The host's LOCK CMPXCHG takes any alignment.

//go:noescape
func cas16(p unsafe.Pointer, old, new uint16) bool

//go:noescape
func cas32(p unsafe.Pointer, old, new uint32) bool

//go:noescape
func cas64(p unsafe.Pointer, old, new uint64) bool

// cas128 replaces 16 aligned bytes if they are old; cur is what they were.
//
//go:noescape
func cas128(p unsafe.Pointer, old, new [2]uint64) (cur [2]uint64, swapped bool)

// casUnaligned is a compare-and-swap of size bytes anywhere.
func casUnaligned(p unsafe.Pointer, size uint8, old, new uint64) bool {
	switch size {
	case 2:
		return cas16(p, uint16(old), uint16(new))
	case 4:
		return cas32(p, uint32(old), uint32(new))
	default:
		return cas64(p, old, new)
	}
}
