package gdb

import (
	"encoding/hex"
	"fmt"
	"strings"

	"berth/guestmem"
	"berth/monitor/inspect"
	"berth/x86"
)

// The VM's memory as a debugger sees it: RAM and ROM by the page tables of the
// selected vCPU, or by physical address. Devices' registers, which reading may change,
// are not there, and neither are the INT3s of breakpoints.

// span reads ADDR,LENGTH.
func span(text string) (addr, n uint64, ok bool) {
	a, l, _ := strings.Cut(text, ",")
	addr, ok1 := number(a)
	n, ok2 := number(l)
	return addr, n, ok1 && ok2
}

// readMemory is m: as many bytes as there are, up to what fits.
func (s *session) readMemory(args string) []byte {
	addr, n, ok := span(args)
	if !ok {
		return failed(badArgument)
	}
	p := make([]byte, min(n, maxPacket/2))
	done := 0
	err := s.pages(addr, len(p), func(gpa uint64, from, to int) error {
		err := s.points.read(gpa, p[from:to])
		if err == nil {
			done = to
		}
		return err
	})
	if err != nil && done == 0 {
		return failed(noMemory)
	}
	return []byte(hex.EncodeToString(p[:done]))
}

// writeMemoryHex is M, writeMemory X: ADDR,LENGTH:DATA, all of it or an error.
func (s *session) writeMemoryHex(args string) []byte {
	where, digits, _ := strings.Cut(args, ":")
	data, err := hex.DecodeString(digits)
	if err != nil {
		return failed(badArgument)
	}
	return s.write8(where, data)
}

func (s *session) writeMemory(args string) []byte {
	where, data, _ := strings.Cut(args, ":")
	return s.write8(where, []byte(data))
}

func (s *session) write8(where string, data []byte) []byte {
	addr, n, good := span(where)
	if !good || n != uint64(len(data)) {
		return failed(badArgument)
	}
	nowhere := func(uint64, int, int) error { return nil }
	if s.pages(addr, len(data), nowhere) != nil { // before anything is written
		return failed(noMemory)
	}
	if s.pages(addr, len(data), func(gpa uint64, from, to int) error { return s.points.write(gpa, data[from:to]) }) != nil {
		return failed(noMemory)
	}
	return ok()
}

// pages calls f for each page of n bytes from addr on, with the bytes that it has of
// them, until there is none or f fails. It is within Do.
func (s *session) pages(addr uint64, n int, f func(gpa uint64, from, to int) error) error {
	return s.do(func() error {
		var v x86.State
		if !s.physical {
			if err := s.vm.State(s.thread, &v); err != nil {
				return err
			}
		}
		for from := 0; from < n; {
			va := addr + uint64(from)
			size := min(n-from, int(guestmem.PageSize-va%guestmem.PageSize))
			gpa, ok := va, true
			if !s.physical {
				gpa, ok = inspect.Translate(s.vm.Memory(), &v, va)
			}
			if !ok || s.vm.Memory().Find(gpa) == nil {
				return fmt.Errorf("no memory at 0x%x", va)
			}
			if err := f(gpa, from, from+size); err != nil {
				return err
			}
			from += size
		}
		return nil
	})
}
