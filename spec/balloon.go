package spec

import "fmt"

// Balloon is the device by which a guest gives memory back; the zero Balloon is none.
type Balloon struct {
	On bool   `json:"on"`
	ID string `json:"id,omitempty"`
	// DeflateOnOOM has a guest take pages back before it kills processes.
	DeflateOnOOM bool `json:"deflateOnOom,omitempty"`
	// FreePageReporting has a guest report pages that it does not use.
	FreePageReporting bool `json:"freePageReporting,omitempty"`
}

// Set reads the value of --balloon.
func (b *Balloon) Set(s string) error {
	*b = Balloon{}
	return setKeys(s, b)
}

func (m *Machine) checkBalloon() error {
	if m.Balloon.ID != "" && !wellFormed(m.Balloon.ID) {
		return fmt.Errorf("balloon: id %q: up to %d letters, digits, -, . and _, a letter first", m.Balloon.ID, maxName)
	}
	return nil
}
