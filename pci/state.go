package pci

import "fmt"

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 2

// State is the root complex and the configuration of every function on it. The
// devices behind save their own.
type State struct {
	Version   uint32
	Address   uint32
	PIRQRoute [8]uint8
	Functions []FunctionState
}

// FunctionState is one function's configuration space and MSI-X table.
type FunctionState struct {
	Port    uint8 // number of the root port that it is plugged into; 0: it is on bus 0
	Devfn   uint8
	Config  []byte
	INTx    bool
	Vectors []VectorState
}

// VectorState is one MSI-X table entry and its pending bit.
type VectorState struct {
	Addr    uint64
	Data    uint32
	Control uint32
	Pending bool
}

// Save returns the state of configuration space. vCPUs and devices are paused.
func (r *RootComplex) Save() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := State{Version: StateVersion, Address: r.address}
	r.pirqMu.Lock()
	for n := range r.pirqs {
		s.PIRQRoute[n] = r.pirqs[n].route
	}
	r.pirqMu.Unlock()
	for _, f := range r.functions {
		s.Functions = append(s.Functions, f.save())
	}
	return s
}

func (f *Function) save() FunctionState {
	s := FunctionState{Port: f.port(), Devfn: f.devfn, Config: append([]byte(nil), f.cfg[:]...)}
	f.irqMu.Lock()
	s.INTx = f.intx
	f.irqMu.Unlock()
	if x := f.msix; x != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, e := range x.vectors {
			s.Vectors = append(s.Vectors, VectorState{e.addr, e.data, e.ctl, e.pending})
		}
	}
	return s
}

// Load puts a saved state into a complex built with the same functions: BARs
// are mapped and messages programmed again. Devices load after it. On an error
// nothing has changed.
func (r *RootComplex) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("pci: state version %d, want %d", s.Version, StateVersion)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(s.Functions) != len(r.functions) {
		return fmt.Errorf("pci: state has %d functions, this machine %d", len(s.Functions), len(r.functions))
	}
	for i, f := range r.functions {
		if err := f.check(s.Functions[i]); err != nil {
			return fmt.Errorf("pci: %s at port %d, %02x.%d: %w", f.name, f.port(), f.devfn>>3, f.devfn&7, err)
		}
	}
	r.address = s.Address & 0x80fffffc
	for n, v := range s.PIRQRoute {
		r.routePIRQ(n, v&0x8f)
	}
	for i, f := range r.functions {
		f.load(s.Functions[i])
	}
	r.remap()
	return nil
}

// check says whether s can be a state of this function: what the guest cannot
// change is the same.
func (f *Function) check(s FunctionState) error {
	if s.Port != f.port() || s.Devfn != f.devfn {
		return fmt.Errorf("state has a function at port %d, %02x.%d instead", s.Port, s.Devfn>>3, s.Devfn&7)
	}
	if len(s.Config) != configSize {
		return fmt.Errorf("state has %d bytes of configuration space", len(s.Config))
	}
	for i, m := range f.writable {
		if (s.Config[i]^f.reset[i])&^m != 0 {
			return fmt.Errorf("state differs in read-only register 0x%x", i)
		}
	}
	vectors := 0
	if f.msix != nil {
		vectors = len(f.msix.vectors)
	}
	if len(s.Vectors) != vectors {
		return fmt.Errorf("state has %d MSI-X vectors, the function %d", len(s.Vectors), vectors)
	}
	return nil
}

func (f *Function) load(s FunctionState) {
	if x := f.msix; x != nil {
		x.reset()
		x.mu.Lock()
		for i, v := range s.Vectors {
			e := &x.vectors[i]
			e.addr, e.data, e.ctl, e.pending = v.Addr&^3, v.Data, v.Control&vectorMasked, v.Pending
		}
		x.mu.Unlock()
	}
	f.write(0, s.Config)
	f.irqMu.Lock()
	f.intx = s.INTx
	f.irqMu.Unlock()
	f.updateINTx()
}
