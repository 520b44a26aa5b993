package image

import "bytes"

const sector = 512 // bytes; what qemu-img counts images in

var zeroPage [4096]byte // only read

// isZero tells whether p holds nothing but zeros.
func isZero(p []byte) bool {
	if len(p) > 64 && p[0]|p[len(p)/2]|p[len(p)-1] != 0 {
		return false
	}
	for len(p) > len(zeroPage) {
		if !bytes.Equal(p[:len(zeroPage)], zeroPage[:]) {
			return false
		}
		p = p[len(zeroPage):]
	}
	return bytes.Equal(p, zeroPage[:len(p)])
}

// firstNonzero returns where the first sector of p that is not all zeros begins, or -1.
func firstNonzero(p []byte) int {
	for at := 0; at < len(p); at += len(zeroPage) {
		if isZero(p[at:min(at+len(zeroPage), len(p))]) {
			continue
		}
		for ; at < len(p); at += sector {
			if !isZero(p[at:min(at+sector, len(p))]) {
				return at
			}
		}
	}
	return -1
}

// zeroRun returns how many bytes of whole sectors at the beginning of p are alike,
// zero or not, and which they are.
func zeroRun(p []byte) (n int, zero bool) {
	if len(p) == 0 {
		return 0, false
	}
	if zero = isZero(p[:min(sector, len(p))]); zero {
		if n = firstNonzero(p); n < 0 {
			n = len(p)
		}
		return n, true
	}
	for n = sector; n < len(p); n += sector {
		if p[n] == 0 && isZero(p[n:min(n+sector, len(p))]) {
			return n, false
		}
	}
	return len(p), false
}

// dataRun divides p, which belongs at off: its first n bytes are to be written
// as data, or are zeros. A piece of data ends only before zeros of at least
// least bytes, and where it can at a multiple of align, which spares a read of what is written over in part.
func dataRun(p []byte, off int64, least, align int) (n int, data bool) {
	n, data = alignedRun(p, off, align)
	if !data {
		return n, false
	}
	least = min(least, len(p))
	for at := n; at < len(p); {
		m, more := alignedRun(p[at:], off+int64(at), align)
		at += m
		if more {
			n = at
		} else if m >= least {
			break
		}
	}
	return n, true
}

// alignedRun is zeroRun with the end moved to a multiple of align, so that no zero is lost and no data.
func alignedRun(p []byte, off int64, align int) (n int, data bool) {
	n, zero := zeroRun(p)
	if n == len(p) {
		return n, !zero
	}
	tail := int((off + int64(n)) & int64(align-1))
	if tail == 0 {
		return n, !zero
	}
	if zero && n > tail {
		return n - tail, false
	}
	return min(n+align-tail, len(p)), true
}

// equalRun returns how many bytes of whole sectors at the beginning of a and b,
// which are as long, are all equal or all in sectors that differ, and which.
func equalRun(a, b []byte) (n int, equal bool) {
	if bytes.Equal(a, b) {
		return len(a), true
	}
	end := min(sector, len(a))
	equal = bytes.Equal(a[:end], b[:end])
	for n = end; n < len(a); n = end {
		end = min(n+sector, len(a))
		if bytes.Equal(a[n:end], b[n:end]) != equal {
			break
		}
	}
	return n, equal
}
