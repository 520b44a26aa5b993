package virtio

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"berth/bus"
	"berth/guestmem"
	"berth/pci"
)

// Layout of the register BAR; BAR 1 holds the MSI-X table.
//
//	0x0000 common configuration   0x1000 ISR status
//	0x2000 device configuration   0x3000 notification, 4 bytes a queue
const (
	registerBAR  = 4
	msixBAR      = 1
	commonOff    = 0x0000
	isrOff       = 0x1000
	deviceOff    = 0x2000
	notifyOff    = 0x3000
	regionSize   = 0x1000
	registerSize = 0x4000
	notifyStride = 4
)

// Capability types (virtio 1.2 §4.1.4).
const (
	capVendor = 0x09
	capCommon = 1
	capNotify = 2
	capISR    = 3
	capDevice = 4
	capPCI    = 5
)

// PCIConfig is what the transport needs of the machine.
type PCIConfig struct {
	Memory    *guestmem.Memory
	Doorbells Doorbells    // nil: every notification is a register write
	Log       *slog.Logger // nil: silent
	Express   bool         // the function is an endpoint of PCI Express, for a root port's slot
}

// PCI is the PCI transport of one device (virtio 1.2 §4.1, modern only).
type PCI struct {
	transport
	cfg    PCIConfig
	fn     *pci.Function
	msix   *pci.MSIX
	pciCap int // offset of the configuration access capability

	configVector atomic.Uint32

	isrMu sync.Mutex
	isr   uint8

	// Changed by the root complex alone, under its lock.
	bellBase  uint64 // where the notification registers are
	bellSizes []int  // access width of each queue's doorbell, -1: none; empty while not mapped
}

// NewPCI puts dev behind a PCI function; give Function to a root complex.
func NewPCI(dev Device, cfg PCIConfig) (*PCI, error) {
	t := &PCI{cfg: cfg}
	t.configVector.Store(NoVector)
	if err := t.open(dev, cfg.Memory, cfg.Log, t); err != nil {
		return nil, err
	}
	if err := t.buildFunction(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Function returns the PCI function to add to a root complex.
func (t *PCI) Function() *pci.Function { return t.fn }

// class returns the PCI class of a device type, as other monitors give it.
func class(id DeviceID) uint32 {
	switch id {
	case IDNet:
		return 0x020000
	case IDBlock:
		return 0x010000
	case IDConsole:
		return 0x078000
	}
	return 0x00ff00
}

func (t *PCI) buildFunction() error {
	t.fn = pci.NewFunction(t.info.Name, pci.Identity{
		Vendor: 0x1af4, Device: 0x1040 + uint16(t.info.ID), Class: class(t.info.ID), Revision: 1,
		SubsystemVendor: 0x1af4, SubsystemID: 0x1100,
	})
	t.fn.UseINTx()
	if err := t.fn.AddBAR(registerBAR, pci.BAR64Prefetch, registerSize, registers{t}); err != nil {
		return err
	}
	t.fn.OnBARMove(registerBAR, t.moveDoorbells)
	x, err := t.fn.AddMSIX(msixBAR, len(t.queues)+1)
	if err != nil {
		return err
	}
	t.msix = x
	le32 := binary.LittleEndian.AppendUint32
	for _, c := range []struct {
		kind        byte
		off, length uint32
		extra       []byte
	}{
		{capCommon, commonOff, regionSize, nil},
		{capISR, isrOff, regionSize, nil},
		{capDevice, deviceOff, regionSize, nil},
		{capNotify, notifyOff, regionSize, le32(nil, notifyStride)},
	} {
		if _, err := t.addCap(c.kind, registerBAR, c.off, c.length, c.extra, nil); err != nil {
			return err
		}
	}
	// §4.1.4.9: the driver writes bar, offset and length, then moves data through the last four bytes.
	mask := []byte{0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if t.pciCap, err = t.addCap(capPCI, 0, 0, 0, make([]byte, 4), mask); err != nil {
		return err
	}
	t.fn.Hook(t.pciCap+16, 4, window{t})
	if t.cfg.Express {
		return t.fn.AddExpress()
	}
	return nil
}

// addCap appends a virtio capability (§4.1.4):
//
//	vendor 0x09 | next | length | type | bar | id | padding 2 | offset 4 | length 4 | extra
func (t *PCI) addCap(kind, bar byte, off, length uint32, extra, mask []byte) (int, error) {
	body := []byte{byte(16 + len(extra)), kind, bar, 0, 0, 0}
	body = binary.LittleEndian.AppendUint32(body, off)
	body = binary.LittleEndian.AppendUint32(body, length)
	return t.fn.AddCapability(capVendor, append(body, extra...), mask)
}

// registers serves the register BAR.
type registers struct{ t *PCI }

var _ bus.Handler = registers{}

func (r registers) Read(off uint64, p []byte) {
	clear(p)
	at := int(off % regionSize)
	switch off &^ (regionSize - 1) {
	case commonOff:
		r.t.readCommon(p, at)
	case isrOff:
		if at == 0 {
			p[0] = r.t.takeISR()
		}
	case deviceOff:
		r.t.readDevice(p, at)
	}
}

func (r registers) Write(off uint64, p []byte) {
	at := int(off % regionSize)
	switch off &^ (regionSize - 1) {
	case commonOff:
		r.t.writeCommon(p, at)
	case deviceOff:
		r.t.writeDevice(p, at)
	case notifyOff:
		r.t.ring(at / notifyStride)
	}
}

func (t *PCI) queueInterrupt(q *Queue) { t.interrupt(q.vector.Load(), isrQueue) }

func (t *PCI) configInterrupt() { t.interrupt(t.configVector.Load(), isrConfig) }

func (t *PCI) clearInterrupts() {
	t.configVector.Store(NoVector)
	t.takeISR()
}

func (t *PCI) saveInterrupts(s *State) {
	t.isrMu.Lock()
	defer t.isrMu.Unlock()
	s.ConfigVector, s.ISR = uint16(t.configVector.Load()), t.isr
	for i, q := range t.queues {
		s.Queues[i].Vector = uint16(q.vector.Load())
	}
}

func (t *PCI) loadInterrupts(s *State) {
	for i, q := range t.queues {
		q.vector.Store(t.vector(uint64(s.Queues[i].Vector)))
	}
	t.configVector.Store(t.vector(uint64(s.ConfigVector)))
	t.isrMu.Lock()
	defer t.isrMu.Unlock()
	t.isr = s.ISR
	t.fn.SetINTx(s.ISR != 0)
}

// interrupt sends one notification: a message if MSI-X is enabled, else the ISR
// bit and INTx (§4.1.5.3, §4.1.5.4).
func (t *PCI) interrupt(vector uint32, isr uint8) {
	if t.msix.Trigger(int(vector)) {
		return
	}
	t.isrMu.Lock()
	defer t.isrMu.Unlock()
	t.isr |= isr
	t.fn.SetINTx(true)
}

// takeISR returns the ISR status and clears it, which lowers INTx (§4.1.4.5).
func (t *PCI) takeISR() uint8 {
	t.isrMu.Lock()
	defer t.isrMu.Unlock()
	v := t.isr
	t.isr = 0
	t.fn.SetINTx(false)
	return v
}

// moveDoorbells follows the register BAR with the queues' eventfds. The widest
// match is asked for first: KVM serves it fastest.
func (t *PCI) moveDoorbells(base uint64, mapped bool) {
	if t.cfg.Doorbells == nil {
		return
	}
	if !mapped {
		for i, size := range t.bellSizes {
			if size >= 0 {
				_ = t.cfg.Doorbells.RemoveDoorbell(t.bell(i), size, nil, t.queues[i].worker.fd)
			}
		}
		t.bellSizes = t.bellSizes[:0]
		return
	}
	t.bellBase = base + notifyOff
	for i, q := range t.queues {
		t.bellSizes = append(t.bellSizes, -1)
		for _, size := range [...]int{0, 2} {
			if t.cfg.Doorbells.AddDoorbell(t.bell(i), size, nil, q.worker.fd) == nil {
				t.bellSizes[i] = size
				break
			}
		}
	}
}

func (t *PCI) bell(i int) uint64 { return t.bellBase + uint64(i)*notifyStride }

// window is pci_cfg_data: four configuration bytes that reach any BAR of the
// function (§4.1.4.9).
type window struct{ t *PCI }

// target returns what the capability's bar, offset and length select.
func (w window) target() (h bus.Handler, off uint64, n int) {
	var c [16]byte
	w.t.fn.Peek(w.t.pciCap, c[:])
	off = uint64(binary.LittleEndian.Uint32(c[8:]))
	n = int(binary.LittleEndian.Uint32(c[12:]))
	h, size := w.t.fn.BAR(int(c[4]))
	if (n != 1 && n != 2 && n != 4) || off%uint64(n) != 0 || off+uint64(n) > size {
		return nil, 0, 0
	}
	return h, off, n
}

func (w window) Read(off uint64, p []byte) {
	clear(p)
	if h, at, n := w.target(); h != nil && off == 0 {
		var b [4]byte
		h.Read(at, b[:n])
		copy(p, b[:])
	}
}

func (w window) Write(off uint64, p []byte) {
	if h, at, n := w.target(); h != nil && off == 0 && len(p) >= n {
		h.Write(at, p[:n])
	}
}

// Close takes the doorbells away and releases the queues. The device is reset,
// and the guest no longer runs.
func (t *PCI) Close() error {
	t.moveDoorbells(0, false)
	return t.transport.Close()
}
