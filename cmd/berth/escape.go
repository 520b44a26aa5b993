package main

// Keys of the console's escape sequences, after Ctrl-A.
const (
	escapePrefix = 0x01 // Ctrl-A
	escapeLeave  = 'x'
	escapeTurn   = 'c'
	escapeHelp   = 'h'
)

// escapes takes the user's escape sequences out of what is typed:
// Ctrl-A X leaves, Ctrl-A H asks for help, Ctrl-A C turns between console and
// monitor, Ctrl-A Ctrl-A sends one Ctrl-A. Any other key after Ctrl-A is dropped with it.
type escapes struct {
	pending bool // Ctrl-A was the last key
	leave   func()
	help    func()
	// turn is given what was typed before it, in memory that is used again. nil:
	// there is nowhere to turn to.
	turn func(before []byte)
}

// filter returns, in p's own memory, the bytes of p that go to the guest.
func (e *escapes) filter(p []byte) []byte {
	kept := p[:0]
	for _, b := range p {
		if !e.pending {
			if e.pending = b == escapePrefix; !e.pending {
				kept = append(kept, b)
			}
			continue
		}
		e.pending = false
		switch b | 0x20 {
		case escapeLeave:
			e.leave()
		case escapeHelp:
			e.help()
		case escapeTurn:
			if e.turn != nil {
				e.turn(kept)
				kept = kept[:0]
			}
		case escapePrefix | 0x20:
			if b == escapePrefix {
				kept = append(kept, b)
			}
		}
	}
	return kept
}
