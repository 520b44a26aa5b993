package virtio_test

import (
	"sync"

	"berth/virtio"
)

// hoarder is a device that keeps its chains until it is told to return them.
type hoarder struct {
	max uint16

	mu    sync.Mutex
	q     *virtio.Queue
	taken []*virtio.Chain
}

func (h *hoarder) Info() virtio.Info {
	return virtio.Info{ID: 63, Name: "hoarder", Queues: []uint16{h.max}}
}
func (h *hoarder) ReadConfig([]byte, int) {}
func (h *hoarder) Reset()                 {}

func (h *hoarder) Activate(_ uint64, qs []*virtio.Queue) error {
	h.mu.Lock()
	h.q = qs[0]
	h.mu.Unlock()
	qs[0].Start(func() {
		for {
			c := &virtio.Chain{}
			if !qs[0].Pop(c) {
				return
			}
			h.mu.Lock()
			h.taken = append(h.taken, c)
			h.mu.Unlock()
		}
	})
	return nil
}

func (h *hoarder) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.taken)
}

// pushAll returns the chains, the last one first.
func (h *hoarder) pushAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.taken) - 1; i >= 0; i-- {
		h.q.Push(h.taken[i], 0)
	}
	h.taken = nil
	h.q.Notify()
}
