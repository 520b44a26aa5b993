package formats

import "sort"

// dictionaryBuckets is how many there are in each of QEMU's dictionaries (include/qapi/qmp/qdict.h).
const dictionaryBuckets = 512

// Bucket is where QEMU's dictionaries keep a name, and so the order in which
// they list their members: its tdb_hash (qobject/qdict.c).
func Bucket(name string) uint32 {
	v := uint32(0x238F13AF) * uint32(len(name))
	for i := range len(name) {
		v += uint32(name[i]) << (i * 5 % 24)
	}
	return (1103515243*v + 12345) % dictionaryBuckets
}

// firstOf returns the name that QEMU comes upon first.
func firstOf(names []string) string {
	sort.Strings(names)
	sort.SliceStable(names, func(i, j int) bool { return Bucket(names[i]) < Bucket(names[j]) })
	return names[0]
}
