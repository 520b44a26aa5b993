// Package net is the virtio network device over a netdev.Port.
package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"berth/netdev"
	"berth/virtio"
)

// Feature bits (virtio 1.2 §5.1.3).
const (
	featureCSUM          = uint64(1) << 0
	featureGuestCSUM     = uint64(1) << 1
	featureGuestOffloads = uint64(1) << 2 // CTRL_GUEST_OFFLOADS
	featureMTU           = uint64(1) << 3
	featureMAC           = uint64(1) << 5
	featureGuestTSO4     = uint64(1) << 7
	featureGuestTSO6     = uint64(1) << 8
	featureGuestECN      = uint64(1) << 9
	featureGuestUFO      = uint64(1) << 10
	featureHostTSO4      = uint64(1) << 11
	featureHostTSO6      = uint64(1) << 12
	featureHostECN       = uint64(1) << 13
	featureHostUFO       = uint64(1) << 14
	featureMergeable     = uint64(1) << 15 // MRG_RXBUF
	featureStatus        = uint64(1) << 16
	featureControl       = uint64(1) << 17 // CTRL_VQ
	featureRX            = uint64(1) << 18 // CTRL_RX
	featureVLAN          = uint64(1) << 19 // CTRL_VLAN
	featureRXExtra       = uint64(1) << 20 // CTRL_RX_EXTRA
	featureAnnounce      = uint64(1) << 21 // GUEST_ANNOUNCE
	featureMultiqueue    = uint64(1) << 22 // MQ
	featureSetMAC        = uint64(1) << 23 // CTRL_MAC_ADDR
	featureGuestUSO4     = uint64(1) << 54 // from virtio 1.3 on, as the next
	featureGuestUSO6     = uint64(1) << 55
	featureHostUSO       = uint64(1) << 56
	featureHashReport    = uint64(1) << 57
	featureRSS           = uint64(1) << 60
	featureSpeed         = uint64(1) << 63 // SPEED_DUPLEX
)

// struct virtio_net_config (§5.1.4):
//
//	 0 mac 6   |  6 status 2 |  8 max_virtqueue_pairs 2 | 10 mtu 2 | 12 speed 4
//	16 duplex 1 | 17 rss_max_key_size 1 | 18 rss_max_indirection_table_length 2 | 20 supported_hash_types 4
const (
	configSize = 24

	statusLinkUp   = 1
	statusAnnounce = 2
)

// Largest sizes of the queues. A frame of 64 KiB takes 44 of the receive queue's
// buffers when Linux merges those.
const (
	receiveSize  = 1024
	transmitSize = 256
	controlSize  = 64
)

// MaxQueues is how many pairs of queues a device can have.
const MaxQueues = 16

// Config is what the user chooses.
type Config struct {
	MAC    [6]byte
	MTU    uint16 // what the driver is told to keep to; 0: nothing
	Queues int    // pairs of queues, up to MaxQueues; 0: 1
	Speed  uint32 // what the driver is told, in Mbit/s; 0: nothing
	RSS    bool   // receive-side scaling is offered, with more than one pair of queues
	Hash   bool   // hash reports are offered
	// FilterChanged is called when the driver has changed what it receives; it must not
	// wait. nil: nobody is told.
	FilterChanged func()
	Log           *slog.Logger // nil: silent
}

// Device is one virtio NIC. Safe for concurrent use.
//
// Each way of the port (one, unless it has several) has a goroutine that receives
// and delivers frames, from New to Close; each transmit queue has its worker.
type Device struct {
	cfg     Config
	port    netdev.Port
	ways    []netdev.Port // what frames come and go by
	offers  uint64        // feature bits
	changed func()        // tells the driver of a new configuration

	rx      []*receiver
	tx      []*transmitter
	control controller
	flows   flowTable
	stats   counters

	plan   atomic.Pointer[plan] // nil: no driver
	closed atomic.Bool
	wait   sync.WaitGroup // for the receiving goroutines

	mu    sync.Mutex // guards what follows; taken before a receiver's
	acked uint64
	s     State
	live  bool    // between Activate and Reset
	hash  *hasher // as the state has it; nil: nothing is hashed
}

// plan is what the driver and the host have set, as the data path reads it: it is never
// changed, only replaced.
type plan struct {
	acked   uint64
	header  int // bytes of a header in the receive queues
	pairs   int
	link    bool
	offload netdev.Offloads // what frames for the driver may have
	longest int             // bytes of a frame without segmentation; 0: any
	filter  filter
	rss     *RSSState // nil: none
	hash    *hasher
}

// New returns a device over port, which it closes when it is closed.
func New(port netdev.Port, cfg Config) (*Device, error) {
	cfg.Queues = max(cfg.Queues, 1)
	if cfg.Queues > MaxQueues {
		return nil, fmt.Errorf("virtio/net: %d pairs of queues: at most %d are possible", cfg.Queues, MaxQueues)
	}
	d := &Device{cfg: cfg, port: port, ways: []netdev.Port{port}, changed: func() {}}
	if m, ok := port.(netdev.Multiqueue); ok {
		d.ways = m.Ports()
	}
	d.offers = d.features()
	for i := range cfg.Queues {
		d.rx = append(d.rx, newReceiver(d))
		d.tx = append(d.tx, &transmitter{d: d, index: i, way: d.ways[i%len(d.ways)]})
	}
	d.control.d = d
	d.s = d.initial()
	d.s.Link = true
	for i, w := range d.ways {
		d.wait.Go(func() { d.listen(i, w) })
	}
	return d, nil
}

// features are the feature bits that the device offers.
func (d *Device) features() uint64 {
	f := featureMAC | featureStatus | featureMergeable | featureControl | featureRX | featureVLAN | featureRXExtra | featureSetMAC | featureAnnounce
	if d.cfg.MTU > 0 {
		f |= featureMTU
	}
	if d.cfg.Speed > 0 {
		f |= featureSpeed
	}
	if d.cfg.Queues > 1 {
		f |= featureMultiqueue
		if d.cfg.RSS {
			f |= featureRSS
		}
	}
	if d.cfg.Hash {
		f |= featureHashReport
	}
	if o, ok := d.port.(netdev.Offloader); ok && o.Offloads().Checksum {
		f |= offloadFeatures(o.Offloads())
	}
	return f
}

// offloadFeatures are the bits of both ways for what a port can do.
func offloadFeatures(o netdev.Offloads) uint64 {
	f := featureCSUM | featureGuestCSUM | featureGuestOffloads
	for _, c := range []struct {
		has  bool
		bits uint64
	}{
		{o.TSO4, featureHostTSO4 | featureGuestTSO4},
		{o.TSO6, featureHostTSO6 | featureGuestTSO6},
		{o.TSOECN && (o.TSO4 || o.TSO6), featureHostECN | featureGuestECN},
		{o.UFO, featureHostUFO | featureGuestUFO},
		{o.USO4 && o.USO6, featureHostUSO},
		{o.USO4, featureGuestUSO4},
		{o.USO6, featureGuestUSO6},
	} {
		if c.has {
			f |= c.bits
		}
	}
	return f
}

// guestOffloads are the feature bits of what the driver may receive, which
// CTRL_GUEST_OFFLOADS switches (§5.1.6.5.6.1).
const guestOffloads = featureGuestCSUM | featureGuestTSO4 | featureGuestTSO6 | featureGuestECN | featureGuestUFO | featureGuestUSO4 | featureGuestUSO6

// offloadsOf is what a driver with these guest offloads can receive.
func offloadsOf(bits uint64) netdev.Offloads {
	if bits&featureGuestCSUM == 0 {
		return netdev.Offloads{}
	}
	return netdev.Offloads{
		Checksum: true,
		TSO4:     bits&featureGuestTSO4 != 0, TSO6: bits&featureGuestTSO6 != 0, TSOECN: bits&featureGuestECN != 0,
		UFO: bits&featureGuestUFO != 0, USO4: bits&featureGuestUSO4 != 0, USO6: bits&featureGuestUSO6 != 0,
	}
}

// Info describes the device to its transport.
func (d *Device) Info() virtio.Info {
	info := virtio.Info{ID: virtio.IDNet, Name: "virtio-net", Features: d.offers, ConfigSize: configSize}
	for range d.cfg.Queues {
		info.Queues = append(info.Queues, receiveSize, transmitSize)
	}
	info.Queues = append(info.Queues, controlSize)
	return info
}

// OnConfigChange takes the function that tells the driver of a new configuration.
func (d *Device) OnConfigChange(changed func()) { d.changed = changed }

// ReadConfig reads struct virtio_net_config.
func (d *Device) ReadConfig(p []byte, off int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var c [configSize]byte
	le := binary.LittleEndian
	copy(c[:], d.s.MAC[:])
	var status uint16
	if d.s.Link {
		status |= statusLinkUp
	}
	if d.s.Announce {
		status |= statusAnnounce
	}
	le.PutUint16(c[6:], status)
	le.PutUint16(c[8:], uint16(d.cfg.Queues))
	le.PutUint16(c[10:], d.cfg.MTU)
	if d.cfg.Speed > 0 {
		le.PutUint32(c[12:], d.cfg.Speed)
		c[16] = 1 // full duplex
	}
	if d.offers&(featureRSS|featureHashReport) != 0 {
		c[17] = maxHashKey
		le.PutUint16(c[18:], maxIndirection)
		le.PutUint32(c[20:], hashTypes)
	}
	copy(p, c[off:])
}

// Activate starts the queues with the features that the driver accepted.
func (d *Device) Activate(acked uint64, qs []*virtio.Queue) error {
	d.mu.Lock()
	d.acked, d.live = acked, true
	if !d.s.OffloadsSet {
		d.s.Offloads = acked & guestOffloads
	}
	err := d.offload()
	if m, ok := d.port.(netdev.Multiqueue); ok {
		err = errors.Join(err, m.Use(int(d.s.Pairs)))
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	// The control queue follows the pairs that there are for this driver (§5.1.2).
	pairs := 1
	if acked&(featureMultiqueue|featureRSS) != 0 {
		pairs = d.cfg.Queues
	}
	for i := range pairs {
		d.rx[i].use(qs[2*i])
		d.tx[i].q = qs[2*i+1]
	}
	d.mu.Lock()
	d.publish()
	d.mu.Unlock()
	for i := range pairs {
		qs[2*i].Start(d.rx[i].serve)
		qs[2*i+1].Start(d.tx[i].serve)
	}
	if acked&featureControl != 0 {
		d.control.q = qs[2*pairs]
		qs[2*pairs].Start(d.control.serve)
	}
	return nil
}

// offload tells the port what it may give. Called with mu held.
func (d *Device) offload() error {
	for _, w := range d.ways {
		if o, ok := w.(netdev.Offloader); ok {
			if err := o.SetOffloads(offloadsOf(d.s.Offloads)); err != nil {
				return fmt.Errorf("virtio/net: offloads of the host's end: %w", err)
			}
		}
	}
	return nil
}

// Reset forgets the driver. The link stays as the host has set it.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	link := d.s.Link
	d.s, d.acked, d.live = d.initial(), 0, false
	d.s.Link = link
	d.prepareHash()
	d.publish()
	for _, r := range d.rx {
		r.use(nil)
	}
	d.flows.clear()
}

// initial is the state that a reset leaves, but for the link. Everything is received until
// the driver says otherwise: one that cannot has no other way to its frames.
func (d *Device) initial() State {
	return State{Version: StateVersion, MAC: d.cfg.MAC, Promiscuous: true, Pairs: 1}
}

// publish makes the data path do what the state says, and returns when nothing goes by
// what it said before. Called with mu held.
func (d *Device) publish() {
	var p *plan
	if d.live {
		p = d.makePlan()
	}
	d.plan.Store(p)
	for _, r := range d.rx {
		r.settle()
	}
}

func (d *Device) makePlan() *plan {
	p := &plan{
		acked: d.acked, header: netdev.HeaderSize, pairs: int(d.s.Pairs), link: d.s.Link,
		offload: offloadsOf(d.s.Offloads & d.acked), filter: d.s.filter(d.acked),
	}
	if d.acked&featureHashReport != 0 {
		p.header = hashHeaderSize
	}
	if d.acked&featureMTU != 0 {
		p.longest = int(d.cfg.MTU)
	}
	p.rss, p.hash = d.s.RSS, d.hash
	return p
}

// prepareHash makes ready for what the state says of hashes. Called with mu held.
func (d *Device) prepareHash() {
	switch {
	case d.s.RSS != nil:
		d.hash = newHasher(d.s.RSS.Types, d.s.RSS.Key)
	case d.s.Hash != nil:
		d.hash = newHasher(d.s.Hash.Types, d.s.Hash.Key)
	default:
		d.hash = nil
	}
}

// SetLink plugs the cable in or pulls it, which the driver is told.
func (d *Device) SetLink(up bool) {
	d.mu.Lock()
	same := d.s.Link == up
	d.s.Link = up
	d.publish()
	d.mu.Unlock()
	if !same {
		d.changed()
	}
}

// Link reports whether the cable is in.
func (d *Device) Link() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.s.Link
}

// Announce has the driver tell its network where it is (§5.1.6.5.4), or does so in its
// place, by RARP, if it cannot.
func (d *Device) Announce() error {
	d.mu.Lock()
	able := d.acked&featureAnnounce != 0 && d.acked&featureStatus != 0
	if able {
		d.s.Announce = true
	}
	mac, link := d.s.MAC, d.s.Link
	d.mu.Unlock()
	switch {
	case able:
		d.changed()
	case link:
		return d.ways[0].Send([][]byte{reverseARP(mac)})
	}
	return nil
}

// reverseARP is the frame by which bridges learn where mac is (RFC 903), behind an empty header.
func reverseARP(mac [6]byte) []byte {
	f := make([]byte, netdev.HeaderSize, netdev.HeaderSize+60)
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f = append(f, mac[:]...)
	f = append(f, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3) // RARP: Ethernet, IPv4, reverse request
	for range 2 {
		f = append(f, mac[:]...)
		f = append(f, 0, 0, 0, 0)
	}
	return f[:cap(f)]
}

// Hasten has what keeps frames to a rate let them through while it is on.
func (d *Device) Hasten(on bool) {
	if h, ok := d.port.(virtio.Hastener); ok {
		h.Hasten(on)
	}
}

// Close closes the port and returns when nothing is received any more. The device has
// been reset.
func (d *Device) Close() error {
	d.closed.Store(true)
	err := d.port.Close()
	for _, r := range d.rx {
		r.bell()
	}
	d.wait.Wait()
	return err
}

// broken says once that the host's end is of no use any more.
func (d *Device) broken(err error) {
	if d.cfg.Log != nil && !d.closed.Load() && !errors.Is(err, io.EOF) {
		d.cfg.Log.Warn("the network's end of a NIC is broken", "error", err)
	}
}
