package kvm

import (
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/accel"
	"berth/guestmem"
	"berth/x86"
)

// probeProgram is probe.asm, assembled.
//
//go:embed probe.bin
var probeProgram []byte

const (
	probeOrigin = 0x1000 // where probeProgram is loaded and starts
	probeResume = 0x6000 // where it notes its way round the instruction it tries
	// probePatience is how long the guest may stay silent: thousands of times what a slow KVM needs.
	probePatience = 20 * time.Second
)

// probeTries are the instructions of probe.asm by number: ordinary kernels execute all of them.
func probeTries() []string { return []string{"cmpxchg16b", "fnclex", "fwait", "xrstor64"} }

// Probe reports whether the KVM at path can run ordinary guests, found out by
// running a tiny one. The finding holds until the host boots or the device
// changes; it is kept in the user's cache directory, or in /run. An error
// (an *OpenError) means that there is no KVM to probe; the report's Reason says the same.
func Probe(path string, log *slog.Logger) (Report, error) {
	a, err := New(path, log)
	if err != nil {
		return Report{Reason: err.Error()}, err
	}
	defer func() { _ = a.Close() }()
	file := a.probeCache()
	if r, ok := loadReport(file); ok {
		return r, nil
	}
	r := a.probe()
	storeReport(file, r, log)
	return r, nil
}

// probeCache names the file for this boot, device and program; "" if there is no place for it.
func (a *Accelerator) probeCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = "/run" // a service has no home; only root can write here
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	var st unix.Stat_t
	if err := unix.Fstat(a.fd, &st); err != nil {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d %d %d %v\n", strings.TrimSpace(string(boot)), st.Dev, st.Ino, st.Rdev, MinMIPS, probeTries())
	h.Write(probeProgram)
	return filepath.Join(dir, "berth", "kvm-probe-"+hex.EncodeToString(h.Sum(nil)[:12])+".json")
}

func loadReport(file string) (Report, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Report{}, false
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil || r.Reason == "" {
		return Report{}, false
	}
	r.Cached = true
	return r, true
}

// storeReport keeps r for the next caller. Without a cache each call probes anew, so failure is only a debug message.
func storeReport(file string, r Report, log *slog.Logger) {
	if file == "" {
		return
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		// Written beside and renamed: a reader never sees half of it.
		tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
		if err = os.WriteFile(tmp, b, 0o600); err == nil {
			err = os.Rename(tmp, file)
		}
	}
	if err != nil {
		log.Debug("kvm: the probe's finding is not cached", "error", err)
	}
}

// prober is the host's side of the probe's guest.
type prober struct {
	vcpu     accel.VCPU
	turns    uint32        // of the current count; 0 once it is measured
	started  time.Duration // CPU time of the vCPU's thread
	mips     float64       // the best count's
	executed map[uint8]bool
	ended    bool
}

// probe runs the guest. It never fails: what goes wrong is the finding.
func (a *Accelerator) probe() Report {
	p := &prober{turns: 10_000, executed: map[uint8]bool{}}
	mem := guestmem.New()
	defer func() { _ = mem.Close() }()
	_, err := mem.AddRAM(0, 0x80000)
	if err == nil {
		err = mem.Write(probeOrigin, probeProgram)
	}
	var v accel.VM
	if err == nil {
		v, err = a.NewVM(accel.Config{Memory: mem, Ports: p, MMIO: p, CPUs: 1})
	}
	if err != nil {
		return Report{Reason: err.Error()}
	}
	defer func() { _ = v.Close() }()
	if p.vcpu, err = v.NewVCPU(0); err != nil {
		return Report{Reason: err.Error()}
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the vCPU's
		done <- p.run(mem)
	}()
	// The guest's silence is bounded by kicking it.
	alarm := time.AfterFunc(probePatience, p.vcpu.Kick)
	defer alarm.Stop()
	return p.report(<-done)
}

// run executes the guest to its end, round every instruction that stops it.
func (p *prober) run(mem *guestmem.Memory) error {
	var s x86.State
	if err := p.vcpu.GetState(&s); err != nil {
		return err
	}
	s.Seg[x86.CS].Selector, s.Seg[x86.CS].Base, s.RIP = 0, 0, probeOrigin
	for tries := 0; ; tries++ {
		if err := p.vcpu.SetState(&s); err != nil {
			return err
		}
		var exit accel.Exit
		if err := p.vcpu.Run(&exit); err != nil {
			return err
		}
		if p.ended {
			return nil
		}
		if exit.Reason == accel.ExitKick {
			return fmt.Errorf("the probe's guest was silent for %v", probePatience)
		}
		resume, err := mem.Load32(probeResume)
		if err != nil || resume == 0 || tries >= len(probeTries()) {
			return fmt.Errorf("the probe's guest ended with %v: %s", exit.Reason, exit.Detail)
		}
		if err := p.vcpu.GetState(&s); err != nil {
			return err
		}
		s.RIP = uint64(resume)
	}
}

// threadTime is the CPU time that the calling thread has used, its guest's
// included: what else the host runs does not count.
func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // cannot fail for this clock
	return time.Duration(ts.Nano())
}

// Read answers port 0x81 with the turns to count.
func (p *prober) Read(addr uint64, b []byte) {
	clear(b)
	if addr == 0x81 && len(b) == 4 {
		binary.LittleEndian.PutUint32(b, p.turns)
		p.started = threadTime()
	}
}

// Write takes the guest's reports. A count that may have been mostly exits and
// first touches of pages is repeated with more turns.
func (p *prober) Write(addr uint64, b []byte) {
	switch addr {
	case 0x80:
		took := max(threadTime()-p.started, 1)
		p.mips = max(p.mips, 2*float64(p.turns)/float64(took.Nanoseconds())*1e3)
		if took > 50*time.Millisecond || p.turns >= 1<<28 {
			p.turns = 0
		} else {
			p.turns *= 8
		}
	case 0x82:
		p.executed[b[0]] = true
	case 0xf4:
		p.ended = true
		p.vcpu.Kick()
	}
}

// report judges what was measured.
func (p *prober) report(err error) Report {
	r := Report{MIPS: p.mips}
	for i, name := range probeTries() {
		if err == nil && !p.executed[uint8(i)] {
			r.Refused = append(r.Refused, name)
		}
	}
	slow := p.mips < MinMIPS
	var why []string
	switch {
	case err != nil:
		why = append(why, err.Error())
	case len(r.Refused) > 0:
		why = append(why, "it stops at "+strings.Join(r.Refused, ", ")+" in kernel mode")
	}
	if err == nil && slow {
		why = append(why, fmt.Sprintf("it runs kernel code at %.1f million instructions a second", p.mips))
	}
	if len(why) > 0 {
		r.Reason = "this KVM cannot run ordinary guests: " + strings.Join(why, "; ")
		return r
	}
	r.Usable = true
	r.Reason = fmt.Sprintf("runs ordinary guests, kernel code at %.0f million instructions a second", p.mips)
	return r
}
