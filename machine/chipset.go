package machine

import (
	"sync/atomic"
	"time"

	"berth/bus"
	"berth/device/debugexit"
	"berth/device/pm"
	"berth/device/pvpanic"
	"berth/device/rtc"
	"berth/device/uart"
	"berth/irq"
)

// ISA interrupt lines.
const (
	irqSerial = 4
	irqRTC    = 8
	irqSCI    = 9
)

// serialPort is the base of the first serial port, COM1.
const serialPort = 0x3f8

// chipset is the chips of every board beside those of the accelerator.
type chipset struct {
	uart *uart.UART
	rtc  *rtc.RTC // nil: none
	pm   *pm.PM

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
	host, err := b.plug(cfg, "serial", cfg.Spec.Serial)
	if err != nil {
		return err
	}
	b.uart = uart.New(uart.Config{IRQ: irq.GSILine(chip, irqSerial), Clock: b.clock, Port: host})
	b.speaks(b.uart, cfg.Spec.Serial)
	windows := []bus.Window{
		{Base: pm.Base, Size: pm.Size, Name: "pm", Handler: b.pm},
		{Base: pm.APMBase, Size: pm.APMSize, Name: "apm", Handler: b.pm.APM()},
		{Base: serialPort, Size: uart.Size, Name: "uart", Handler: b.uart},
	}
	if cfg.Spec.PVPanic == "isa" {
		windows = append(windows, bus.Window{Base: pvpanic.Port, Size: pvpanic.Size, Name: "pvpanic", Handler: b.panicDevice(cfg, post)})
	}
	if cfg.Spec.DebugExit {
		d := debugexit.New(func(status int) { post(event{kind: eventDebugExit, code: status}) })
		windows = append(windows, bus.Window{Base: debugexit.Base, Size: debugexit.Size, Name: "debug exit", Handler: d})
	}
	return b.mapPorts(windows)
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
	c.uart.Reset()
	c.pm.Reset()
	if c.rtc != nil {
		c.rtc.Reset()
	}
}

func (c *chipset) close() error {
	if c.uart == nil {
		return nil
	}
	return c.uart.Close()
}
