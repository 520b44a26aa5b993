package blocktest

import (
	"bytes"
	"sync"

	"berth/block"
)

// Act is what a recorded event did to its file.
type Act uint8

// The acts of a file that change it, and the one that makes them last.
const (
	ActWrite Act = iota
	ActZero
	ActDiscard
	ActTruncate
	ActFlush
)

// String names the act as the texts of recorded orders do.
func (a Act) String() string { return [...]string{"write", "zero", "discard", "truncate", "flush"}[a] }

// Event is one call that a file got. Off is the new size in a truncate.
type Event struct {
	File     string
	Act      Act
	FUA      bool
	Off, Len int64
	Data     []byte // of a write
}

// Log is the order in which the calls to one or several files were done. An event
// is in it before the call that it records has returned.
type Log struct {
	mu     sync.Mutex
	events []Event
}

// Len returns how many events there are.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// Events returns the events so far. They are not to be changed.
func (l *Log) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[:len(l.events):len(l.events)]
}

// Recorder passes calls on to its File and keeps them, under its name, in a log.
// What failed is not recorded.
type Recorder struct {
	block.File
	name string
	log  *Log
}

// Record returns a file that keeps what is done to f.
func (l *Log) Record(name string, f block.File) *Recorder { return &Recorder{f, name, l} }

// do keeps the order of the log that of the file: calls that change it do not overlap.
func (r *Recorder) do(e Event, f func() error) error {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	e.File = r.name
	r.log.events = append(r.log.events, e)
	return nil
}

// Writev is recorded with the bytes written.
func (r *Recorder) Writev(iov [][]byte, off int64, f block.Flags) error {
	p := bytes.Join(iov, nil)
	return r.do(Event{Act: ActWrite, Off: off, Len: int64(len(p)), Data: p, FUA: f&block.FlagFUA != 0},
		func() error { return r.File.Writev(iov, off, f) })
}

// WriteZeroes is recorded.
func (r *Recorder) WriteZeroes(off, n int64, f block.Flags) error {
	return r.do(Event{Act: ActZero, Off: off, Len: n, FUA: f&block.FlagFUA != 0},
		func() error { return r.File.WriteZeroes(off, n, f) })
}

// Discard is recorded.
func (r *Recorder) Discard(off, n int64) error {
	return r.do(Event{Act: ActDiscard, Off: off, Len: n}, func() error { return r.File.Discard(off, n) })
}

// Truncate is recorded.
func (r *Recorder) Truncate(size int64) error {
	return r.do(Event{Act: ActTruncate, Off: size}, func() error { return r.File.Truncate(size) })
}

// Flush is recorded.
func (r *Recorder) Flush() error {
	return r.do(Event{Act: ActFlush}, r.File.Flush)
}
