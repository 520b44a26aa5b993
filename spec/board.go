package spec

import (
	"fmt"
	"slices"
	"strings"

	"berth/internal/suggest"
)

// Board is one version of a board. What a guest sees of it never changes once
// it is released: a change makes a new version.
type Board struct {
	Name  string // "q35-1"
	Alias string // "q35": the newest board of this alias, the last in Boards
	About string // one line
}

// Boards returns all boards, of each alias the oldest first.
func Boards() []Board {
	return []Board{
		{"microvm-1", "microvm", "virtio-mmio devices and no chipset: the fastest to boot"},
		{"q35-1", "q35", "a PC with PCI Express and no slots for hot-plug"},
		{"q35-2", "q35", "a PC with PCI Express"},
	}
}

// findBoard returns the board of a versioned name or an alias.
func findBoard(name string) (Board, error) {
	var found *Board
	var names []string
	for _, b := range Boards() {
		if b.Name == name || b.Alias == name {
			found = &b
		}
		if !slices.Contains(names, b.Alias) {
			names = append(names, b.Alias)
		}
		names = append(names, b.Name)
	}
	if found != nil {
		return *found, nil
	}
	if near := suggest.Closest(name, names); near != "" {
		return Board{}, fmt.Errorf("machine %q is not known: did you mean %q?", name, near)
	}
	return Board{}, fmt.Errorf("machine %q is not known: use %s", name, strings.Join(names, ", "))
}

// small reports whether the machine, which is completed, is on the board without PCI.
func (m *Machine) small() bool { return strings.HasPrefix(m.Board, "microvm") }

// checkBoard refuses what the board cannot have.
func (m *Machine) checkBoard() error {
	b, err := findBoard(m.Board)
	if err != nil {
		return err
	}
	if b.Alias == "microvm" && m.PVPanic == "pci" {
		return fmt.Errorf("machine %s has no PCI: use --pvpanic isa", m.Board)
	}
	return nil
}
