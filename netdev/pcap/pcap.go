// Package pcap keeps a port's frames in a file, as QEMU's filter-dump does.
package pcap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"berth/netdev"
)

// The file (libpcap's format, in the host's byte order):
//
//	magic 4 | major 2 | minor 2 | time zone 4 | accuracy 4 | longest 4 | link type 4
//
// and for each frame
//
//	seconds 4 | microseconds 4 | bytes that follow 4 | bytes of the frame 4 | frame
const (
	magic        = 0xa1b2c3d4
	linkEthernet = 1
	longest      = 65536 // more of a frame is not kept, as with QEMU
	recordSize   = 16
)

// File is a capture. It is what netdev.Around puts on a cable.
type File struct {
	failed func(error)

	mu     sync.Mutex
	f      *os.File // nil: closed, or broken
	record []byte
}

// Create begins the file anew, which only its owner may read. When it cannot be written any
// more, failed is told, once, and frames go on without.
func Create(path string, failed func(error)) (*File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("pcap: %w", err)
	}
	ne := binary.NativeEndian
	h := ne.AppendUint32(nil, magic)
	h = ne.AppendUint16(h, 2)
	h = ne.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...)
	h = ne.AppendUint32(h, longest)
	h = ne.AppendUint32(h, linkEthernet)
	if _, err := f.Write(h); err != nil {
		return nil, errors.Join(fmt.Errorf("pcap: %w", err), f.Close())
	}
	return &File{f: f, failed: failed}, nil
}

// Out implements netdev.Between.
func (p *File) Out(frame [][]byte) bool {
	p.keep(frame)
	return true
}

// In implements netdev.Between.
func (p *File) In(frame []byte) bool {
	p.keep([][]byte{frame})
	return true
}

// keep writes a frame, without its header, in one piece.
func (p *File) keep(frame [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f == nil {
		return
	}
	now := time.Now()
	ne := binary.NativeEndian
	p.record = ne.AppendUint32(p.record[:0], uint32(now.Unix()))
	p.record = ne.AppendUint32(p.record, uint32(now.Nanosecond()/1000))
	p.record = append(p.record, make([]byte, 8)...)
	skip, size := netdev.HeaderSize, 0
	for _, b := range frame {
		k := min(skip, len(b))
		skip -= k
		size += len(b) - k
		p.record = append(p.record, b[k:]...)
	}
	p.record = p.record[:min(len(p.record), recordSize+longest)]
	ne.PutUint32(p.record[8:], uint32(len(p.record)-recordSize))
	ne.PutUint32(p.record[12:], uint32(size))
	if _, err := p.f.Write(p.record); err != nil {
		p.failed(errors.Join(fmt.Errorf("pcap: frames are not kept any more: %w", err), p.f.Close()))
		p.f = nil
	}
}

// Close implements netdev.Between.
func (p *File) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f == nil {
		return nil
	}
	f := p.f
	p.f = nil
	return f.Close()
}
