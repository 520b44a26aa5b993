package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"berth/block"
)

// Encryption methods of the header.
const (
	cryptAES  = 1
	cryptLUKS = 2
)

// cryptoExt is the full disk encryption header pointer; length 0: there is none.
type cryptoExt struct{ offset, length uint64 } // bytes

func (h *header) decodeCrypto(b []byte) error {
	if h.crypt != cryptLUKS {
		return errors.New("CRYPTO header extension only expected with LUKS encryption method")
	}
	if len(b) != 16 {
		return fmt.Errorf("CRYPTO header extension size %d, but expected size 16", len(b))
	}
	h.crypto = cryptoExt{be.Uint64(b), be.Uint64(b[8:])}
	if h.crypto.offset&uint64(h.clusterSize()-1) != 0 {
		return fmt.Errorf("Encryption header offset '%d' is not a multiple of cluster size '%d'", h.crypto.offset, h.clusterSize())
	}
	return nil
}

// luksHeader is what the LUKS header of an image says of how it is encrypted
// (LUKS On-Disk Format Specification 1.2.3, section 2.1), integers big-endian:
//
//	  0 magic "LUKS\xba\xbe"     6 version (2 bytes)
//	  8 cipher, 32 bytes        40 mode, 32 bytes
//	 72 hash, 32 bytes         104 payload offset, sectors
//	108 key bytes              112 key digest, 20 bytes, and its salt, 32
//	164 its iterations         168 UUID, 40 bytes
//	208 eight slots: 0 state, 4 iterations, 8 salt (32 bytes), 40 offset (sectors), 44 stripes
//
// Names are in QEMU's spelling.
type luksHeader struct {
	cipher, mode, ivgen, ivgenHash, hash, uuid string
	payload, iterations                        int64 // payload: bytes
	slots                                      [8]luksSlot
}

type luksSlot struct {
	active              bool
	iterations, stripes int64
	offset              int64 // bytes
}

const (
	luksBytes    = 592
	luksActive   = 0x00ac71f3
	luksInactive = 0x0000dead
	luksStripes  = 4000
	luksKeys     = 4096 // bytes: what key material is a multiple of, and where it begins at the earliest
)

var (
	luksHashes  = []string{"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"}
	luksCiphers = []string{"aes-128", "aes-192", "aes-256", "cast5-128", "serpent-128", "serpent-192", "serpent-256", "twofish-128", "twofish-192", "twofish-256"}
)

// readLUKS reads the header that x points to.
func readLUKS(f block.File, x cryptoExt) (*luksHeader, error) {
	if x.length < luksBytes {
		return nil, errors.New("Request for data outside of extension header")
	}
	var b [luksBytes]byte
	if err := readFull(f, b[:], int64(x.offset)); err != nil {
		return nil, fmt.Errorf("Could not read encryption header: %w", err)
	}
	l := &luksHeader{
		uuid: cString(b[168:208]), payload: int64(be.Uint32(b[104:])) * 512, iterations: int64(be.Uint32(b[164:])),
	}
	for n := range l.slots {
		s := b[208+48*n:]
		l.slots[n] = luksSlot{
			active: be.Uint32(s) == luksActive, iterations: int64(be.Uint32(s[4:])),
			offset: int64(be.Uint32(s[40:])) * 512, stripes: int64(be.Uint32(s[44:])),
		}
	}
	if err := l.validate(b[:]); err != nil {
		return nil, err
	}
	return l, l.decodeNames(cString(b[8:40]), cString(b[40:72]), cString(b[72:104]), be.Uint32(b[108:]))
}

// validate checks b, which l was decoded from, with QEMU's words.
func (l *luksHeader) validate(b []byte) error {
	if string(b[:6]) != "LUKS\xba\xbe" {
		return errors.New("Volume is not in LUKS format")
	}
	if v := be.Uint16(b[6:]); v != 1 {
		return fmt.Errorf("LUKS version %d is not supported", v)
	}
	for n, name := range []string{"cipher name", "cipher mode", "hash spec"} {
		if bytes.IndexByte(b[8+32*n:40+32*n], 0) < 0 {
			return fmt.Errorf("LUKS header %s is not NUL terminated", name)
		}
	}
	if l.payload < luksKeys {
		return errors.New("LUKS payload is overlapping with the header")
	}
	if l.iterations == 0 {
		return errors.New("LUKS key iteration count is zero")
	}
	length := (int64(be.Uint32(b[108:]))*luksStripes + luksKeys - 1) / luksKeys * luksKeys
	for n, s := range l.slots {
		state := be.Uint32(b[208+48*n:])
		switch {
		case s.stripes != luksStripes:
			return fmt.Errorf("Keyslot %d is corrupted (stripes %d != %d)", n, s.stripes, luksStripes)
		case s.offset < luksKeys:
			return fmt.Errorf("Keyslot %d is overlapping with the LUKS header", n)
		case state != luksActive && state != luksInactive:
			return fmt.Errorf("Keyslot %d state (active/disable) is corrupted", n)
		case s.active && s.iterations == 0:
			return fmt.Errorf("Keyslot %d iteration count is zero", n)
		case s.offset+length > l.payload:
			return fmt.Errorf("Keyslot %d is overlapping with the encrypted payload", n)
		}
		for k, o := range l.slots[n+1:] {
			if s.offset < o.offset+length && o.offset < s.offset+length {
				return fmt.Errorf("Keyslots %d and %d are overlapping in the header", n, n+1+k)
			}
		}
	}
	return nil
}

// decodeNames takes the names apart, and refuses those that QEMU does not know.
func (l *luksHeader) decodeNames(cipher, mode, hash string, keyBytes uint32) error {
	name, generator, ok := strings.Cut(mode, "-")
	if !ok {
		return fmt.Errorf("Unexpected cipher mode string format '%s'", mode)
	}
	l.mode, l.hash = name, hash
	l.ivgen, l.ivgenHash, ok = strings.Cut(generator, ":")
	if l.mode == "xts" { // half of the key is the tweak's
		keyBytes /= 2
	}
	l.cipher = fmt.Sprintf("%s-%d", cipher, uint64(keyBytes)*8)
	switch {
	case ok && !slices.Contains(luksHashes, l.ivgenHash):
		return fmt.Errorf("Hash algorithm '%s' not supported", l.ivgenHash)
	case !slices.Contains([]string{"ecb", "cbc", "xts", "ctr"}, l.mode):
		return fmt.Errorf("Cipher mode '%s' not supported", l.mode)
	case !slices.Contains(luksCiphers, l.cipher):
		return fmt.Errorf("Algorithm '%s' with key size %d bytes not supported", cipher, keyBytes)
	case !slices.Contains(luksHashes, hash):
		return fmt.Errorf("Hash algorithm '%s' not supported", hash)
	case !slices.Contains([]string{"plain", "plain64", "essiv"}, l.ivgen):
		return fmt.Errorf("IV generator '%s' not supported", l.ivgen)
	case l.ivgen == "essiv" && !ok:
		return errors.New("Missing IV generator hash specification")
	}
	return nil
}

// encryptField describes the encryption, if there is any.
func (i *Image) encryptField() []block.Field {
	switch l := i.luks; {
	case i.hdr.crypt == cryptAES:
		return []block.Field{{Name: "encrypt", Value: []block.Field{{Name: "format", Value: "aes"}}}}
	case l != nil:
		return []block.Field{{Name: "encrypt", Value: l.fields()}}
	}
	return nil
}

func (l *luksHeader) fields() []block.Field {
	f := []block.Field{
		{Name: "format", Value: "luks"}, {Name: "cipher-alg", Value: l.cipher}, {Name: "cipher-mode", Value: l.mode},
		{Name: "ivgen-alg", Value: l.ivgen},
	}
	if l.ivgen == "essiv" {
		f = append(f, block.Field{Name: "ivgen-hash-alg", Value: l.ivgenHash})
	}
	var slots [][]block.Field
	for _, s := range l.slots {
		f := []block.Field{{Name: "active", Value: s.active}}
		if s.active {
			f = append(f, block.Field{Name: "iters", Value: s.iterations}, block.Field{Name: "stripes", Value: s.stripes})
		}
		slots = append(slots, append(f, block.Field{Name: "key-offset", Value: s.offset}))
	}
	return append(f, block.Field{Name: "hash-alg", Value: l.hash}, block.Field{Name: "payload-offset", Value: l.payload},
		block.Field{Name: "master-key-iters", Value: l.iterations}, block.Field{Name: "uuid", Value: l.uuid},
		block.Field{Name: "slots", Value: slots})
}
