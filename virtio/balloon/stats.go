package balloon

import (
	"encoding/binary"
	"sync"
	"time"

	"berth/virtio"
)

// Tags of statistics (virtio 1.2 §5.5.6.4); sizes in bytes.
const (
	SwapIn = iota
	SwapOut
	MajorFaults
	MinorFaults
	FreeMemory
	TotalMemory
	AvailableMemory
	DiskCaches
	HugePagesAllocated
	HugePagesFailed
	Tags
)

// Unknown is the value of a statistic that the guest has not given.
const Unknown = ^uint64(0)

// Stats are what a guest said of its memory last, by tag, and when: the zero time if
// it never did.
type Stats struct {
	Values [Tags]uint64
	At     time.Time
}

// struct virtio_balloon_stat (§5.5.6.3): tag 2 | value 8
const statSize, maxStats = 10, 64

// stats are the guest's statistics. The driver's buffer lies in the queue, full,
// until somebody wants it filled anew (§5.5.6.3):
//
//	buffer comes --read--> kept --poll--> given back --driver fills it--> buffer comes
type stats struct {
	mu       sync.Mutex
	last     Stats
	known    bool // last has been filled once
	interval time.Duration
	timer    *time.Timer
	wanted   bool // a poll that has not been acted on
	q        *virtio.Queue
}

// Stats returns what the guest said last.
func (d *Device) Stats() Stats {
	s := &d.stats
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known {
		return unknown()
	}
	return s.last
}

func unknown() (s Stats) {
	for i := range s.Values {
		s.Values[i] = Unknown
	}
	return s
}

// Interval is the time between two polls; 0: there are none.
func (d *Device) Interval() time.Duration {
	d.stats.mu.Lock()
	defer d.stats.mu.Unlock()
	return d.stats.interval
}

// SetInterval has the guest asked for statistics that often, or with 0 no more.
func (d *Device) SetInterval(every time.Duration) { d.stats.setInterval(every) }

func (s *stats) setInterval(every time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interval = every
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if every > 0 {
		s.timer = time.AfterFunc(every, s.poll)
	}
}

// poll asks once, and sets the timer for the next time.
func (s *stats) poll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interval == 0 {
		return
	}
	if s.timer != nil {
		s.timer.Reset(s.interval)
	}
	if s.q != nil {
		s.wanted = true
		s.q.Wake()
	}
}

func (s *stats) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.q, s.wanted, s.known = nil, false, false
}

// serve reads each buffer that comes and gives it back when it is wanted anew. Until
// then it is not held, so that the queue can be paused and reset.
func (s *stats) serve(q *virtio.Queue) {
	s.mu.Lock()
	s.q = q
	s.mu.Unlock()
	var c virtio.Chain
	q.Start(func() {
		for q.Pop(&c) {
			s.read(&c)
			q.Unpop()
			for !s.take() {
				if !q.Sleep() {
					return
				}
			}
			if !q.Pop(&c) {
				return
			}
			q.Push(&c, 0)
			q.Notify()
		}
	})
}

func (s *stats) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.wanted
	s.wanted = false
	return w
}

// read keeps what a buffer says. Tags come in any order, and unknown ones are passed
// over (§5.5.6.3.2).
func (s *stats) read(c *virtio.Chain) {
	var b [statSize * maxStats]byte
	n := 0
	for _, part := range c.Readable {
		n += copy(b[n:], part)
	}
	now := unknown()
	now.At = time.Now()
	for p := b[:n-n%statSize]; len(p) > 0; p = p[statSize:] {
		if tag := binary.LittleEndian.Uint16(p); tag < Tags {
			now.Values[tag] = binary.LittleEndian.Uint64(p[2:])
		}
	}
	s.mu.Lock()
	s.last, s.known = now, true
	s.mu.Unlock()
}
