//go:build !amd64

package interp

import (
	"sync"
	"unsafe"
)

// unsafe: as in atomic_unsafe.go. This host has no atomic access of these
// shapes within reach of Go; the locks make vCPUs exclude each other, and
// devices use neither shape.

var wideMu sync.Mutex // serialises the vCPUs of this process

// cas128 replaces 16 aligned bytes if they are old; cur is what they were.
func cas128(p unsafe.Pointer, old, new [2]uint64) (cur [2]uint64, swapped bool) {
	wideMu.Lock()
	defer wideMu.Unlock()
	q := (*[2]uint64)(p)
	if *q != old {
		return *q, false
	}
	*q = new
	return old, true
}

// casUnaligned is a compare-and-swap of size bytes anywhere.
func casUnaligned(p unsafe.Pointer, size uint8, old, new uint64) bool {
	wideMu.Lock()
	defer wideMu.Unlock()
	switch size {
	case 2:
		return casPlain((*uint16)(p), uint16(old), uint16(new))
	case 4:
		return casPlain((*uint32)(p), uint32(old), uint32(new))
	default:
		return casPlain((*uint64)(p), old, new)
	}
}

func casPlain[T comparable](p *T, old, new T) bool {
	if *p != old {
		return false
	}
	*p = new
	return true
}
