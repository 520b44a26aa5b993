package machine

import (
	"errors"
	"sync/atomic"
	"time"

	"berth/acpi"
	"berth/bus"
	"berth/device/debugexit"
	"berth/device/pm"
	"berth/device/pvpanic"
	"berth/device/rtc"
	"berth/device/uart"
	"berth/irq"
	"berth/spec"
)

// ISA interrupt lines.
const (
	irqRTC = 8
	irqSCI = 9
)

// serialPorts are COM1 to COM4, where every PC has them.
var serialPorts = [spec.MaxSerials]acpi.Serial{{Port: 0x3f8, IRQ: 4}, {Port: 0x2f8, IRQ: 3}, {Port: 0x3e8, IRQ: 4}, {Port: 0x2e8, IRQ: 3}}

// chipset is the chips of every board beside those of the accelerator.
type chipset struct {
	uarts []*uart.UART
	rtc   *rtc.RTC // nil: none
	pm    *pm.PM

	panicked atomic.Bool // the log has it, since the last reset
}

// addChips makes the chips that all boards have and maps their ports.
func (b *board) addChips(cfg Config, post func(event)) error {
	chip := b.vm.IRQChip()
	b.pm = pm.New(pm.Config{
		SCI: irq.GSILine(chip, irqSCI), Clock: b.clock, ACPIOnly: true,
		Reset:    func() { post(event{kind: eventReset}) },
		PowerOff: func() { post(event{kind: eventPowerOff}) },
	})
	windows := []bus.Window{
		{Base: pm.Base, Size: pm.Size, Name: "pm", Handler: b.pm},
		{Base: pm.APMBase, Size: pm.APMSize, Name: "apm", Handler: b.pm.APM()},
	}
	serial, err := b.addSerial(cfg)
	if err != nil {
		return err
	}
	windows = append(windows, serial...)
	if cfg.Spec.PVPanic == "isa" {
		windows = append(windows, bus.Window{Base: pvpanic.Port, Size: pvpanic.Size, Name: "pvpanic", Handler: b.panicDevice(cfg, post)})
	}
	if cfg.Spec.DebugExit {
		d := debugexit.New(func(status int) { post(event{kind: eventDebugExit, code: status}) })
		windows = append(windows, bus.Window{Base: debugexit.Base, Size: debugexit.Size, Name: "debug exit", Handler: d})
	}
	return b.mapPorts(windows)
}

// addSerial makes the serial ports; the first is there, with nothing plugged in if nothing is said of it.
func (b *board) addSerial(cfg Config) (windows []bus.Window, err error) {
	lines := map[uint8]*irq.Shared{}
	ends := cfg.Spec.Serial
	if len(ends) == 0 {
		ends = spec.Chars{{}}
	}
	for i, c := range ends {
		host, err := b.plug(cfg, numbered("serial", i), c.Label("serial", i), c)
		if err != nil {
			return nil, err
		}
		at := serialPorts[i]
		if lines[at.IRQ] == nil {
			lines[at.IRQ] = irq.NewShared(irq.GSILine(b.vm.IRQChip(), uint32(at.IRQ)))
		}
		u := uart.New(uart.Config{IRQ: lines[at.IRQ].Source(), Clock: b.clock, Port: host})
		b.uarts = append(b.uarts, u)
		b.speaks(u, c)
		windows = append(windows, bus.Window{Base: uint64(at.Port), Size: uart.Size, Name: numbered("uart", i), Handler: u})
	}
	return windows, nil
}

// addRTC makes the clock that tells the time of day.
func (b *board) addRTC(cfg Config) error {
	size := uint64(cfg.Spec.Memory.Size)
	low := min(size, lowRAM)
	b.rtc = rtc.New(rtc.Config{
		IRQ: irq.GSILine(b.vm.IRQChip(), irqRTC), Clock: b.clock, Start: time.Now().UTC(), Below4G: low, Above4G: size - low,
	})
	return b.mapPorts([]bus.Window{{Base: rtc.Base, Size: rtc.Size, Name: "rtc", Handler: b.rtc}})
}

// panicDevice makes the device by which the guest says that it panicked.
func (b *board) panicDevice(cfg Config, post func(event)) *pvpanic.Device {
	return pvpanic.New(func(e pvpanic.Event) {
		goesOn := cfg.Spec.OnPanic == "ignore"
		switch {
		case e == pvpanic.Panicked && !goesOn:
			post(event{kind: eventPanic})
		case b.panicked.Swap(true): // a guest may say it as often as it likes
		case e == pvpanic.CrashLoaded:
			cfg.Log.Warn("the guest's kernel panicked, and its crash kernel takes over")
		default:
			cfg.Log.Warn("the guest's kernel panicked, which is ignored")
		}
	})
}

func (b *board) mapPorts(windows []bus.Window) error {
	for _, w := range windows {
		if _, err := b.ports.Map(w.Base, w.Size, w.Name, w.Handler); err != nil {
			return err
		}
	}
	return nil
}

func (c *chipset) reset() {
	c.panicked.Store(false)
	for _, u := range c.uarts {
		u.Reset()
	}
	c.pm.Reset()
	if c.rtc != nil {
		c.rtc.Reset()
	}
}

func (c *chipset) close() error {
	var errs []error
	for _, u := range c.uarts {
		errs = append(errs, u.Close())
	}
	return errors.Join(errs...)
}
