// Package virtio carries paravirtual devices: split virtqueues in guest memory and the PCI transport in front of them.
package virtio

// DeviceID is a device type (virtio 1.2 §5).
type DeviceID uint16

// Device types that berth has.
const (
	IDNet     DeviceID = 1
	IDBlock   DeviceID = 2
	IDConsole DeviceID = 3
	IDRNG     DeviceID = 4
	IDBalloon DeviceID = 5
	IDVsock   DeviceID = 19
)

// Feature bits that belong to the transport and the rings (§6).
const (
	FeatureIndirect = uint64(1) << 28
	FeatureEventIdx = uint64(1) << 29
	FeatureVersion1 = uint64(1) << 32
)

// ringFeatures are offered for every device.
const ringFeatures = FeatureIndirect | FeatureEventIdx | FeatureVersion1

// Device status bits (§2.1).
const (
	StatusAcknowledge = 1
	StatusDriver      = 2
	StatusDriverOK    = 4
	StatusFeaturesOK  = 8
	StatusNeedsReset  = 64
	StatusFailed      = 128
)

// Info is what a device is, fixed for its life.
type Info struct {
	ID         DeviceID
	Name       string   // for people: "virtio-blk"
	Features   uint64   // the device's own feature bits
	Queues     []uint16 // largest size of each queue, a power of two
	ConfigSize int      // bytes of device configuration space
}

// Device is what stands behind a transport. The transport calls one method at a
// time, except ReadConfig, which comes from any vCPU at any moment.
type Device interface {
	Info() Info
	// ReadConfig fills p from the device configuration space at off; the range is inside ConfigSize.
	ReadConfig(p []byte, off int)
	// Activate starts the device with the features that the driver accepted. It
	// calls Start on the queues it serves; a queue that the driver did not
	// enable ignores that.
	Activate(acked uint64, qs []*Queue) error
	// Reset forgets the driver. The transport has stopped the queues and every
	// chain has come back.
	Reset()
}

// ConfigWriter is a device with configuration fields that the driver writes.
type ConfigWriter interface {
	WriteConfig(p []byte, off int)
}

// ConfigChanger is a device whose configuration changes by itself. The transport
// gives it, once, the function to call after each change; it never blocks.
type ConfigChanger interface {
	OnConfigChange(changed func())
}

// Hastener is a device that may hold chains back for long of its own will. While
// Hasten is on, which is while the transport waits for them, it must not. Called
// in pairs, from any goroutine.
type Hastener interface {
	Hasten(on bool)
}

// Doorbells lets an eventfd stand for a notification register, so that ringing
// it does not leave the guest. size is the access width (0: any).
type Doorbells interface {
	AddDoorbell(addr uint64, size int, value *uint64, eventfd int) error
	RemoveDoorbell(addr uint64, size int, value *uint64, eventfd int) error
}
