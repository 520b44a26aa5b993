package user

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

func TestRawPing(t *testing.T) {
	guest := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1, 'x', 'y', 'z'}
	r := rawPing{v4: true, id: 0xabcd}
	m := r.request(guest)
	if checksum.Checksum(m, 0) != 0xffff || !bytes.Equal(m[4:], []byte{0xab, 0xcd, 0, 1, 'x', 'y', 'z'}) || guest[4] != 0x12 {
		t.Errorf("request % x", m)
	}
	ip := append([]byte{0x46}, make([]byte, 23)...) // with four bytes of options
	if got := r.reply(append(ip, m...)); !bytes.Equal(got, m) {
		t.Errorf("reply % x", got)
	}
	for name, p := range map[string][]byte{
		"nothing": nil, "no header": ip[:19], "half a header": ip[:21], "half a message": append(ip, m[:6]...), "somebody else's": append(ip, guest...),
	} {
		if got := r.reply(bytes.Clone(p)); got != nil {
			t.Errorf("%s: % x", name, got)
		}
	}
	six := rawPing{id: 0xabcd}
	if got := six.reply(m); !bytes.Equal(got, m) {
		t.Errorf("IPv6: % x", got)
	}
}
