// Package netdev is the host's end of a NIC: ports that take a guest's frames and have others for it.
package netdev

// A frame has a header in front, at either end: that of virtio 1.2 §5.1.6, little-endian.
//
//	0 flags | 1 gso_type | 2 hdr_len, 2 | 4 gso_size, 2 | 6 csum_start, 2 | 8 csum_offset, 2 | 10 num_buffers, 2
//
// A header of zeros says nothing. What else it may say is up to both ends: see Offloads.

const (
	// HeaderSize is the size of a frame's header in bytes.
	HeaderSize = 12
	// MaxFrame is the longest frame with its header: what a segmentation offload
	// makes of 64 KiB of IP, an Ethernet header and two VLAN tags.
	MaxFrame = HeaderSize + 22 + 65535
)

// Port is one end of a cable. One goroutine may Send while another is in Receive;
// several may Send at the same time.
type Port interface {
	// Send takes a frame from the guest, in pieces; the header may be split anywhere. It keeps
	// none of them, and does not wait for long: a frame that the other end does not take is
	// dropped. An error says that the port is closed or broken for good.
	Send(frame [][]byte) error
	// Receive waits for a frame for the guest and puts it into p, which has room for
	// MaxFrame bytes. io.EOF says that there will be none any more.
	Receive(p []byte) (int, error)
	// Close ends Receive and Send, from any goroutine.
	Close() error
}

// Offloads are the parts of a header that an end understands, by the guest's
// feature bits of virtio 1.2 §5.1.3.
type Offloads struct {
	Checksum   bool // flags may say NEEDS_CSUM
	TSO4, TSO6 bool // gso_type may be a TCP segmentation, with TSOECN also with ECN
	TSOECN     bool
	UFO        bool
	USO4, USO6 bool
}

// Offloader is a Port that does more than plain frames. Without it headers are zeros.
type Offloader interface {
	// Offloads says what Send takes.
	Offloads() Offloads
	// SetOffloads says what Receive may give, which is none at first. It may be called at any time.
	SetOffloads(Offloads) error
}

// Multiqueue is a Port of several ways side by side, which may be used at the same time.
type Multiqueue interface {
	// Ports are the ways. Each is closed with the whole.
	Ports() []Port
	// Use has the first n ways carry frames, and the others none. It may be called at any time.
	Use(n int) error
}
