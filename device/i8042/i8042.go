// Package i8042 is as much of the keyboard controller as resets a PC: no keyboard or mouse is behind it.
package i8042

import (
	"fmt"

	"berth/bus"
)

// Ports: data and, four up, status and command.
const (
	DataBase    = 0x60
	CommandBase = 0x64
	Size        = 1 // of each
)

const (
	statusIdle   = 0x1c // system flag, last write was a command, not locked; both buffers empty
	commandReset = 0xfe // pulse output bit 0, the CPU's reset
)

// Controller is the keyboard controller. It has no state.
type Controller struct{ reset func() }

// New returns a controller that calls reset, on the vCPU's thread, when the guest asks for it.
func New(reset func()) *Controller { return &Controller{reset: reset} }

// Data is the window at DataBase: it reads 0 and ignores writes.
func (c *Controller) Data() bus.Handler {
	return bus.Bytes{In: func(uint64) byte { return 0 }, Out: func(uint64, byte) {}}
}

// Command is the window at CommandBase.
func (c *Controller) Command() bus.Handler {
	return bus.Bytes{
		In: func(uint64) byte { return statusIdle },
		Out: func(_ uint64, v byte) {
			if v == commandReset {
				c.reset()
			}
		},
	}
}

// StateVersion is the version of State.
const StateVersion = 1

// State is the controller's: nothing but the version.
type State struct{ Version uint32 }

// Save returns the controller's state.
func (c *Controller) Save() State { return State{StateVersion} }

// Load checks the version.
func (c *Controller) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("i8042: state version %d, want %d", s.Version, StateVersion)
	}
	return nil
}
