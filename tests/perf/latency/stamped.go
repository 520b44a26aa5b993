package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"berth/accel"
	"berth/accel/soft"
	"berth/boot"
	"berth/boot/pvh"
	"berth/clock"
	"berth/guestmem"
)

// The ports of the device, and of what else the guest uses; see guest/guest.c.
const (
	stampPort  = 0x2f0 // read: the magic number; write: microseconds until the next interrupt
	stampLow   = stampPort + 4
	stampHigh  = stampPort + 8
	stampMagic = 0x5354414d
	stampGSI   = 5
	serialData = 0x3f8
	debugExit  = 0xf4
)

// stampedRows runs the guest on the soft engine with a device of the benchmark's,
// whose thread notes the clock's time and raises its interrupt at once.
func stampedRows(path string, cpus int, limit time.Duration) ([]row, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	mem := guestmem.New()
	defer func() { _ = mem.Close() }()
	if _, err := mem.AddRAM(0, 64<<20); err != nil {
		return nil, err
	}
	entry, err := pvh.Load(mem, boot.Params{Kernel: io.NewSectionReader(file, 0, info.Size())})
	if err != nil {
		return nil, err
	}
	now, err := clock.New()
	if err != nil {
		return nil, err
	}
	defer func() { _ = now.Close() }()
	d := &stampDevice{clock: now, wanted: make(chan time.Duration, 1), ended: make(chan struct{})}
	vm, err := soft.New(slog.New(slog.DiscardHandler)).NewVM(accel.Config{Memory: mem, Ports: d, MMIO: nothing{}, CPUs: cpus, Clock: now})
	if err != nil {
		return nil, err
	}
	defer func() { _ = vm.Close() }()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cpus + 4)) // as machine does
	if err := d.runGuest(vm, entry, cpus, limit); err != nil {
		return nil, err
	}
	return parse(d.said.String())
}

// stampDevice is the device and, on its ports, the rest of the machine.
type stampDevice struct {
	clock  clock.Clock
	wanted chan time.Duration
	stamp  atomic.Uint64

	said  bytes.Buffer // by vCPU 0 alone
	ended chan struct{}
	once  sync.Once
}

// runGuest returns when the guest has ended and all its threads are gone.
func (d *stampDevice) runGuest(vm accel.VM, entry *boot.Entry, cpus int, limit time.Duration) error {
	var vcpus []accel.VCPU
	var threads sync.WaitGroup
	made := make(chan error)
	for id := range cpus {
		v, err := vm.NewVCPU(id)
		if err != nil {
			return err
		}
		vcpus = append(vcpus, v)
		threads.Go(func() {
			runtime.LockOSThread()
			var err error
			if id == 0 {
				err = v.SetState(&entry.State)
			}
			made <- err
			var exit accel.Exit
			if err == nil && v.Run(&exit) == nil && exit.Reason != accel.ExitKick {
				fmt.Fprintf(os.Stderr, "vCPU %d: %v %s\n", id, exit.Reason, exit.Detail)
			}
		})
	}
	var failed error
	for range cpus {
		if err := <-made; err != nil {
			failed = err
		}
	}
	threads.Go(func() { d.interrupt(vm) })
	select {
	case <-d.ended:
	case <-time.After(limit):
		failed = fmt.Errorf("the guest did not end within %s", limit)
	}
	for _, v := range vcpus {
		v.Kick()
	}
	close(d.wanted)
	threads.Wait()
	return failed
}

// interrupt is the device's thread.
func (d *stampDevice) interrupt(vm accel.VM) {
	runtime.LockOSThread()
	chip := vm.IRQChip()
	for wait := range d.wanted {
		ts := unix.NsecToTimespec(int64(wait))
		_ = unix.Nanosleep(&ts, nil)
		d.stamp.Store(d.clock.Now())
		chip.SetGSI(stampGSI, true)
		chip.SetGSI(stampGSI, false)
	}
}

// Read implements accel.IO.
func (d *stampDevice) Read(port uint64, p []byte) {
	v := ^uint64(0)
	switch port {
	case stampPort:
		v = stampMagic
	case stampLow:
		v = d.stamp.Load()
	case stampHigh:
		v = d.stamp.Load() >> 32
	}
	copy(p, binary.LittleEndian.AppendUint64(nil, v))
}

// Write implements accel.IO.
func (d *stampDevice) Write(port uint64, p []byte) {
	switch port {
	case stampPort:
		if len(p) == 4 {
			d.wanted <- time.Duration(binary.LittleEndian.Uint32(p)) * time.Microsecond
		}
	case serialData:
		d.said.WriteByte(p[0])
	case debugExit:
		d.once.Do(func() { close(d.ended) })
	}
}

type nothing struct{}

func (nothing) Read(_ uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}
func (nothing) Write(uint64, []byte) {}
