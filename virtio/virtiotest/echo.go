package virtiotest

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"berth/virtio"
)

// Echo is a device that answers each chain with what it read, and keeps what it saw.
type Echo struct {
	Queues   []uint16
	Config   []byte
	Acked    uint64
	Resets   int
	Refuse   error         // what Activate returns
	Chains   chan [2]int64 // read and write length of each chain served
	Hold     chan bool     // when not nil, one receive before each chain
	Active   []*virtio.Queue
	ConfigIn [][]byte
}

// NewEcho returns a device with one queue of 256 and 13 bytes of configuration.
func NewEcho() *Echo {
	return &Echo{Queues: []uint16{256}, Config: []byte("configuration"), Chains: make(chan [2]int64, 4096)}
}

// EchoFeatures are the feature bits that Echo has of its own.
const EchoFeatures = uint64(1) << 3

// Info implements virtio.Device.
func (e *Echo) Info() virtio.Info {
	return virtio.Info{ID: 63, Name: "echo", Features: EchoFeatures, Queues: e.Queues, ConfigSize: len(e.Config)}
}

// ReadConfig implements virtio.Device.
func (e *Echo) ReadConfig(p []byte, off int) { copy(p, e.Config[off:]) }

// WriteConfig implements virtio.ConfigWriter.
func (e *Echo) WriteConfig(p []byte, _ int) {
	e.ConfigIn = append(e.ConfigIn, append([]byte(nil), p...))
}

// Reset implements virtio.Device.
func (e *Echo) Reset() { e.Resets++ }

// Activate implements virtio.Device.
func (e *Echo) Activate(acked uint64, qs []*virtio.Queue) error {
	e.Acked, e.Active = acked, qs
	for _, q := range qs {
		var c virtio.Chain
		q.Start(func() {
			for q.Pop(&c) {
				if e.Hold != nil {
					<-e.Hold
				}
				select {
				case e.Chains <- [2]int64{c.ReadLen, c.WriteLen}:
				default:
				}
				q.Push(&c, answer(&c))
				q.Notify()
			}
		})
	}
	return e.Refuse
}

func answer(c *virtio.Chain) (n int64) {
	var in []byte
	for _, b := range c.Readable {
		if len(in) < 1<<16 {
			in = append(in, b...)
		}
	}
	for _, b := range c.Writable {
		k := copy(b, in)
		in = in[k:]
		n += int64(k)
	}
	return n
}

// Bells keeps doorbells and rings them as KVM would.
type Bells struct {
	Sizes map[int]bool // access widths that it takes

	mu sync.Mutex
	at map[bell]int
}

// bell is what a doorbell answers to: a write of value to addr, of any value if -1.
type bell struct {
	addr  uint64
	value int64
}

func bellAt(addr uint64, value *uint64) bell {
	if value == nil {
		return bell{addr, -1}
	}
	return bell{addr, int64(*value)}
}

// AddDoorbell implements virtio.Doorbells.
func (b *Bells) AddDoorbell(addr uint64, size int, value *uint64, fd int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := bellAt(addr, value)
	if _, taken := b.at[at]; taken || !b.Sizes[size] {
		return errors.New("refused")
	}
	if b.at == nil {
		b.at = map[bell]int{}
	}
	b.at[at] = fd
	return nil
}

// RemoveDoorbell implements virtio.Doorbells.
func (b *Bells) RemoveDoorbell(addr uint64, size int, value *uint64, fd int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := bellAt(addr, value)
	if b.at[at] != fd || !b.Sizes[size] {
		return errors.New("no such doorbell")
	}
	delete(b.at, at)
	return nil
}

// Len returns how many doorbells are attached.
func (b *Bells) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.at)
}

// Ring does what a write of value to addr does.
func (b *Bells) Ring(addr, value uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range []bell{{addr, -1}, {addr, int64(value)}} {
		if fd, ok := b.at[at]; ok {
			_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			return err
		}
	}
	return fmt.Errorf("no doorbell for %d at 0x%x, but %v", value, addr, b.at)
}
