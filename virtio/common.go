package virtio

import "encoding/binary"

// Common configuration registers (virtio 1.2 §4.1.4.3).
//
//	0x00 device_feature_select 4   0x16 queue_select 2
//	0x04 device_feature 4          0x18 queue_size 2
//	0x08 driver_feature_select 4   0x1a queue_msix_vector 2
//	0x0c driver_feature 4          0x1c queue_enable 2
//	0x10 config_msix_vector 2      0x1e queue_notify_off 2
//	0x12 num_queues 2              0x20 queue_desc 8
//	0x14 device_status 1           0x28 queue_driver 8
//	0x15 config_generation 1       0x30 queue_device 8
const (
	regFeatureSel   = 0x00
	regFeature      = 0x04
	regDriverSel    = 0x08
	regDriver       = 0x0c
	regConfigVector = 0x10
	regNumQueues    = 0x12
	regStatus       = 0x14
	regGeneration   = 0x15
	regQueueSel     = 0x16
	regQueueSize    = 0x18
	regQueueVector  = 0x1a
	regQueueEnable  = 0x1c
	regQueueNotify  = 0x1e
	regQueueDesc    = 0x20
	regQueueAvail   = 0x28
	regQueueUsed    = 0x30
	commonSize      = 0x38
)

func (t *PCI) readCommon(p []byte, off int) {
	if off >= commonSize {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var r [commonSize]byte
	le := binary.LittleEndian
	le.PutUint32(r[regFeatureSel:], t.featureSel)
	le.PutUint32(r[regFeature:], half(t.offered, t.featureSel))
	le.PutUint32(r[regDriverSel:], t.driverSel)
	le.PutUint32(r[regDriver:], half(t.acked, t.driverSel))
	le.PutUint16(r[regConfigVector:], uint16(t.configVector.Load()))
	le.PutUint16(r[regNumQueues:], uint16(len(t.queues)))
	r[regStatus], r[regGeneration] = uint8(t.status.Load()), t.generation
	le.PutUint16(r[regQueueSel:], t.queueSel)
	if q := t.selected(); q != nil {
		le.PutUint16(r[regQueueSize:], q.size)
		le.PutUint16(r[regQueueVector:], uint16(q.vector.Load()))
		if q.enabled {
			r[regQueueEnable] = 1
		}
		le.PutUint16(r[regQueueNotify:], uint16(q.Index))
		le.PutUint64(r[regQueueDesc:], q.desc)
		le.PutUint64(r[regQueueAvail:], q.avail)
		le.PutUint64(r[regQueueUsed:], q.used)
	} else {
		le.PutUint16(r[regQueueVector:], NoVector)
	}
	copy(p, r[off:])
}

// writeCommon accepts writes of a field's own width, and halves of the 64-bit
// ones (§4.1.3.1); others are dropped.
func (t *PCI) writeCommon(p []byte, off int) {
	var v uint64
	for i, b := range p {
		v |= uint64(b) << (8 * i)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case off == regFeatureSel && len(p) == 4:
		t.featureSel = uint32(v)
	case off == regDriverSel && len(p) == 4:
		t.driverSel = uint32(v)
	case off == regDriver && len(p) == 4:
		t.accept(uint32(v))
	case off == regConfigVector && len(p) == 2:
		t.configVector.Store(t.vector(v))
	case off == regStatus && len(p) == 1:
		t.setStatus(uint32(v))
	case off == regQueueSel && len(p) == 2:
		t.queueSel = uint16(v)
	case off >= regQueueSize && off < commonSize:
		if q := t.selected(); q != nil {
			t.writeQueue(q, off, len(p), v)
		}
	}
}

// vector returns v if it exists, else NoVector, which tells the driver that the
// mapping failed (§4.1.5.1.2.1).
func (t *PCI) vector(v uint64) uint32 {
	if v >= uint64(t.msix.Vectors()) {
		return NoVector
	}
	return uint32(v)
}

// writeQueue changes the selected queue's registers; once enabled only its vector can change.
func (t *PCI) writeQueue(q *Queue, off, n int, v uint64) {
	if off == regQueueVector && n == 2 {
		q.vector.Store(t.vector(v))
		return
	}
	switch area := (off - regQueueDesc) / 8; {
	case off == regQueueSize && n == 2:
		t.setSize(q, v)
	case off == regQueueEnable && n == 2:
		t.enable(q, v == 1)
	case n == 8 && off%8 == 0 && off >= regQueueDesc:
		t.setArea(q, area, 0, uint32(v))
		t.setArea(q, area, 1, uint32(v>>32))
	case n == 4 && off%4 == 0 && off >= regQueueDesc:
		t.setArea(q, area, off%8/4, uint32(v))
	}
}
