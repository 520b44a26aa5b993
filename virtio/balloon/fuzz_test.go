package balloon

import (
	"testing"
	"time"

	"berth/virtio/virtiotest"
)

// FuzzQueues plays a history on all queues. Six bytes make a step: queue, kind and
// length 2, place 2, of a buffer. Nothing outside RAM is discarded, what is left to
// the guest stays sensible, and the device answers or waits for a reset.
func FuzzQueues(f *testing.F) {
	f.Add([]byte{0, 0, 16, 0, 0x10, 0, 1, 0, 16, 0, 0x10, 0, 2, 0, 30, 0, 0x20, 0, 3, 1, 0, 0x40, 0, 0, 4, 1, 0, 0xff, 0, 1}, []byte{5, 0, 0, 0, 6, 0, 0, 0})
	f.Add([]byte{2, 0, 100, 0, 0, 0, 2, 0, 100, 0, 0, 0, 5, 0, 0, 0, 0, 0, 6, 9, 0, 0, 0, 0}, stat(FreeMemory, 1))
	f.Fuzz(func(t *testing.T, history, data []byte) {
		history = history[:min(len(history), 6*64)]
		r := newRig(t, featureStats|featureReporting|featurePagePoison|featureDeflateOnOOM)
		r.mem.limit = virtiotest.RAM
		r.Put(0, data[:min(len(data), 1<<16)])
		for ; len(history) >= 6; history = history[6:] {
			n, place := uint32(history[2])|uint32(history[3])<<8, uint64(history[4])|uint64(history[5])<<8
			switch what := history[0] % 8; {
			case what < 5:
				d := virtiotest.Out(place<<4, n)
				if history[1]&1 != 0 {
					d = virtiotest.In(place<<8, n<<4)
				}
				r.rings[what].Send(d)
			case what == 5:
				r.SetDeviceConfig(int(place%configSize)&^3, 4, uint64(n)<<16|place)
				r.dev.SetTarget(uint64(n) << 12)
			case what == 6:
				r.dev.SetInterval(time.Duration(n) * time.Microsecond)
			default:
				r.Dev.Pause()
				r.Dev.Save()
				r.Dev.Resume()
			}
		}
		r.Dev.Pause()
		r.Dev.Resume()
		if n := r.dev.Actual(); n > ramSize {
			t.Errorf("the guest has %d bytes", n)
		}
		for _, x := range r.mem.took() {
			if x[0]+x[1] > virtiotest.RAM {
				t.Errorf("discarded %x", x)
			}
		}
	})
}
