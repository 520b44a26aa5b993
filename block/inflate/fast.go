package inflate

import "encoding/binary"

// fast decodes a block as long as neither the input nor the room for the output
// can run out within one step, so that nothing need be checked twice.
func (d *Decoder) fast(dst []byte, out int) (end int, ended bool, err error) {
	src, pos, bits, n := d.src, d.pos, d.bits, d.n
	literals, distances := &d.literals, &d.distances
	for len(src)-pos >= 8 && len(dst)-out >= longestMatch+16 {
		bits |= binary.LittleEndian.Uint64(src[pos:]) << n
		pos += int((63 - n) >> 3)
		n |= 56
		// 56 bits are a literal of one look-up (11), and a length (15+5) with its distance (15+13) behind it... less 3.
		e := literals[bits&(1<<literalBits-1)]
		if e&kindLiteral != 0 {
			dst[out] = byte(e >> 16)
			out++
			bits >>= e & 15
			n -= uint(e & 15)
			e = literals[bits&(1<<literalBits-1)]
			if e&kindLiteral != 0 {
				dst[out] = byte(e >> 16)
				out++
				bits >>= e & 15
				n -= uint(e & 15)
				e = literals[bits&(1<<literalBits-1)]
				if e&kindLiteral != 0 {
					dst[out] = byte(e >> 16)
					out++
					bits >>= e & 15
					n -= uint(e & 15)
					continue
				}
			}
			bits |= binary.LittleEndian.Uint64(src[min(pos, len(src)-8):]) << n
			if pos > len(src)-8 {
				d.pos, d.bits, d.n = pos, bits&(1<<n-1), n
				return out, false, nil
			}
			pos += int((63 - n) >> 3)
			n |= 56
		}
		if e&kindTable != 0 {
			bits >>= literalBits
			n -= literalBits
			e = literals[uint64(e>>16)+bits&(1<<(e>>8&15)-1)]
		}
		bits >>= e & 15
		n -= uint(e & 15)
		if e&kindBase == 0 {
			d.pos, d.bits, d.n = pos, bits&(1<<n-1), n
			switch {
			case e&kindLiteral != 0:
				dst[out] = byte(e >> 16)
				out++
				continue
			case e&kindEnd != 0:
				return out, true, nil
			}
			return out, false, ErrCorrupt
		}
		x := e >> 8 & 15
		length := int(e>>16) + int(bits&(1<<x-1))
		bits >>= x
		n -= uint(x)
		e = distances[bits&(1<<distanceBits-1)]
		if e&kindTable != 0 {
			bits >>= distanceBits
			n -= distanceBits
			e = distances[uint64(e>>16)+bits&(1<<(e>>8&15)-1)]
		}
		if e&kindBase == 0 {
			return out, false, ErrCorrupt
		}
		bits >>= e & 15
		n -= uint(e & 15)
		x = e >> 8 & 15
		dist := int(e>>16) + int(bits&(1<<x-1))
		bits >>= x
		n -= uint(x)
		if dist > out {
			return out, false, ErrCorrupt
		}
		copyMatch(dst, out, dist, length)
		out += length
	}
	d.pos, d.bits, d.n = pos, bits&(1<<n-1), n
	return out, false, nil
}

// copyMatch copies length bytes from dist before out; up to 7 bytes behind them may be written too.
func copyMatch(dst []byte, out, dist, length int) {
	switch {
	case dist >= 8 && length <= 32:
		for i := 0; i < length; i += 8 {
			binary.LittleEndian.PutUint64(dst[out+i:], binary.LittleEndian.Uint64(dst[out+i-dist:]))
		}
	case dist >= length:
		copy(dst[out:out+length], dst[out-dist:])
	default:
		from := dst[out-dist : out+length]
		for have := dist; have < len(from); have *= 2 { // what is there doubles
			copy(from[have:], from[:have])
		}
	}
}
