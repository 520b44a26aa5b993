package gdb

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// errno is what an answer says of a failure: a number of Linux's, as QEMU has it.
type errno int

const (
	noMemory    errno = 14 // EFAULT: the address leads nowhere
	badArgument errno = 22 // EINVAL
	noRoom      errno = 28 // ENOSPC
)

func failed(e errno) []byte { return fmt.Appendf(nil, "E%02x", int(e)) }

// ok and none are answers: done, and "there is no such thing here".
func ok() []byte   { return []byte("OK") }
func none() []byte { return []byte{} }

// handler runs a command whose name is cut off. A nil answer is none now. then, if not
// nil, runs once the answer has been sent; its error ends the session.
type handler func(s *session, args string) (answer []byte, then func() error)

// command is one by the letters it begins with; without arguments, all of it is its name.
type command struct {
	name string
	run  handler
	bare bool
}

// simple is a handler that only answers.
func simple(f func(s *session, args string) []byte) handler {
	return func(s *session, args string) ([]byte, func() error) { return f(s, args), nil }
}

// commands is every packet that is understood (gdb's manual, appendix E "gdb Remote
// Serial Protocol"), of two with arguments that begin alike the longer first.
func commands() []command {
	return []command{
		{"?", simple(func(s *session, _ string) []byte { return s.stopReply(trap, "") }), true},
		{"g", simple((*session).readRegisters), true},
		{"G", simple((*session).writeRegisters), false},
		{"p", simple((*session).readRegister), false},
		{"P", simple((*session).writeRegister), false},
		{"m", simple((*session).readMemory), false},
		{"M", simple((*session).writeMemoryHex), false},
		{"X", simple((*session).writeMemory), false},
		{"Z", simple((*session).addPoint), false},
		{"z", simple((*session).removePoint), false},
		{"c", (*session).continueAt, false},
		{"C", (*session).continueSignalled, false},
		{"s", (*session).stepAt, false},
		{"S", (*session).stepSignalled, false},
		{"vCont?", simple(func(*session, string) []byte { return []byte("vCont;c;C;s;S") }), true},
		{"vCont;", (*session).resume, false},
		{"vKill;", (*session).kill, false},
		{"k", (*session).killAtOnce, true},
		{"D", (*session).detach, false},
		{"H", simple((*session).selectThread), false},
		{"T", simple((*session).threadLives), false},
		{"qfThreadInfo", simple((*session).threads), true},
		{"qsThreadInfo", simple(func(*session, string) []byte { return []byte("l") }), true},
		{"qThreadExtraInfo,", simple((*session).threadInfo), false},
		{"qC", simple(func(s *session, _ string) []byte { return fmt.Appendf(nil, "QC%02x", s.thread+1) }), true},
		{"qSupported", simple((*session).features), false},
		{"qXfer:features:read:", simple((*session).readFeatures), false},
		{"qAttached", simple(func(*session, string) []byte { return []byte("1") }), false},
		{"QStartNoAckMode", (*session).endAcks, true},
		{"qRcmd,", (*session).runMonitor, false},
		{"qqemu.sstepbits", simple((*session).stepBits), true},
		{"qqemu.sstep", simple((*session).stepDefault), true},
		{"qqemu.PhyMemMode", simple(func(s *session, _ string) []byte { return fmt.Appendf(nil, "%d", bit(s.physical)) }), true},
		{"Qqemu.PhyMemMode:", simple((*session).setPhysical), false},
	}
}

// execute runs a packet.
func (s *session) execute(text []byte) (answer []byte, then func() error) {
	for _, c := range commands() {
		if rest, ok := bytes.CutPrefix(text, []byte(c.name)); ok && !(c.bare && len(rest) > 0) {
			return c.run(s, string(rest))
		}
	}
	return none(), nil
}

func bit(on bool) int {
	if on {
		return 1
	}
	return 0
}

// number reads one of the protocol's: hexadecimal digits.
func number(text string) (uint64, bool) {
	v, err := strconv.ParseUint(text, 16, 64)
	return v, err == nil
}

// thread reads a thread's number, which is its vCPU's and one; any: 0 or -1 stands for all.
func (s *session) threadNumber(text string) (cpu int, any, ok bool) {
	if text == "-1" || text == "0" {
		return 0, true, true
	}
	n, ok := number(text)
	if !ok || n == 0 || n > uint64(len(s.vm.CPUs())) {
		return 0, false, false
	}
	return int(n - 1), false, true
}

// errLeft ends a session that its debugger wants to end.
var errLeft = errors.New("the debugger has left")

func (s *session) endAcks(string) ([]byte, func() error) {
	return ok(), func() error {
		s.noAck = true
		return nil
	}
}

// kill ends the VM.
func (s *session) kill(string) ([]byte, func() error) {
	return ok(), func() error {
		s.vm.Stop()
		return errLeft
	}
}

func (s *session) killAtOnce(string) ([]byte, func() error) {
	_, then := s.kill("")
	return nil, then
}

// detach lets the VM go on without the debugger.
func (s *session) detach(string) ([]byte, func() error) {
	s.forget()
	_ = s.do(s.vm.Continue) // a guest that has shut down stays so
	return ok(), func() error { return errLeft }
}
