package virtio

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"

	"berth/bus"
	"berth/guestmem"
	"berth/irq"
)

// MMIOSize is the size of a device's register window, in bytes.
const MMIOSize = 0x1000

// Registers (virtio 1.2 §4.2.2), each 4 bytes; R read only, W write only.
//
//	0x000 MagicValue R "virt"     0x060 InterruptStatus R
//	0x004 Version R 2             0x064 InterruptACK W
//	0x008 DeviceID R              0x070 Status
//	0x00c VendorID R              0x080 QueueDesc W, low and high half
//	0x010 DeviceFeatures R        0x090 QueueDriver W
//	0x014 DeviceFeaturesSel W     0x0a0 QueueDevice W
//	0x020 DriverFeatures W        0x0ac SHMSel W
//	0x024 DriverFeaturesSel W     0x0b0 SHMLen R, low and high half
//	0x030 QueueSel W              0x0b8 SHMBase R, low and high half
//	0x034 QueueNumMax R           0x0fc ConfigGeneration R
//	0x038 QueueNum W              0x100 device configuration
//	0x044 QueueReady
//	0x050 QueueNotify W
const (
	mmioMagic      = 0x000
	mmioVersion    = 0x004
	mmioDeviceID   = 0x008
	mmioVendorID   = 0x00c
	mmioFeatures   = 0x010
	mmioFeatureSel = 0x014
	mmioDriver     = 0x020
	mmioDriverSel  = 0x024
	mmioQueueSel   = 0x030
	mmioQueueMax   = 0x034
	mmioQueueNum   = 0x038
	mmioQueueReady = 0x044
	mmioNotify     = 0x050
	mmioISR        = 0x060
	mmioACK        = 0x064
	mmioStatus     = 0x070
	mmioQueueDesc  = 0x080 // and the other two areas, 16 bytes apart
	mmioAreaEnd    = 0x0b0
	mmioSHM        = 0x0b0
	mmioSHMEnd     = 0x0c0
	mmioGeneration = 0x0fc
	mmioConfig     = 0x100

	magicValue  = 0x74726976 // "virt"
	mmioVendor  = 0x48545242 // "BRTH"
	modern      = 2
	noSHMRegion = 0xffffffff // of a shared memory region that is not there (§4.2.2)
)

// MMIOConfig is what the transport needs of the machine.
type MMIOConfig struct {
	Memory    *guestmem.Memory
	Base      uint64       // guest-physical address of the registers
	Line      irq.Line     // level-triggered; shared lines are OR-ed by the machine
	Doorbells Doorbells    // nil: every notification is a register write
	Log       *slog.Logger // nil: silent
}

// MMIO is the memory-mapped transport of one device (virtio 1.2 §4.2, version
// 2). It serves its registers.
type MMIO struct {
	transport
	cfg   MMIOConfig
	bells int // queues whose doorbell is attached

	isrMu sync.Mutex
	isr   uint8
}

var _ bus.Handler = (*MMIO)(nil)

// NewMMIO puts dev behind a register window, which the caller maps at
// cfg.Base, MMIOSize bytes long.
func NewMMIO(dev Device, cfg MMIOConfig) (*MMIO, error) {
	t := &MMIO{cfg: cfg}
	if err := t.open(dev, cfg.Memory, cfg.Log, t); err != nil {
		return nil, err
	}
	if cfg.Doorbells == nil {
		return t, nil
	}
	for i, q := range t.queues {
		n := uint64(i)
		if cfg.Doorbells.AddDoorbell(cfg.Base+mmioNotify, 4, &n, q.worker.fd) != nil {
			break // the register does as well
		}
		t.bells++
	}
	return t, nil
}

// Close takes the doorbells away and releases the queues. The device is reset.
func (t *MMIO) Close() error {
	var err error
	for i := range t.bells {
		n := uint64(i)
		err = errors.Join(err, t.cfg.Doorbells.RemoveDoorbell(t.cfg.Base+mmioNotify, 4, &n, t.queues[i].worker.fd))
	}
	t.bells = 0
	return errors.Join(err, t.transport.Close())
}

// Read implements bus.Handler. Control registers are read as aligned words
// (§4.2.2.2); anything else reads 0.
func (t *MMIO) Read(off uint64, p []byte) {
	clear(p)
	switch {
	case off >= mmioConfig:
		t.readDevice(p, int(off-mmioConfig))
	case off%4 == 0 && len(p) == 4:
		binary.LittleEndian.PutUint32(p, t.readRegister(off))
	}
}

func (t *MMIO) readRegister(off uint64) uint32 {
	switch off {
	case mmioMagic:
		return magicValue
	case mmioVersion:
		return modern
	case mmioDeviceID:
		return uint32(t.info.ID)
	case mmioVendorID:
		return mmioVendor
	case mmioISR:
		t.isrMu.Lock()
		defer t.isrMu.Unlock()
		return uint32(t.isr)
	case mmioStatus:
		return t.status.Load() & 0xff
	}
	if off >= mmioSHM && off < mmioSHMEnd {
		return noSHMRegion
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.selected()
	switch {
	case off == mmioFeatures:
		return half(t.offered, t.featureSel)
	case off == mmioGeneration:
		return uint32(t.generation)
	case off == mmioQueueMax && q != nil:
		return uint32(q.max)
	case off == mmioQueueReady && q != nil && q.enabled:
		return 1
	}
	return 0
}

// Write implements bus.Handler.
func (t *MMIO) Write(off uint64, p []byte) {
	if off >= mmioConfig {
		t.writeDevice(p, int(off-mmioConfig))
		return
	}
	if off%4 != 0 || len(p) != 4 {
		return
	}
	v := binary.LittleEndian.Uint32(p)
	switch off {
	case mmioNotify:
		t.ring(int(v))
		return
	case mmioACK:
		t.acknowledge(v)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch off {
	case mmioFeatureSel:
		t.featureSel = v
	case mmioDriverSel:
		t.driverSel = v
	case mmioDriver:
		t.accept(v)
	case mmioQueueSel:
		t.queueSel = uint16(min(v, 0xffff))
	case mmioStatus:
		t.setStatus(v & 0xff)
	default:
		if q := t.selected(); q != nil {
			t.writeQueue(q, off, v)
		}
	}
}

// writeQueue changes the selected queue's registers.
func (t *MMIO) writeQueue(q *Queue, off uint64, v uint32) {
	switch {
	case off == mmioQueueNum:
		t.setSize(q, uint64(v))
	case off == mmioQueueReady && v == 1:
		t.enable(q, true)
	case off == mmioQueueReady && v == 0:
		q.stop() // the device is done with the queue when this reads 0 (§4.2.2.2)
	case off >= mmioQueueDesc && off < mmioAreaEnd && off&0xc < 8:
		t.setArea(q, int(off-mmioQueueDesc)/16, int(off&4)/4, v)
	}
}

func (t *MMIO) queueInterrupt(*Queue) { t.interrupt(isrQueue) }
func (t *MMIO) configInterrupt()      { t.interrupt(isrConfig) }
func (t *MMIO) clearInterrupts()      { t.acknowledge(isrQueue | isrConfig) }

// interrupt sets bits of InterruptStatus; the line is high while any is set.
func (t *MMIO) interrupt(bits uint8) {
	t.isrMu.Lock()
	defer t.isrMu.Unlock()
	if t.isr == 0 {
		t.cfg.Line.Set(true)
	}
	t.isr |= bits
}

func (t *MMIO) acknowledge(bits uint32) {
	t.isrMu.Lock()
	defer t.isrMu.Unlock()
	had := t.isr
	if t.isr &^= uint8(bits); t.isr == 0 && had != 0 {
		t.cfg.Line.Set(false)
	}
}

func (t *MMIO) saveInterrupts(s *State) {
	t.isrMu.Lock()
	defer t.isrMu.Unlock()
	s.ConfigVector, s.ISR = NoVector, t.isr
	for i := range s.Queues {
		s.Queues[i].Vector = NoVector
	}
}

func (t *MMIO) loadInterrupts(s *State) {
	t.isrMu.Lock()
	defer t.isrMu.Unlock()
	t.isr = s.ISR & (isrQueue | isrConfig)
	t.cfg.Line.Set(t.isr != 0)
}
