package x86

// MCBanks is how many machine-check banks a guest's CPU has on every accelerator.
const MCBanks = 10

// MCGCap is what IA32_MCG_CAP says: MCBanks banks, IA32_MCG_CTL, and errors from
// which software can recover (Intel SDM vol. 3B §15.3.1.1).
const MCGCap = MCBanks | 1<<8 | 1<<24

// Bits of IA32_MCG_STATUS and IA32_MCi_STATUS (Intel SDM vol. 3B §15.3.1.2, §15.3.2.2).
const (
	MCGStatusRIPV = 1 << 0 // execution can go on at the pushed RIP
	MCGStatusEIPV = 1 << 1 // that instruction is concerned
	MCGStatusMCIP = 1 << 2 // a machine check is being handled

	MCStatusMISCV = 1 << 59
	MCStatusADDRV = 1 << 58
	MCStatusEN    = 1 << 60
	MCStatusUC    = 1 << 61 // uncorrected
	MCStatusOver  = 1 << 62
	MCStatusVal   = 1 << 63
)

// MachineCheck is a hardware error to report to a guest: the registers of the
// bank that logs it (Intel SDM vol. 3B §15.3.2), and IA32_MCG_STATUS, which an
// uncorrected one sets as it raises #MC.
type MachineCheck struct {
	Bank      uint8 // below MCBanks
	Status    uint64
	Addr      uint64
	Misc      uint64
	MCGStatus uint64
}
