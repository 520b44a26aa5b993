package hostcpu

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"berth/x86"
	"berth/x86/decode"
)

// runner is runner.asm, assembled.
//
//go:embed runner.elf
var runner []byte

// Layout of the file the runner maps: sandbox, code, then the shared part.
// runner.asm has the same numbers.
const (
	sharedOff    = sandboxSize + codeSize
	imageOff     = sharedOff + 0x1000
	casesOff     = sharedOff + 0x3000
	caseSize     = 0x380
	caseFX       = 0xc0 // YMMH follows it
	resultsOff   = casesOff + maxCases*caseSize
	resultSize   = 0x2400
	resultFX     = 0xe0
	resultMemory = 0x400
	fileSize     = resultsOff + maxCases*resultSize
)

// contextRegs is the order of the kernel's struct sigcontext.
var contextRegs = [16]int{
	x86.R8, x86.R9, x86.R10, x86.R11, x86.R12, x86.R13, x86.R14, x86.R15,
	x86.RDI, x86.RSI, x86.RBP, x86.RBX, x86.RDX, x86.RAX, x86.RCX, x86.RSP,
}

// Host runs cases on the processor, in a child process.
type Host struct {
	cmd      *exec.Cmd
	mem      []byte
	file     *os.File
	to, from *os.File
	shared   int // offset of the shared part
}

// NewHost starts the runner.
func NewHost() (*Host, error) { return startHost(runner, fileSize, sharedOff) }

// startHost starts a runner that shares size bytes with it, of which those from
// shared on are not the case's memory.
func startHost(runner []byte, size, shared int) (h *Host, err error) {
	h = &Host{shared: shared}
	defer func() {
		if err != nil {
			_ = h.Close()
		}
	}()
	fd, err := unix.MemfdCreate("hostcpu", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("hostcpu: memfd: %w", err)
	}
	h.file = os.NewFile(uintptr(fd), "hostcpu")
	if err := h.file.Truncate(int64(size)); err != nil {
		return nil, err
	}
	h.mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("hostcpu: mmap: %w", err)
	}
	return h, h.start(runner)
}

// start writes the runner to a file of its own and executes it.
func (h *Host) start(runner []byte) error {
	exe, err := unix.MemfdCreate("runner", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(exe), "runner")
	defer f.Close()
	if _, err := f.Write(runner); err != nil {
		return err
	}
	childIn, to, err := os.Pipe()
	if err != nil {
		return err
	}
	from, childOut, err := os.Pipe()
	if err != nil {
		return err
	}
	h.to, h.from = to, from
	h.cmd = exec.Command(fmt.Sprintf("/proc/self/fd/%d", exe))
	h.cmd.Stdin, h.cmd.Stdout, h.cmd.ExtraFiles = childIn, childOut, []*os.File{h.file}
	err = h.cmd.Start()
	childIn.Close()
	childOut.Close()
	if err != nil {
		return fmt.Errorf("hostcpu: runner: %w", err)
	}
	return nil
}

// Close ends the runner and waits for it.
func (h *Host) Close() error {
	if h.to != nil {
		h.to.Close()
		h.from.Close()
	}
	if h.cmd != nil && h.cmd.Process != nil {
		timer := time.AfterFunc(5*time.Second, func() { _ = h.cmd.Process.Kill() })
		_ = h.cmd.Wait() // killed or not, it is gone
		timer.Stop()
	}
	if h.mem != nil {
		_ = unix.Munmap(h.mem)
	}
	if h.file != nil {
		h.file.Close()
	}
	return nil
}

// Run is Engine's. It fails if a case hangs or kills the runner: the error names it.
func (h *Host) Run(image []byte, cases []Case, results []Result) error {
	copy(h.mem[imageOff:imageOff+sandboxSize], image)
	layCode(h.mem[sandboxSize:sandboxSize+codeSize], cases)
	for i := range cases {
		putCase(h.mem[casesOff+i*caseSize:], startRIP(i, cases[i].Mode), cases[i].Mode, &cases[i].State)
	}
	if i, err := h.batch(len(cases)); err != nil {
		return fmt.Errorf("hostcpu: the runner hangs or died in case %d (% x): %w", i, cases[i].Code, err)
	}
	for i := range cases {
		p := h.mem[resultsOff+i*resultSize:]
		getResult(p, cases[i].Mode, &results[i])
		copy(results[i].Memory[:], p[resultMemory:])
	}
	return nil
}

// batch has the runner run n cases. An error comes with the case it is in.
func (h *Host) batch(n int) (at int, err error) {
	binary.LittleEndian.PutUint64(h.mem[h.shared:], uint64(n))
	if _, err := h.to.Write([]byte{1}); err != nil {
		return 0, err
	}
	if err := h.from.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := h.from.Read(make([]byte, 1)); err != nil {
		return int(min(binary.LittleEndian.Uint64(h.mem[h.shared+8:]), uint64(n-1))), err
	}
	return 0, nil
}

func putCase(p []byte, rip uint64, m decode.Mode, s *State) {
	le := binary.LittleEndian
	for n, r := range contextRegs {
		le.PutUint64(p[8*n:], s.GPR[r])
	}
	cs, ss := selectors(m)
	le.PutUint64(p[8*16:], rip)
	le.PutUint64(p[8*17:], s.RFLAGS)
	le.PutUint64(p[8*18:], uint64(cs)|uint64(ss)<<48)
	le.PutUint64(p[8*19:], s.FSBase)
	le.PutUint64(p[8*20:], s.GSBase)
	le.PutUint64(p[8*21:], uint64(ss)|uint64(ss)<<16)
	copy(p[caseFX:caseFX+fxSize], s.FX[:])
	copy(p[caseFX+fxSize:], s.YMMH[:])
}

// getResult reads a result but for its memory.
func getResult(p []byte, m decode.Mode, r *Result) {
	le := binary.LittleEndian
	for n, reg := range contextRegs {
		r.State.GPR[reg] = le.Uint64(p[8*n:])
	}
	r.State.RIP, r.State.RFLAGS = le.Uint64(p[8*16:]), le.Uint64(p[8*17:])
	r.Error, r.Vector = le.Uint64(p[8*19:]), uint8(le.Uint64(p[8*20:]))
	r.CR2 = 0
	if r.Vector == x86.PF {
		r.CR2 = le.Uint64(p[8*22:])
	}
	r.State.FSBase, r.State.GSBase = le.Uint64(p[8*23:]), le.Uint64(p[8*24:])
	r.Stop = ""
	if cs, _ := selectors(m); le.Uint16(p[8*18:]) != cs {
		r.Stop = fmt.Sprintf("CS is %#x", le.Uint16(p[8*18:]))
	}
	copy(r.State.FX[:], p[resultFX:])
	copy(r.State.YMMH[:], p[resultFX+fxSize:])
}
