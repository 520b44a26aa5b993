package interp

// filterBits is the size of a pageFilter, a power of two.
const filterBits = 1 << 17

// pageFilter is a set of pages that may seem to have some that it has not. A page
// is two bits of it.
type pageFilter struct {
	n    int // how many pages it has, of which some may be missing in the count
	word [filterBits / 64]uint64
}

// pageKey is what a pageFilter knows the page of va by, which has 1<<shift bytes and
// belongs to the address space called age.
func pageKey(va uint64, shift uint8, age uint64) uint64 {
	h := (va>>shift<<6|uint64(shift))*0x9e3779b97f4a7c15 ^ age*0xc2b2ae3d27d4eb4f
	return (h ^ h>>32) * 0x9e3779b97f4a7c15
}

func (f *pageFilter) add(key uint64) {
	if f.has(key) {
		return
	}
	f.n++
	for range 2 {
		f.word[key%filterBits/64] |= 1 << (key % 64)
		key >>= 32
	}
}

func (f *pageFilter) has(key uint64) bool {
	a, b := key%filterBits, key>>32%filterBits
	return f.word[a/64]>>(a%64)&(f.word[b/64]>>(b%64))&1 != 0
}
