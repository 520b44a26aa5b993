package machine

import (
	"errors"
	"time"

	"berth/bus"
	"berth/device/debugexit"
	"berth/device/i8042"
	"berth/device/pm"
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

// legacy is the chips every PC has beside those of the accelerator.
type legacy struct {
	uart *uart.UART
	rtc  *rtc.RTC
	pm   *pm.PM
}

// addLegacy makes the chips and maps their ports.
func (b *board) addLegacy(cfg Config, post func(event)) error {
	chip := b.vm.IRQChip()
	reset := func() { post(event{kind: eventReset}) }
	b.pm = pm.New(pm.Config{
		SCI: irq.GSILine(chip, irqSCI), Clock: b.clock, ACPIOnly: true, Reset: reset,
		PowerOff: func() { post(event{kind: eventPowerOff}) },
	})
	size := uint64(cfg.Spec.Memory.Size)
	low := min(size, lowRAM)
	b.rtc = rtc.New(rtc.Config{
		IRQ: irq.GSILine(chip, irqRTC), Clock: b.clock, Start: time.Now().UTC(), Below4G: low, Above4G: size - low,
	})
	b.uart = uart.New(uart.Config{IRQ: irq.GSILine(chip, irqSerial), Clock: b.clock, Port: cfg.Console})
	keyboard := i8042.New(reset)
	windows := []bus.Window{
		{Base: pm.Base, Size: pm.Size, Name: "pm", Handler: b.pm},
		{Base: pm.APMBase, Size: pm.APMSize, Name: "apm", Handler: b.pm.APM()},
		{Base: rtc.Base, Size: rtc.Size, Name: "rtc", Handler: b.rtc},
		{Base: serialPort, Size: uart.Size, Name: "uart", Handler: b.uart},
		{Base: i8042.DataBase, Size: 1, Name: "i8042 data", Handler: keyboard.Data()},
		{Base: i8042.CommandBase, Size: 1, Name: "i8042 command", Handler: keyboard.Command()},
	}
	if cfg.Spec.DebugExit {
		d := debugexit.New(func(status int) { post(event{kind: eventDebugExit, code: status}) })
		windows = append(windows, bus.Window{Base: debugexit.Base, Size: debugexit.Size, Name: "debug exit", Handler: d})
	}
	for _, w := range windows {
		if _, err := b.ports.Map(w.Base, w.Size, w.Name, w.Handler); err != nil {
			return err
		}
	}
	return nil
}

func (b *board) resetLegacy() {
	b.uart.Reset()
	b.rtc.Reset()
	b.pm.Reset()
}

func (b *board) closeLegacy() error {
	if b.uart == nil {
		return nil
	}
	return errors.Join(b.uart.Close())
}
