package hostcpu

import (
	"berth/x86"
	"berth/x86/decode"
)

// victim adds an instruction that is to be modified, and returns its label, its
// length and how many of its last bytes may be anything.
func (q *seqGen) victim() (label, size, free int) {
	q.meet()
	label = q.label()
	r := q.free()
	v := q.rng.Uint32()
	var code []byte
	kind := q.rng.IntN(6)
	if kind == 3 && q.s.Mode != decode.Mode64 {
		kind = 0
	}
	switch kind {
	case 0:
		code, free = movImm(r, v), 4
	case 1:
		code, free = le32([]byte{0x48 | r>>3, 0x81, 0xc0 | r&7}, v), 4 // add
	case 2:
		code, free = le32([]byte{0x48 | r>>3, 0x81, 0xf8 | r&7}, v), 4 // cmp
	case 3:
		code, free = append(le32([]byte{0x48 | r>>3, 0xb8 | r&7}, v), 1, 2, 3, 4), 8
	case 4:
		code, free = le32([]byte{0x48 | r>>3<<2, 0x8d, 0x84 | r&7<<3, 0x24}, v), 4 // lea r, [rsp+disp32]
	default:
		code = le32([]byte{0x05}, v) // add eax: another operation will be here
		if q.avoid(x86.RAX) {
			code = le32([]byte{0x3d}, v)
		}
		free = 5
	}
	code = q.bare(code)
	if free == 4 {
		q.s.Victims = append(q.s.Victims, seqVictim{label, len(code) - free})
	}
	q.append(seqInst{code: code})
	for i := range uint8(16) { // whatever it is by now
		q.clobber(i)
	}
	return label, len(code), free
}

// modify adds a store to code that has run, or is about to.
func (q *seqGen) modify(depth int) {
	switch k := q.rng.IntN(4); {
	case k == 0 && depth < 2: // in a function
		label, size, free := -1, 0, 0
		f := q.function(depth, func() { label, size, free = q.victim() })
		if f < 0 {
			return
		}
		call := func() {
			q.meet()
			q.add(seqInst{code: []byte{0xe8, 0, 0, 0, 0}, ref: refRel4, lab: f})
			q.undef = af
			q.forget()
		}
		if q.chance(70) {
			call()
		}
		q.store(label, size, free)
		call()
	case k == 1 && depth < 2: // behind, in a loop
		q.groups++
		group := q.groups
		reg := q.free()
		q.reserved |= 1 << reg
		q.add(seqInst{code: movImm(reg, uint32(2+q.rng.IntN(4))), group: group})
		q.meet()
		head := q.label()
		q.forget()
		q.body(q.rng.IntN(3), depth+1)
		label, size, free := q.victim()
		q.body(q.rng.IntN(3), depth+1)
		q.store(label, size, free)
		q.meet()
		q.add(seqInst{code: decWord(reg), group: group})
		q.undef = af
		q.add(seqInst{code: []byte{0x0f, 0x8f, 0, 0, 0, 0}, ref: refRel4, lab: head, group: group})
		q.reserved &^= 1 << reg
	default: // ahead
		label := q.newLabel()
		q.store(label, 5, 5)
		q.body(q.rng.IntN(3), 2)
		l, _, _ := q.victimOf(5)
		q.s.Labels[label] = q.s.Labels[l]
	}
}

// victimOf is a victim whose whole code of five bytes may be replaced by another operation on the accumulator.
func (q *seqGen) victimOf(size int) (label, n, free int) {
	for {
		label, n, free = q.victim()
		if n == size {
			return label, n, free
		}
	}
}

// store adds a store to an instruction of size bytes, the last free of which may be anything. With
// all five free, what is there becomes another operation with an immediate.
func (q *seqGen) store(label, size, free int) {
	at := uint64(size - free)
	alias := uint64(0)
	if q.soft && q.chance(50) {
		alias -= codeBase - seqAlias
	}
	ref := func(code []byte, tail int, off uint64) {
		off += alias
		q.add(seqInst{code: code, ref: refCode, tail: tail, lab: label, to: off})
	}
	if free == 5 {
		if q.chance(50) {
			op := pickOf(q.rng, []byte{0xb8, 0xb9, 0x05, 0x2d, 0x3d})
			if q.avoid(x86.RAX) || q.avoid(x86.RCX) {
				op = 0x3d
			}
			ref([]byte{0xc6, 0x05, 0, 0, 0, 0, op}, 1, 0) // mov byte
			return
		}
		at, free = 1, 4
	}
	r, v := q.free(), q.rng.Uint32()
	off := uint64(q.rng.IntN(free))
	if free == 8 && q.chance(50) {
		ref([]byte{0x48 | r>>3<<2, 0x89, 0x05 | r&7<<3, 0, 0, 0, 0}, 0, at)
		return
	}
	word := at + uint64(q.rng.IntN(free-3))
	switch q.rng.IntN(12) {
	case 0:
		ref([]byte{0xc6, 0x05, 0, 0, 0, 0, byte(v)}, 1, at+off)
	case 1:
		ref(le32([]byte{0xc7, 0x05, 0, 0, 0, 0}, v), 4, word)
	case 2:
		ref([]byte{0x40 | r>>3<<2, 0x89, 0x05 | r&7<<3, 0, 0, 0, 0}, 0, word)
	case 3:
		ref([]byte{0xfe, 0x05, 0, 0, 0, 0}, 0, at+off) // inc byte
		q.undef &= cf
	case 4:
		ref([]byte{0xf0, 0x40 | r>>3<<2, 0x01, 0x05 | r&7<<3, 0, 0, 0, 0}, 0, word) // lock add
		q.undef = 0
	case 5:
		ref([]byte{0x40 | r>>3<<2, 0x0f, 0xc3, 0x05 | r&7<<3, 0, 0, 0, 0}, 0, word) // movnti
	case 6:
		ref([]byte{0xf3, 0x0f, 0x11, 0x05 | r&7<<3, 0, 0, 0, 0}, 0, word) // movss
	case 7:
		ref([]byte{0x66, 0x0f, 0x7e, 0x05 | r&7<<3, 0, 0, 0, 0}, 0, word) // movd
	case 8:
		ref([]byte{0x40 | r>>3<<2, 0x87, 0x05 | r&7<<3, 0, 0, 0, 0}, 0, word) // xchg
	case 9:
		ref([]byte{0x80, 0x35, 0, 0, 0, 0, byte(v)}, 1, at+off) // xor byte
		q.undef = af
	case 10:
		ref([]byte{0x66, 0x40 | r>>3<<2, 0x89, 0x05 | r&7<<3, 0, 0, 0, 0}, 0, min(at+off, uint64(size-2)))
	default:
		if q.reserved>>x86.RDI&1 != 0 || q.reserved>>x86.RCX&1 != 0 {
			return
		}
		q.emit([]byte{0xfc})
		q.clobber(x86.RDI)
		q.add(seqInst{code: movImm(x86.RDI, 0), ref: refCodeAbs4, lab: label, to: word + alias})
		q.emit(movImm(x86.RCX, 4))
		q.emit([]byte{0xf3, 0xaa}) // rep stosb
	}
}
