package gdb

import (
	"encoding/hex"
	"fmt"
	"strings"

	"berth/x86"
)

// features answers what gdb can do with what the stub can.
func (s *session) features(args string) []byte {
	for f := range strings.SplitSeq(strings.TrimPrefix(args, ":"), ";") {
		switch f {
		case "swbreak+":
			s.swBreak = true
		case "hwbreak+":
			s.hwBreak = true
		}
	}
	return fmt.Appendf(nil, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+", maxPacket)
}

// readFeatures is qXfer:features:read:ANNEX:OFFSET,LENGTH.
func (s *session) readFeatures(args string) []byte {
	annex, where, _ := strings.Cut(args, ":")
	off, n, ok := span(where)
	if annex != "target.xml" || !ok {
		return []byte("E00")
	}
	text := description()
	if off >= uint64(len(text)) {
		return []byte("l")
	}
	text = text[off:]
	n = min(n, maxPacket/2-1) // all of it may have to be escaped
	if n >= uint64(len(text)) {
		return append([]byte("l"), text...)
	}
	return append([]byte("m"), text[:n]...)
}

// selectThread is H: g for registers and memory, c for steps.
func (s *session) selectThread(args string) []byte {
	if args == "" {
		return failed(badArgument)
	}
	cpu, all, good := s.threadNumber(args[1:])
	switch {
	case !good:
		return failed(badArgument)
	case args[0] == 'c' && all:
		s.stepper = -1
	case args[0] == 'c':
		s.stepper = cpu
	case args[0] == 'g' && !all:
		s.thread = cpu
	case args[0] != 'g':
		return failed(badArgument)
	}
	return ok()
}

// threadLives is T.
func (s *session) threadLives(args string) []byte {
	if _, all, good := s.threadNumber(args); !good || all {
		return failed(badArgument)
	}
	return ok()
}

// threads lists all at once: they fit.
func (s *session) threads(string) []byte {
	out := []byte("m")
	for i := range s.vm.CPUs() {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, "%02x", i+1)
	}
	return out
}

// threadInfo says what a vCPU is, in QEMU's words.
func (s *session) threadInfo(args string) []byte {
	cpu, all, good := s.threadNumber(args)
	if !good || all {
		return failed(badArgument)
	}
	var v x86.State
	if s.do(func() error { return s.vm.State(cpu, &v) }) != nil {
		return failed(badArgument)
	}
	state := "running"
	if v.MP != x86.MPRunnable {
		state = "halted "
	}
	return []byte(hex.EncodeToString(fmt.Appendf(nil, "CPU#%d [%s]", cpu, state)))
}

// runMonitor is qRcmd: what the line prints comes in O packets, before OK.
func (s *session) runMonitor(args string) ([]byte, func() error) {
	line, err := hex.DecodeString(args)
	if err != nil {
		return failed(badArgument), nil
	}
	if s.monitor == nil {
		s.monitor = s.stub.monitor()
	}
	for out := s.monitor(string(line)); out != ""; {
		n := min(len(out), maxPacket/4)
		text := "O" + hex.EncodeToString([]byte(out[:n]))
		if err := s.send([]byte(text)); err != nil {
			return nil, func() error { return err }
		}
		out = out[n:]
	}
	return ok(), nil
}

// stepBits is what steps can be told to do, and stepDefault what they do, as QEMU
// says it; guest time goes on meanwhile.
func (s *session) stepBits(string) []byte {
	if s.limits.NoHold {
		return []byte("ENABLE=1")
	}
	return []byte("ENABLE=1,NOIRQ=2")
}

func (s *session) stepDefault(string) []byte {
	if s.limits.NoHold {
		return []byte("0x1")
	}
	return []byte("0x3")
}

// setPhysical has addresses mean physical ones, of memory commands alone.
func (s *session) setPhysical(args string) []byte {
	switch args {
	case "0", "1":
		s.physical = args == "1"
		return ok()
	}
	return failed(badArgument)
}
