package raw

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// statxDIOAlign asks statx(2) for what O_DIRECT wants (STATX_DIOALIGN).
const statxDIOAlign = 0x2000

// dioAlign returns stx_dio_mem_align and stx_dio_offset_align in bytes.
func dioAlign(st *unix.Statx_t) (memory, offset int) {
	return int(st.Dio_mem_align), int(st.Dio_offset_align)
}

// fits tells whether O_DIRECT takes the request as it is.
// unsafe: the buffers' addresses are looked at only.
func fits(iov [][]byte, off int64, unit int) bool {
	bits := uintptr(off)
	for _, b := range iov {
		if len(b) > 0 {
			bits |= uintptr(len(b)) | uintptr(unsafe.Pointer(unsafe.SliceData(b)))
		}
	}
	return bits&uintptr(unit-1) == 0
}

// alignedBuffer returns n bytes at a multiple of unit.
// unsafe: the address is looked at only; memory of Go's heap does not move.
func alignedBuffer(n, unit int) []byte {
	p := make([]byte, n+unit)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) & (unit - 1)
	return p[skip : skip+n : skip+n]
}
