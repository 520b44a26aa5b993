package pci

import "encoding/binary"

// Registers of the chipset's two own functions that software looks at.
const (
	mchPCIEXBAR  = 0x60 // 82Q35 §5.1.16: where ECAM is, bit 0 enabled
	lpcPMBase    = 0x40 // ICH9 §13.1.12
	lpcACPICntl  = 0x44 // ICH9 §13.1.13: bit 7 ACPI enabled, bits 2-0 zero: SCI on 9
	lpcPIRQA     = 0x60 // ICH9 §13.1.17: PIRQA-D
	lpcPIRQE     = 0x68 // ICH9 §13.1.19: PIRQE-H
	acpiPortBase = 0x600
)

// newHostBridge returns the Q35 memory controller hub's DRAM controller, 00:00.0.
func newHostBridge() *Function {
	f := NewFunction("host bridge", Identity{
		Vendor: 0x8086, Device: 0x29c0, Class: 0x060000, Revision: 2,
		SubsystemVendor: 0x1af4, SubsystemID: 0x1100,
	})
	var ecam [8]byte
	binary.LittleEndian.PutUint64(ecam[:], ECAMBase|1)
	f.SetRegister(mchPCIEXBAR, ecam[:], nil)
	return f
}

// newISABridge returns the ICH9 LPC bridge, 00:1f.0, whose ACPI block is fixed
// at port 0x600 and whose PIRQ routing registers are live.
func (r *RootComplex) newISABridge() *Function {
	f := NewFunction("isa bridge", Identity{
		Vendor: 0x8086, Device: 0x2918, Class: 0x060100, Revision: 2,
		SubsystemVendor: 0x1af4, SubsystemID: 0x1100,
	})
	f.SetRegister(lpcPMBase, []byte{acpiPortBase&0xff | 1, acpiPortBase >> 8}, nil)
	f.SetRegister(lpcACPICntl, []byte{0x80}, nil)
	f.Hook(lpcPIRQA, 4, pirqRegisters{r, 0})
	f.Hook(lpcPIRQE, 4, pirqRegisters{r, 4})
	return f
}

// pirqRegisters are four PIRQ routing bytes: bit 7 not routed, bits 3-0 the ISA interrupt.
type pirqRegisters struct {
	r     *RootComplex
	first int
}

func (g pirqRegisters) Read(off uint64, p []byte) {
	g.r.pirqMu.Lock()
	defer g.r.pirqMu.Unlock()
	for i := range p {
		p[i] = g.r.pirqs[g.first+int(off)+i].route
	}
}

func (g pirqRegisters) Write(off uint64, p []byte) {
	for i, v := range p {
		g.r.routePIRQ(g.first+int(off)+i, v&0x8f)
	}
}
