package image

import "unsafe"

// alignedBuffer returns n bytes that begin at a page, as direct I/O asks for.
func alignedBuffer(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (page - 1)
	return b[skip : int(skip)+n : int(skip)+n]
}
