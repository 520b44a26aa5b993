package acpi

import (
	"fmt"
	"strings"
)

// The AML encoder: each function returns the bytes of one term (ACPI §20.2).

// Opcodes.
const (
	opZero     = 0x00
	opOne      = 0x01
	opName     = 0x08
	opByte     = 0x0a
	opWord     = 0x0b
	opDword    = 0x0c
	opString   = 0x0d
	opQword    = 0x0e
	opScope    = 0x10
	opBuffer   = 0x11
	opPackage  = 0x12
	opMethod   = 0x14
	opLocal0   = 0x60
	opArg0     = 0x68
	opStore    = 0x70
	opAnd      = 0x7b
	opOr       = 0x7d
	opNotify   = 0x86
	opDwordFld = 0x8a
	opLNot     = 0x92
	opLEqual   = 0x93
	opIf       = 0xa0
	opElse     = 0xa1
	opReturn   = 0xa4
	opExt      = 0x5b
	extRegion  = 0x80
	extField   = 0x81
	extDevice  = 0x82

	methodSerialized = 1 << 3
)

func join(terms ...[]byte) []byte {
	var b []byte
	for _, t := range terms {
		b = append(b, t...)
	}
	return b
}

// pkg puts the package length before body; the length counts itself.
func pkg(body []byte) []byte {
	n := len(body)
	switch {
	case n+1 < 1<<6:
		return append([]byte{uint8(n + 1)}, body...)
	case n+2 < 1<<12:
		n += 2
		return append([]byte{1<<6 | uint8(n&0xf), uint8(n >> 4)}, body...)
	case n+3 < 1<<20:
		n += 3
		return append([]byte{2<<6 | uint8(n&0xf), uint8(n >> 4), uint8(n >> 12)}, body...)
	}
	n += 4
	return append([]byte{3<<6 | uint8(n&0xf), uint8(n >> 4), uint8(n >> 12), uint8(n >> 20)}, body...)
}

// path encodes a name such as `_SB`, `\_S5` or `\_SB.PCI0`.
func path(s string) []byte {
	var b []byte
	if strings.HasPrefix(s, `\`) {
		b, s = append(b, '\\'), s[1:]
	}
	segs := strings.Split(s, ".")
	switch {
	case len(segs) == 2:
		b = append(b, 0x2e)
	case len(segs) > 2:
		b = append(b, 0x2f, uint8(len(segs)))
	}
	for _, seg := range segs {
		b = append(b, fmt.Sprintf("%-4s", seg)...)
	}
	for i, c := range b {
		if c == ' ' {
			b[i] = '_'
		}
	}
	return b
}

func integer(v uint64) []byte {
	switch {
	case v == 0:
		return []byte{opZero}
	case v == 1:
		return []byte{opOne}
	case v < 1<<8:
		return []byte{opByte, uint8(v)}
	case v < 1<<16:
		return append([]byte{opWord}, le16(uint16(v))...)
	case v < 1<<32:
		return append([]byte{opDword}, le32(uint32(v))...)
	}
	return append([]byte{opQword}, le64(v)...)
}

func text(s string) []byte { return append(append([]byte{opString}, s...), 0) }

func buffer(data []byte) []byte {
	return append([]byte{opBuffer}, pkg(join(integer(uint64(len(data))), data))...)
}

func list(elems ...[]byte) []byte {
	return append([]byte{opPackage}, pkg(join([]byte{uint8(len(elems))}, join(elems...)))...)
}

func name(n string, value []byte) []byte { return join([]byte{opName}, path(n), value) }

func scope(n string, terms ...[]byte) []byte {
	return append([]byte{opScope}, pkg(join(path(n), join(terms...)))...)
}

func device(n string, terms ...[]byte) []byte {
	return append([]byte{opExt, extDevice}, pkg(join(path(n), join(terms...)))...)
}

func method(n string, args uint8, terms ...[]byte) []byte {
	return append([]byte{opMethod}, pkg(join(path(n), []byte{args | methodSerialized}, join(terms...)))...)
}

func arg(n uint8) []byte   { return []byte{opArg0 + n} }
func local(n uint8) []byte { return []byte{opLocal0 + n} }

// portRegisters declares 32-bit registers, one behind the other from a port on.
func portRegisters(region string, port uint16, names ...string) []byte {
	const inPorts = 1
	const dwords, othersZero = 3, 2 << 5
	fields := join(path(region), []byte{dwords | othersZero})
	for _, n := range names {
		fields = join(fields, path(n), []byte{32})
	}
	return join([]byte{opExt, extRegion}, path(region), []byte{inPorts}, integer(uint64(port)), integer(uint64(4*len(names))),
		[]byte{opExt, extField}, pkg(fields))
}

func notify(object string, value uint64) []byte {
	return join([]byte{opNotify}, path(object), integer(value))
}

func dwordField(buf []byte, off uint64, n string) []byte {
	return join([]byte{opDwordFld}, buf, integer(off), path(n))
}

func store(v, to []byte) []byte  { return join([]byte{opStore}, v, to) }
func and(a, b, to []byte) []byte { return join([]byte{opAnd}, a, b, to) }
func or(a, b, to []byte) []byte  { return join([]byte{opOr}, a, b, to) }
func equal(a, b []byte) []byte   { return join([]byte{opLEqual}, a, b) }
func not(a []byte) []byte        { return join([]byte{opLNot}, a) }
func ret(v []byte) []byte        { return join([]byte{opReturn}, v) }

func when(cond []byte, terms ...[]byte) []byte {
	return append([]byte{opIf}, pkg(join(cond, join(terms...)))...)
}

func otherwise(terms ...[]byte) []byte { return append([]byte{opElse}, pkg(join(terms...))...) }

// eisaID compresses an ID such as "PNP0A08" (ACPI §19.3.4).
func eisaID(id string) []byte {
	hex := func(c byte) uint32 { return uint32(strings.IndexByte("0123456789ABCDEF", c)) }
	letter := func(c byte) uint32 { return uint32(c-'@') & 0x1f }
	v := letter(id[0])<<26 | letter(id[1])<<21 | letter(id[2])<<16 |
		hex(id[3])<<12 | hex(id[4])<<8 | hex(id[5])<<4 | hex(id[6])
	return append([]byte{opDword}, uint8(v>>24), uint8(v>>16), uint8(v>>8), uint8(v))
}

// Resource descriptors (ACPI §6.4).

func resources(items ...[]byte) []byte {
	return buffer(append(join(items...), 0x79, 0)) // end tag; checksum 0 is always good
}

func ports(base uint16, n uint8) []byte {
	return join([]byte{0x47, 1}, le16(base), le16(base), []byte{1, n})
}

func irqLine(n uint8) []byte { return append([]byte{0x22}, le16(1<<n)...) }

// sharedInterrupt is a level-triggered, active-high interrupt that others may share.
func sharedInterrupt(gsi uint32) []byte {
	const consumer, shared = 1 << 0, 1 << 3
	return join([]byte{0x89, 6, 0, consumer | shared, 1}, le32(gsi))
}

func fixedMemory(r Range) []byte {
	return join([]byte{0x86, 9, 0, 1}, le32(uint32(r.Base)), le32(uint32(r.Size)))
}

// Address space descriptors: ranges that a bridge passes on, at fixed ends.
const (
	spaceMemory = 0
	spaceIO     = 1
	spaceBus    = 2
	fixedEnds   = 0x0c
)

func wordSpace(kind, flags uint8, first, last uint16) []byte {
	return join([]byte{0x88, 13, 0, kind, fixedEnds, flags},
		le16(0), le16(first), le16(last), le16(0), le16(last-first+1))
}

func dwordMemory(r Range) []byte {
	return join([]byte{0x87, 23, 0, spaceMemory, fixedEnds, 1},
		le32(0), le32(uint32(r.Base)), le32(uint32(r.Base+r.Size-1)), le32(0), le32(uint32(r.Size)))
}

func qwordMemory(r Range) []byte {
	return join([]byte{0x8a, 43, 0, spaceMemory, fixedEnds, 1},
		le64(0), le64(r.Base), le64(r.Base+r.Size-1), le64(0), le64(r.Size))
}
