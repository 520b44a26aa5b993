// Package pcihp is the register block by which ACPI code in the guest learns which slots to look at, and lets go of what is in them.
package pcihp

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// Base and Size are the block's ports; Event is the general-purpose event that
// says that something is new.
const (
	Base  = 0xcc0
	Size  = 12
	Event = 1
)

// Registers, 4 bytes each with a bit for each slot; accesses of another width do
// nothing and read 0. The guest's code is package acpi's.
//
//	0x0 R  slots in which something was plugged; reading clears it
//	0x4 R  slots whose device is asked for; reading clears it
//	0x8 W  slots whose device the guest has let go of
const (
	regPlugged = 0x0
	regWanted  = 0x4
	regEject   = 0x8
)

// Config is what the block needs around it.
type Config struct {
	// Raise sets the general-purpose event.
	Raise func()
	// Eject is told that the guest has let go of what is in a slot, asked or not. It is
	// called on the vCPU's thread: the slot is empty for the guest when it returns.
	Eject func(slot int)
}

// Block is the register block. Safe for concurrent use.
type Block struct {
	cfg Config

	mu sync.Mutex
	s  State
}

// StateVersion is the version of State.
const StateVersion = 1

// State is the registers.
type State struct {
	Version         uint32
	Plugged, Wanted uint32
}

// New returns a block with nothing new to say.
func New(cfg Config) *Block { return &Block{cfg: cfg, s: State{Version: StateVersion}} }

// Plugged tells the guest that there is something in a slot, 0 to 31.
func (b *Block) Plugged(slot int) { b.tell(&b.s.Plugged, slot) }

// Want asks the guest to let go of what is in a slot.
func (b *Block) Want(slot int) { b.tell(&b.s.Wanted, slot) }

func (b *Block) tell(register *uint32, slot int) {
	b.mu.Lock()
	*register |= 1 << (slot & 31)
	b.mu.Unlock()
	b.cfg.Raise()
}

// Forget takes back what the guest has not read of a slot, which is empty now.
func (b *Block) Forget(slot int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Plugged &^= 1 << (slot & 31)
	b.s.Wanted &^= 1 << (slot & 31)
}

// Reset takes back everything: a guest that begins anew looks at all slots.
func (b *Block) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s = State{Version: StateVersion}
}

// Read implements bus.Handler.
func (b *Block) Read(off uint64, p []byte) {
	clear(p)
	if len(p) != 4 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var register *uint32
	switch off {
	case regPlugged:
		register = &b.s.Plugged
	case regWanted:
		register = &b.s.Wanted
	default:
		return
	}
	binary.LittleEndian.PutUint32(p, *register)
	*register = 0
}

// Write implements bus.Handler.
func (b *Block) Write(off uint64, p []byte) {
	if len(p) != 4 || off != regEject {
		return
	}
	slots := binary.LittleEndian.Uint32(p)
	for slot := range 32 {
		if slots>>slot&1 != 0 {
			b.Forget(slot)
			b.cfg.Eject(slot)
		}
	}
}

// Save returns the registers.
func (b *Block) Save() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.s
}

// Load puts saved registers back.
func (b *Block) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("pcihp: state version %d, want %d", s.Version, StateVersion)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s = s
	return nil
}
