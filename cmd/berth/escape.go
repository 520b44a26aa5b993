package main

// Keys of the console's escape sequences, after Ctrl-A.
const (
	escapePrefix = 0x01 // Ctrl-A
	escapeLeave  = 'x'
	escapeHelp   = 'h'
)

// escapes takes the user's escape sequences out of what is typed:
// Ctrl-A X leaves, Ctrl-A H asks for help, Ctrl-A Ctrl-A sends one Ctrl-A. Any
// other key after Ctrl-A is dropped with it.
type escapes struct {
	pending bool // Ctrl-A was the last key
	leave   func()
	help    func()
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
		case escapePrefix | 0x20:
			if b == escapePrefix {
				kept = append(kept, b)
			}
		}
	}
	return kept
}
